/* The bound on staleness: which steps may be under way at once. */
#ifndef CHAOS_GATE_H
#define CHAOS_GATE_H

#include "worker.h"

/* A step under way: steps that were under way when it began; its number. */
struct flight {
    int64_t others, begun;
    int under_way;
};

/* Waits until the worker may begin a step without breaking the bound; 0 if the phase is to end. */
int take_off(worker *w);
/* The step is over. */
void land(worker *w);

#endif
