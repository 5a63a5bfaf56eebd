/* One replica of the weights per group of workers, which train it as chaos does; the replicas are exchanged round a ring
 * (HogWild++: Zhang, Hsieh, Akella 2016). One group has no replica but trains the process's weights.
 *
 * A token goes round the groups. The first worker of the group that has it does the exchange, then `period` steps, then hands
 * it on. What an exchange does, with w the group's weights and b what they were after its last exchange:
 *
 *   mix  as in the paper, with v the next group's weights, N groups, B^N + B = 1, L = 1 - B^(N-1):
 *        w' = L v + (1 - L) w + (B + L - 1) (w - b),  v <- v + B (w - b),  w <- w',  b <- w'
 *   sum  the process's weights c travel with the token:  c <- c + (w - b),  w <- c,  b <- c
 *
 * At the phase's end, mix takes the mean of the replicas; sum adds every group's w - b to c.
 *
 * Options: group, period, rule (0 mix, 1 sum). */
#include "replicas.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

typedef struct {
    _Alignas(128) shared_weights *replica;
    float *base;
    int live;  /* both are of this phase */
    int since; /* 0, or 1 + steps since the exchange that the token allowed */
} group;

typedef struct {
    _Alignas(128) int32_t token; /* the group that has it; also orders all access to the process's weights */
    _Alignas(128) int size, n;   /* workers per group; groups */
    int period, mix;
    float beta, lambda;
    group *at;
} ring;

static int open(engine *e)
{
    ring *r = e->sync = aligned_alloc(128, sizeof *r);
    if (!r)
        return -1;
    *r = (ring){.size = e->option[0] > 0 ? (int)e->option[0] : 1,
                .period = e->option[1] > 0 ? (int)e->option[1] : 64,
                .mix = e->option[2] == 0};
    r->n = (e->n_workers + r->size - 1) / r->size;
    double low = 0, high = 1;
    for (int i = 0; i < 60; i++) {
        const double middle = (low + high) / 2;
        *(pow(middle, r->n) + middle > 1 ? &high : &low) = middle;
    }
    r->beta = (float)low;
    r->lambda = 1 - (float)pow(low, r->n - 1);
    if (!(r->at = aligned_alloc(128, (size_t)r->n * sizeof *r->at)))
        return -1;
    memset(r->at, 0, (size_t)r->n * sizeof *r->at);
    return 0;
}

static void close(engine *e)
{
    ring *r = e->sync;
    for (int i = 0; r && r->at && i < r->n; i++) {
        replica_free(r->at[i].replica);
        free(r->at[i].base);
    }
    if (r)
        free(r->at);
    free(r);
}

static int leads(const worker *w, const ring *r) { return r->n > 1 && w->id % r->size == 0; }

/* What the first worker of a group does for it; -1 after a failure. */
static int make_replica(const worker *w, ring *r)
{
    engine *e = w->e;
    group *g = &r->at[w->id / r->size];
    const size_t bytes = e->p->weight_size * sizeof(float);
    if (!g->base && !(g->base = aligned_alloc(64, bytes ? bytes : 64)))
        team_fail(e, NO_MEMORY, 0);
    if (!g->base || replica_refresh(e, &g->replica))
        return -1;
    memcpy(g->base, g->replica->w, bytes);
    g->live = 1;
    g->since = 0;
    if (w->id == 0)
        __atomic_store_n(&r->token, 0, __ATOMIC_RELAXED);
    return 0;
}

static void phase_begin(worker *w)
{
    ring *r = w->e->sync;
    if (r->n == 1 || (leads(w, r) && make_replica(w, r)))
        return;
    if (!team_meet(w))
        w->shared = r->at[w->id / r->size].replica;
}

static int begin(worker *w)
{
    ring *r = w->e->sync;
    if (r->n == 1)
        return 0;
    if (leads(w, r) && make_replica(w, r))
        return -1;
    w->shared = r->at[w->id / r->size].replica;
    return 0;
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    controlled_layer_done(w, from, to, INT_MAX, NULL);
}

