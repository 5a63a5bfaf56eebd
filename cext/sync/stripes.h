/* Publication stripe by stripe, by try-lock: what chaos is, and what replicated does within a group; and what other
 * strategies share. Included by the strategies in this folder. */
#ifndef CHAOS_STRIPES_H
#define CHAOS_STRIPES_H

#include "sync.h"

/* `then` (unless NULL) is called while the stripe is still held. */
static inline int try_publish(worker *w, int k, void (*then)(worker *w, int k))
{
    stripe_state *t = &w->shared->state[k];
    if (!stripe_try_lock(t)) {
        weights_count_lock_failure(w, k);
        return 0;
    }
    weights_publish(w, k);
    if (then)
        then(w, k);
    stripe_unlock(t);
    return 1;
}

static inline void try_pending(worker *w, int from, int to)
{
    for (int k = from; w->n_pending && k < to; k++)
        if (w->pending[k] && try_publish(w, k, NULL)) {
            w->pending[k] = 0;
            w->n_pending--;
        }
}

/* Publishes what is pending in [from, to), however long it takes: the holders of the stripes are busy for
 * microseconds, unless they have lost their core to another worker. */
static inline void settle(worker *w, int from, int to)
{
    int left = 0;
    for (int k = from; k < to; k++)
        left += w->pending[k];
    for (int round = 0; left; round++) {
        const int before = w->n_pending;
        try_pending(w, from, to);
        left -= before - w->n_pending;
        if (left)
            wait_begins(w);
        if (left && round < 64)
            wait_briefly();
        else if (left) {
            w->count.give_ways++;
            wait_for_core();
        }
    }
    wait_ends(w);
}

/* The hooks. `most`: stripes that may wait at the end of a layer; `then` is for those that are published at once. */
static inline void controlled_layer_begin(worker *w, int node, int from, int to)
{
    (void)node;
    if (w->n_pending) {
        try_pending(w, 0, w->shared->n_stripes);
        settle(w, from, to);
    }
}

static inline void controlled_layer_done(worker *w, int from, int to, int most, void (*then)(worker *w, int k))
{
    const int n = to - from, start = (int)((int64_t)w->id * n / w->e->n_workers);
    for (int i = 0; i < n; i++) {
        const int k = from + (start + i) % n;
        if (!try_publish(w, k, then))
            weights_postpone(w, k);
    }
    if (w->n_pending > most)
        settle(w, 0, w->shared->n_stripes);
}

/* A bound on staleness counts steps, so none of it may be left over for the next one. */
static inline void controlled_step_done(worker *w)
{
    if (w->e->bounded)
        settle(w, 0, w->shared->n_stripes);
}

static inline void controlled_phase_done(worker *w) { settle(w, 0, w->shared->n_stripes); }

/* Instead, layer_done of strategies that publish a step as a whole; and what they do afterwards. */
static inline void gather_layer(worker *w, int node, int from, int to)
{
    (void)node;
    for (int k = from; k < to; k++)
        weights_postpone(w, k);
}

static inline void forget_pending(worker *w)
{
    memset(w->pending, 0, (size_t)w->shared->n_stripes);
    w->n_pending = 0;
}

static inline void hold_stripe(worker *w, stripe_state *t)
{
    for (int round = 0; !stripe_try_lock(t); round++) {
        w->count.lock_failures += round == 0;
        wait_begins(w);
        wait_round(round);
    }
    wait_ends(w);
}

#endif
