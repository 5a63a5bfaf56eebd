/* The shared weight vector: the only memory that races, and the only file through which it does.
 *
 * Workers read weights while others add to them, without a lock and without atomics: that is Hogwild, and what SGD
 * tolerates. It is safe on the machines we run on because an aligned 32-bit float is written whole (no torn values), and
 * nothing but arithmetic depends on what is read: no index, no length, no pointer. The C standard calls it a data race
 * all the same, so it is confined: shared_read hands a worker the weights of a layer, shared_update changes a stripe.
 * Whether two workers may update one stripe at once is the strategy's business (stripe locks below).
 *
 * Built with CHAOS_CAREFUL the two copy through private memory in the function marked RACES, which is the only one
 * exempt from ThreadSanitizer: every other access in the program is then checked. */
#ifndef CHAOS_SHARED_H
#define CHAOS_SHARED_H

#include "isa/isa.h"
#include <stdint.h>
#include <string.h>

#ifndef CHAOS_CAREFUL
#define CHAOS_CAREFUL 0
#endif

/* One cache line per stripe (two, because of the adjacent-line prefetcher): who holds it, how often it was updated. */
typedef struct {
    int32_t locked;
    uint32_t version;
    char apart[120];
} stripe_state;

typedef struct {
    size_t at, size; /* floats from the start of the weight vector */
    int node;        /* the owner of the block */
    int state;       /* it is state, not weights */
    int frozen;      /* nobody changes it */
    int class;       /* of its weights, see engine.class; 0: nothing is special */
    int layer; /* the node's place among those with weights */
} stripe;

/* A weight vector that workers share: the process's, or the replica of a group of them. */
typedef struct {
    float *w;
    size_t size;                /* floats, of each moment too */
    float *moment[MAX_MOMENTS]; /* the update rule's state */
    stripe_state *state;        /* one per stripe */
    int n_stripes;
    const stripe *stripe;       /* sorted by node; the same for all replicas */
} shared_weights;

#if CHAOS_CAREFUL
#ifndef RACES /* scripts/run_sanitizers.sh takes the exemption away to see that ThreadSanitizer is awake */
#define RACES __attribute__((noinline, no_sanitize("thread")))
#endif
RACES static void racy_copy(volatile float *to, const volatile float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}
#endif

/* The weights of one layer as they are now; `private_copy` is the worker's memory for copies of weights and
 * moments. */
static inline const float *shared_read(const shared_weights *s, size_t at, size_t n, float *private_copy)
{
#if CHAOS_CAREFUL
    racy_copy(private_copy + at, s->w + at, n);
    return private_copy + at;
#else
    (void)n, (void)private_copy;
    return s->w + at;
#endif
}

/* A private copy of weights as they are now. */
static inline void shared_copy(const shared_weights *s, size_t at, size_t n, float *to)
{
#if CHAOS_CAREFUL
    racy_copy(to + at, s->w + at, n);
#else
    memcpy(to + at, s->w + at, n * sizeof *to);
#endif
}

/* Applies a gradient. The moments race as the weights do where the strategy lets them. */
static inline void shared_update(shared_weights *s, const update_kind *rule, size_t at, size_t n, const float *dw,
                                 const update_step *step, float *private_copy)
{
    float *moment[MAX_MOMENTS];
#if CHAOS_CAREFUL
    racy_copy(private_copy + at, s->w + at, n);
    for (int i = 0; i < rule->n_moments; i++)
        racy_copy(moment[i] = private_copy + (size_t)(i + 1) * s->size + at, s->moment[i] + at, n);
    rule->apply(n, private_copy + at, dw + at, moment, step);
    racy_copy(s->w + at, private_copy + at, n);
    for (int i = 0; i < rule->n_moments; i++)
        racy_copy(s->moment[i] + at, moment[i], n);
#else
    for (int i = 0; i < rule->n_moments; i++)
        moment[i] = s->moment[i] + at;
    (void)private_copy;
    rule->apply(n, s->w + at, dw + at, moment, step);
#endif
}

/* The same for a gradient that the layer at `block` applies without writing it down. */
static inline void shared_apply(shared_weights *s, const layer_kind *kind, const geometry *g, const call *c, size_t block,
                                size_t at, size_t n, float lr, float *private_copy)
{
#if CHAOS_CAREFUL
    racy_copy(private_copy + at, s->w + at, n);
    kind->apply(g, c, at - block, n, private_copy + block, lr);
    racy_copy(s->w + at, private_copy + at, n);
#else
    (void)private_copy;
    kind->apply(g, c, at - block, n, s->w + block, lr);
#endif
}

/* The rule of state: s += rate * (observed - part * s), with the state as it is now, however late the observation: so it stays
 * between what it was and what is observed. */
static inline void shared_observe(shared_weights *s, const instruction_set *isa, size_t at, size_t n, const float *observed,
                                  float rate, float part, float *private_copy)
{
#if CHAOS_CAREFUL
    racy_copy(private_copy + at, s->w + at, n);
    isa->observe(n, private_copy + at, observed + at, rate, part);
    racy_copy(s->w + at, private_copy + at, n);
#else
    (void)private_copy;
    isa->observe(n, s->w + at, observed + at, rate, part);
#endif
}

/* Adds what is to be added. */
static inline void shared_sum_up(shared_weights *s, const instruction_set *isa, size_t at, size_t n, const float *dw,
                                 float *private_copy)
{
#if CHAOS_CAREFUL
    racy_copy(private_copy + at, s->w + at, n);
    isa->add(n, private_copy + at, dw + at);
    racy_copy(s->w + at, private_copy + at, n);
#else
    (void)private_copy;
    isa->add(n, s->w + at, dw + at);
#endif
}

