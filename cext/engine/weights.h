/* The stripes of the weight vector: how they are cut, read and published. For the engine and cext/sync/. */
#ifndef CHAOS_WEIGHTS_H
#define CHAOS_WEIGHTS_H

#include "worker.h"

/* Makes engine.shared and engine.stripe; -1 when out of memory. */
int weights_cut(engine *e, float *weights, float *const *moment, size_t stripe_floats);

/* Copies a stripe of w->shared into `copy` and notes its version as seen. */
void weights_read_stripe(worker *w, int stripe, float *copy);
/* Copies w->shared into `copy`, notes the stripes' versions as seen, and makes the worker read the copy. */
void weights_read_all(worker *w, float *copy);
/* Publishes one stripe of the worker's gradient, which leaves what is frozen as it is; the caller holds it or is alone. Within layer_done only for stripes of
 * that layer: worker.unwritten is about it. */
void weights_publish(worker *w, int stripe);
/* The step for a stripe: `step`, or where its class asks for it another, which is put into *own. */
const update_step *weights_step(const engine *e, int stripe, const update_step *step, update_step *own);
/* The learning rate of an update of that staleness. */
float weights_rate(const engine *e, uint32_t stale);
/* Counts an update of a stripe that others have updated `stale` times since its weights were read. */
void weights_count_update(worker *w, int stripe, uint32_t stale);
/* Counts a try-lock that found the stripe busy. */
void weights_count_lock_failure(worker *w, int stripe);
/* The stripe will be published after layer_done has returned. */
void weights_postpone(worker *w, int stripe);

#endif
