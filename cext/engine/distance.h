/* How far two cores are from each other: the time of handing cache lines from one to the other and back. For the door. */
#ifndef CHAOS_DISTANCE_H
#define CHAOS_DISTANCE_H

#include <stdint.h>

/* Two threads call it at once with the same zeroed room, one as side 0 and one as side 1. In turns each adds to the first
 * word of every one of n lines, which start 128 bytes into the room, and gives all back. After so many turns of its own a
 * side writes down the nanoseconds per line and hand-over (the line that says whose turn it is counts as one more); a
 * first such block warms up. Both return, with the number of blocks, when one of them has written `most`, or the seconds
 * are over. */
int distance_measure(int32_t *room, int n, int side, int turns, double seconds, float *ns, int most);

#endif
