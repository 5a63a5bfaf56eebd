/* The bound on staleness: which steps may be under way at once. */
#ifndef CHAOS_GATE_H
#define CHAOS_GATE_H

#include "worker.h"

/* A step under way: steps that were under way when it began; its number. */
struct gate_step {
    int64_t others, begun;
    int under_way;
};

/* Waits until the worker may begin a step without breaking the bound; 0 if the phase is to end. */
int gate_enter(worker *w);
/* The step is over. */
void gate_leave(worker *w);

#endif
