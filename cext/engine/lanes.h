/* Lanes: the parts, of a size that does not depend on the workers, into which a synchronous step is cut: whole groups of images
 * that layers want to see together (plan.group), counted from the step's beginning. */
#ifndef CHAOS_LANES_H
#define CHAOS_LANES_H

#include <stdint.h>

/* Into how many lanes a step of `batch` images is cut where `wanted` are asked for; 0: one per LANE_IMAGES images, at most
 * MAX_LANES. */
enum { LANE_IMAGES = 4, MAX_LANES = 64 };
int lanes_of(int64_t batch, int wanted, int group);
/* Lanes of a step of so many images, at most one for each group. */
int lanes_in(int64_t images, int most, int group);
/* Where lane j of the step's `lanes` begins; lanes differ by at most one group. */
int64_t lane_begin(int64_t begin, int64_t end, int lanes, int j, int group);

#endif
