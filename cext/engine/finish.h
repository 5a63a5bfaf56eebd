/* The last step of building a plan: what follows from all its layers together. For the door. */
#ifndef CHAOS_FINISH_H
#define CHAOS_FINISH_H

#include "plan.h"

/* Fixes the output, the fusions, the edges, the blocks' users and all sizes; 0, or -1 when out of memory. */
int plan_finish(plan *p, int output, int pixels);

#endif
