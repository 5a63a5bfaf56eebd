/* Lanes: the parts, of a size that does not depend on the workers, into which a synchronous step is cut. */
#ifndef CHAOS_LANES_H
#define CHAOS_LANES_H

#include <stdint.h>

/* Into how many lanes a step of `batch` images is cut where `wanted` are asked for; 0: one per LANE_IMAGES images, at most
 * MAX_LANES. */
enum { LANE_IMAGES = 4, MAX_LANES = 64 };
int lanes_of(int64_t batch, int wanted);
/* Where lane j of the step's `lanes` begins; lanes differ by at most one image. */
int64_t lane_begin(int64_t begin, int64_t end, int lanes, int j);

#endif
