/* What the engine's own files share; included by them only. */
#ifndef CHAOS_INSIDE_H
#define CHAOS_INSIDE_H

#include "engine.h"

/* A step under way, for the bound on staleness: steps that were under way when it began; its number. */
struct flight {
    int64_t others, begun;
    int under_way;
};

/* Zeros on pages of their own; free() takes them back. */
void *aligned_zeros(size_t bytes);
/* Makes engine.shared and engine.stripe; -1 when out of memory. */
int cut_stripes(engine *e, float *weights, float *const *moment, size_t stripe_floats);

/* Waits until the worker may begin a step without breaking the bound on staleness; 0 if the phase is to end. */
int take_off(worker *w);
/* The step is over. */
void land(worker *w);
/* Images [begin, end) through the network, in chunks, and back where the phase learns; -1 after a failure. */
int pass_images(worker *w, int64_t begin, int64_t end);

worker *worker_new(engine *e, int id);
/* Its counts start again; it takes the phase's step. */
void worker_begin(worker *w);
/* What engine_run does before and after the workers' work: `team` workers' counts are added to engine.total. */
void engine_begin(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out);
void engine_merge(engine *e, int team);

#endif
