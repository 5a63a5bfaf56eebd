/* Virtual workers and their time: the state of a clock, and the steps of time that its orders are written in. For this room
 * and orders/. */
#ifndef CHAOS_ACTOR_H
#define CHAOS_ACTOR_H

#include "order.h"
#include "parts.h"
#include "random.h"

#include "engine/event.h"
#include "engine/lanes.h"

#include <stddef.h>

/* What a worker knows of a stripe. */
typedef struct {
    uint32_t known, known_other; /* its version when the worker last touched it; the same of actor.other */
    uint8_t pending;             /* its gradient waits for publication */
    uint8_t outdated;            /* its copy is older than the last update */
} actor_stripe;

struct actor {
    action *next; /* what it does when its time comes; NULL: it is done with the phase */
    action *then; /* after the publication, exchange or meeting under way */
    action *settled;
    int id, place;                   /* its number; where it is in the heap */
    int layer, at;                   /* at: place in a walk over stripes */
    int from, to;                    /* stripes that are being settled; from: also where a walk begins */
    int stripe;                      /* being published or exchanged */
    int renews, shared; /* of the publication: a copy is taken; of the exchange: others train the weights too */
    int64_t step, begin, end, image; /* of the step or lane; image: the chunk */
    int vector, other; /* the weights that it trains; that it exchanges them with; 0: the process's */
    double factor, since; /* since: of the publication, exchange or waiting under way */
    int n_pending;
    actor_stripe *of;
    void *state; /* the order's */
};

/* A stripe of one of the weight vectors. */
typedef struct {
    double free_at; /* when its holder lets go */
    uint32_t version;
    int writer; /* of that version */
} vector_stripe;

struct vclock {
    clock_parts p;
    const clock_order *order;
    actor *actor;
    struct {
        double time; /* of the worker's next action */
        int id;
    } *heap;
    int n_heap;
    vector_stripe *stripe; /* per vector and stripe */
    double now;
    int64_t n_images, n_steps, next_step;
    int arrived; /* at the meeting under way */
    int max_pending, keeps_copies; /* see passes.h; set by clock_order.setup */
    generator random;
    clock_counts count;
    event *out;
    double *since, *when;
    int64_t n_out;
    void *state; /* the order's */
    char *actor_states;
    actor_stripe *actor_stripes;
};

/* Puts the worker's next action at that time. */
void actor_schedule(vclock *c, actor *a, double time);
/* All workers act now, in the order of their numbers; the next to act; takes it out. */
void actor_gather(vclock *c);
static inline actor *actor_first(const vclock *c) { return &c->actor[c->heap[0].id]; }
void actor_remove(vclock *c, actor *a);

static inline void actor_emit(vclock *c, const actor *a, enum event_kind kind, int64_t what, double since)
{
    if (c->since)
        c->since[c->n_out] = since;
    if (c->when)
        c->when[c->n_out] = c->now;
    c->out[c->n_out++] = event_of(kind, a->id, (uint32_t)what);
}

/* The next action comes so much later; what has been spent is counted. */
static inline void actor_spend(vclock *c, actor *a, double seconds, double *counted)
{
    *counted += seconds;
    actor_schedule(c, a, c->now + seconds);
}

static inline void actor_wait(vclock *c, actor *a, double until)
{
    c->count.waiting += until - c->now;
    actor_schedule(c, a, until);
}

/* Waits until a stripe is free, and a moment: who of the waiting sees it first is chance. */
static inline void actor_wait_for_stripe(vclock *c, actor *a, double until)
{
    static const double RETRY = 1e-7; /* seconds between two looks at a busy stripe */
    actor_wait(c, a, until + RETRY * random_uniform(&c->random));
}

/* Where the worker's share of n things begins; that of the next worker is its end. */
static inline int actor_share(const vclock *c, int id, int n) { return (int)((int64_t)id * n / c->p.n_workers); }

/* Images, lanes of a step. */
static inline int64_t actor_step_images(const vclock *c, int64_t step)
{
    const int64_t left = c->n_images - step * c->p.batch;
    return left < c->p.batch ? left : c->p.batch;
}
static inline int actor_step_lanes(const vclock *c, int64_t step)
{
    const int64_t n = actor_step_images(c, step);
    return lanes_in(n, c->p.lanes, c->p.group);
}

#endif
