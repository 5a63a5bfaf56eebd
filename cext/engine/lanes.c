/* Cutting a step into lanes; see lanes.h. */
#include "lanes.h"

int lanes_of(int64_t batch, int wanted, int group)
{
    const int64_t usual = (batch + LANE_IMAGES - 1) / LANE_IMAGES, most = usual < MAX_LANES ? usual : MAX_LANES;
    return lanes_in(batch, wanted ? wanted : (int)most, group);
}

int lanes_in(int64_t images, int most, int group)
{
    const int64_t groups = (images + group - 1) / group;
    return groups < most ? (int)groups : most;
}

int64_t lane_begin(int64_t begin, int64_t end, int lanes, int j, int group)
{
    const int64_t groups = (end - begin + group - 1) / group, at = begin + groups * j / lanes * group;
    return at < end ? at : end;
}
