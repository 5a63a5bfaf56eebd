/* Cutting a step into lanes; see lanes.h. */
#include "lanes.h"

int lanes_of(int64_t batch, int wanted)
{
    const int64_t usual = (batch + LANE_IMAGES - 1) / LANE_IMAGES, most = usual < MAX_LANES ? usual : MAX_LANES;
    const int64_t n = wanted ? wanted : most;
    return (int)(n < batch ? n : batch);
}

int64_t lane_begin(int64_t begin, int64_t end, int lanes, int j) { return begin + (end - begin) * j / lanes; }
