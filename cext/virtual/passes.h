/* A step of a virtual worker: forward through the layers and back, chunk by chunk, with the order's functions between. For
 * orders/. */
#ifndef CHAOS_PASSES_H
#define CHAOS_PASSES_H

#include "stripes.h"

static inline int passes_chunk(const vclock *c, const actor *a)
{
    const int64_t left = a->end - a->image;
    return left < c->p.chunk ? (int)left : c->p.chunk;
}

/* Seconds before the first layer of the chunk. */
static inline double passes_seconds_before(const vclock *c, const actor *a)
{
    return c->p.begin * passes_chunk(c, a) * a->factor;
}

/* For clock_order.begin: takes the next step that nobody has taken; when there is none, ends. */
void passes_begin(vclock *c, actor *a);
/* Begins a step; actor.next is what comes after clock_order.step_begun unless that says otherwise. */
void passes_take(vclock *c, actor *a, int64_t step);
/* Publishes what is pending, then leaves the phase. */
void passes_end(vclock *c, actor *a);
/* From the first layer of the chunk. */
void passes_forward(vclock *c, actor *a);

/* For clock_order.step_begun: nothing but what comes before the first layer. */
void passes_step_begun(vclock *c, actor *a);
/* Copies all weights until actor.since, and has their lines; then the first layer. */
void passes_copy(vclock *c, actor *a);
/* For clock_order.layer_done: publishes the layer's stripes, beginning with the worker's share; a busy one waits, at most
 * vclock.max_pending of them (0: all) beyond the end of the layer. */
void passes_publish_layer(vclock *c, actor *a);
/* The same for orders that publish whole steps. */
void passes_postpone_layer(vclock *c, actor *a);
/* For clock_order.step_done: goes on with the next step. */
void passes_next_step(vclock *c, actor *a);

#endif