/* With what a group exchanges its replica; for its first worker. */
static shared_weights *other(const worker *w)
{
    const ring *r = w->e->sync;
    return !leads(w, r) ? NULL : r->mix ? r->at[(w->id / r->size + 1) % r->n].replica : &w->e->shared;
}

static void exchange_stripe(worker *w, int k)
{
    engine *e = w->e;
    const ring *r = e->sync;
    const group *g = &r->at[w->id / r->size];
    const stripe *t = &e->stripe[k];
    if (t->frozen)
        return;
    hold_stripe(w, &g->replica->state[k]);
    if (t->state && r->mix) {
        shared_weights *next = other(w);
        hold_stripe(w, &next->state[k]);
        shared_mean(g->replica, next->w, g->base, t->at, t->size);
        stripe_unlock(&next->state[k]);
    } else if (t->state)
        shared_mean(g->replica, e->shared.w, g->base, t->at, t->size);
    else if (r->mix) { /* only the token's holder holds two, so nobody waits in a circle */
        shared_weights *next = other(w);
        hold_stripe(w, &next->state[k]);
        shared_mix(g->replica, next, g->base, t->at, t->size, r->beta, r->lambda);
        stripe_unlock(&next->state[k]);
    } else
        shared_sum(g->replica, e->shared.w, g->base, t->at, t->size, 1);
    stripe_unlock(&g->replica->state[k]);
}

static int has_token(const worker *w, const ring *r)
{
    return __atomic_load_n(&r->token, __ATOMIC_ACQUIRE) == w->id / r->size;
}

static void hand_on(const worker *w, ring *r)
{
    __atomic_store_n(&r->token, (w->id / r->size + 1) % r->n, __ATOMIC_RELEASE);
}

static void step_done(worker *w)
{
    ring *r = w->e->sync;
    group *g = &r->at[w->id / r->size];
    controlled_step_done(w);
    if (!leads(w, r) || !has_token(w, r))
        return;
    if (!g->since) {
        for (int k = 0; k < w->e->shared.n_stripes; k++)
            exchange_stripe(w, k);
        g->since = 1;
    } else if (g->since++ >= r->period) {
        g->since = 0;
        hand_on(w, r);
    }
}

static void phase_done(worker *w)
{
    ring *r = w->e->sync;
    controlled_phase_done(w);
    if (leads(w, r) && w->shared != &w->e->shared && has_token(w, r))
        hand_on(w, r);
}

static const shared_weights *replica_at(const engine *e, int i)
{
    const group *g = ((const ring *)e->sync)->at + i;
    return g->live ? g->replica : NULL;
}

static void phase_end(engine *e)
{
    ring *r = e->sync;
    int live = 0, number = 0;
    replica_states(e, replica_at, r->n);
    for (int i = 0; i < r->n; i++)
        live += r->at[i].live;
    for (int i = 0; i < r->n; i++) {
        group *g = &r->at[i];
        if (!g->live)
            continue;
        g->live = 0;
        number++;
        for (int k = 0; k < e->shared.n_stripes; k++)
            for (size_t j = e->stripe[k].at; !e->stripe[k].frozen && j < e->stripe[k].at + e->stripe[k].size; j++)
                if (r->mix || e->stripe[k].state)
                    e->shared.w[j] = (number == 1 ? 0 : e->shared.w[j]) + g->replica->w[j] / (float)live;
                else
                    e->shared.w[j] += g->replica->w[j] - g->base[j];
    }
    if (live)
        bounds_limit_result(e);
}

static const replica_hooks replicas = {.begin = begin, .exchange = exchange_stripe, .other = other};

const strategy sync_replicated = {
    .name = "replicated",
    .open = open,
    .close = close,
    .phase_begin = phase_begin,
    .layer_begin = controlled_layer_begin,
    .layer_done = layer_done,
    .step_done = step_done,
    .phase_done = phase_done,
    .phase_end = phase_end,
    .replicas = &replicas,
};
