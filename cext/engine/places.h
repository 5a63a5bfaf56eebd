/* Where in a worker's memory outputs, what is kept of them, and deltas lie: what is not needed at the same time shares a place,
 * so that the caches hold what is under way. For finish.c. */
#ifndef CHAOS_PLACES_H
#define CHAOS_PLACES_H

#include "plan.h"

/* Fills p->places, of a plan whose edges, fusions and sizes are there; -1: out of memory. */
int places_find(plan *p);

#endif