/* Multiplies weights [at, at + n) of the layer at `block` with their columns' factors. */
static inline void shared_scale(shared_weights *s, const instruction_set *isa, const geometry *g, size_t block, size_t at,
                                size_t n, const float *factor, float *private_copy)
{
#if CHAOS_CAREFUL
    racy_copy(private_copy + at, s->w + at, n);
    isa->scale_columns(at - block, n, g->rows, g->columns, factor, private_copy + block);
    racy_copy(s->w + at, private_copy + at, n);
#else
    (void)private_copy;
    isa->scale_columns(at - block, n, g->rows, g->columns, factor, s->w + block);
#endif
}

/* A gradient that a layer's backward pass adds to the shared weights while it forms it (the scale of the loss holds the
 * learning rate): call.dw and call.first beforehand, and what is left to do afterwards. */
static inline void shared_target(shared_weights *s, size_t at, float *dw, call *c)
{
    c->dw = CHAOS_CAREFUL ? dw + at : s->w + at;
    c->first = CHAOS_CAREFUL;
}
static inline void shared_added(shared_weights *s, const instruction_set *isa, size_t at, size_t n, const float *dw,
                                float *private_copy)
{
#if CHAOS_CAREFUL
    shared_sum_up(s, isa, at, n, dw, private_copy);
#else
    (void)s, (void)isa, (void)at, (void)n, (void)dw, (void)private_copy;
#endif
}

/* Ways in which replicas learn of each other's updates (cext/sync/domains.c, replicated.c); the caller holds the stripe of each.
 * `base` is what s was after its last exchange. */
static inline void sum_piece(size_t n, float *restrict w, float *restrict sum, float *restrict base, float share)
{
    for (size_t i = 0; i < n; i++)
        w[i] = base[i] = sum[i] += share * (w[i] - base[i]);
}
static inline void mix_piece(size_t n, float *restrict w, float *restrict next, float *restrict base, float beta,
                             float lambda)
{
    for (size_t i = 0; i < n; i++) {
        const float d = w[i] - base[i], mixed = lambda * next[i] + (1 - lambda) * w[i] + (beta + lambda - 1) * d;
        next[i] += beta * d;
        w[i] = base[i] = mixed;
    }
}
/* Of state: their mean, which lies between the two. */
static inline void mean_piece(size_t n, float *restrict w, float *restrict other, float *restrict base)
{
    for (size_t i = 0; i < n; i++)
        w[i] = base[i] = other[i] = 0.5f * w[i] + 0.5f * other[i];
}
enum { PIECE = 512 }; /* floats */
/* `sum` gets a share of what has been added since. */
static inline void shared_sum(shared_weights *s, float *sum, float *base, size_t at, size_t n, float share)
{
#if CHAOS_CAREFUL
    float w[PIECE];
    for (size_t end = at + n, m; at < end; at += m) {
        m = end - at < PIECE ? end - at : PIECE;
        racy_copy(w, s->w + at, m);
        sum_piece(m, w, sum + at, base + at, share);
        racy_copy(s->w + at, w, m);
    }
#else
    sum_piece(n, s->w + at, sum + at, base + at, share);
#endif
}
/* `other` is the replica of another group, or what the groups have together. */
static inline void shared_mean(shared_weights *s, float *other, float *base, size_t at, size_t n)
{
#if CHAOS_CAREFUL
    float w[PIECE], next[PIECE];
    for (size_t end = at + n, m; at < end; at += m) {
        m = end - at < PIECE ? end - at : PIECE;
        racy_copy(w, s->w + at, m);
        racy_copy(next, other + at, m);
        mean_piece(m, w, next, base + at);
        racy_copy(s->w + at, w, m);
        racy_copy(other + at, next, m);
    }
#else
    mean_piece(n, s->w + at, other + at, base + at);
#endif
}
static inline void shared_mix(shared_weights *s, shared_weights *to, float *base, size_t at, size_t n, float beta,
                              float lambda)
{
#if CHAOS_CAREFUL
    float w[PIECE], next[PIECE];
    for (size_t end = at + n, m; at < end; at += m) {
        m = end - at < PIECE ? end - at : PIECE;
        racy_copy(w, s->w + at, m);
        racy_copy(next, to->w + at, m);
        mix_piece(m, w, next, base + at, beta, lambda);
        racy_copy(s->w + at, w, m);
        racy_copy(to->w + at, next, m);
    }
#else
    mix_piece(n, s->w + at, to->w + at, base + at, beta, lambda);
#endif
}

/* Stripe locks and versions are ordinary atomics. */
static inline int stripe_try_lock(stripe_state *t)
{
    int32_t open = 0;
    return __atomic_load_n(&t->locked, __ATOMIC_RELAXED) == 0 &&
           __atomic_compare_exchange_n(&t->locked, &open, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}
static inline void stripe_unlock(stripe_state *t) { __atomic_store_n(&t->locked, 0, __ATOMIC_RELEASE); }
static inline uint32_t stripe_version(const stripe_state *t) { return __atomic_load_n(&t->version, __ATOMIC_RELAXED); }
/* By the only writer of the stripe. Returns the version before. */
static inline uint32_t stripe_advance(stripe_state *t)
{
    const uint32_t version = stripe_version(t);
    __atomic_store_n(&t->version, version + 1, __ATOMIC_RELAXED);
    return version;
}
static inline void shared_copy_versions(shared_weights *to,
                                        const shared_weights *from) /* not who holds them: nobody would let go */
{
    for (int k = 0; k < from->n_stripes; k++)
        __atomic_store_n(&to->state[k].version, stripe_version(&from->state[k]), __ATOMIC_RELAXED);
}
static inline uint32_t stripe_count(stripe_state *t) /* by one of several */
{
    return __atomic_fetch_add(&t->version, 1, __ATOMIC_RELAXED);
}

#endif
