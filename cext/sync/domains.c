/* One replica of the weights per group of workers, the cores of a cache domain, which train it as chaos does. A group adds
 * what it has learned to the process's weights, and takes over what is there, whenever `period` steps have been made: the
 * worker that makes the last of them carries, stripe by stripe, passing over those that another group has just taken hold
 * of, while the group's others go on. With w the group's weights, b what they were after its last exchange, c the process's
 * weights and s the share (option mix; 0: by their number):
 *
 *   c <- c + s (w - b),  w <- c,  b <- c
 *
 * At the phase's end every group adds the rest. One group has no replica but trains the process's weights.
 *
 * Options: group, period, mix. */
#include "replicas.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

typedef struct {
    _Alignas(128) shared_weights *replica;
    float *base;
    uint8_t *left; /* per stripe: the carrier has not come to it */
    int live;      /* all are of this phase */
    _Alignas(128) int64_t steps; /* since the last exchange began */
    int32_t carried; /* a worker is carrying */
} domain;

typedef struct {
    int size, n; /* workers per group; groups */
    int64_t period;
    float share;
    domain *at;
} domains;

/* Between adding all, which diverges with many groups, and their mean, which is slow: see chaos/sync/domains.py. */
static float usual_share(int groups)
{
    const double share = 1.5 / sqrt(groups);
    return share < 1 ? (float)share : 1;
}

static int open(engine *e)
{
    domains *s = e->sync = calloc(1, sizeof *s);
    if (!s)
        return -1;
    s->size = e->option[0] > 0 ? (int)e->option[0] : 1;
    s->period = e->option[1] > 0 ? (int64_t)e->option[1] : 16;
    s->n = (e->n_workers + s->size - 1) / s->size;
    s->share = e->option[2] > 0 ? (float)e->option[2] : usual_share(s->n);
    if (!(s->at = aligned_alloc(128, (size_t)s->n * sizeof *s->at)))
        return -1;
    memset(s->at, 0, (size_t)s->n * sizeof *s->at);
    return 0;
}

static void close(engine *e)
{
    domains *s = e->sync;
    for (int i = 0; s && s->at && i < s->n; i++) {
        replica_free(s->at[i].replica);
        free(s->at[i].base);
        free(s->at[i].left);
    }
    if (s)
        free(s->at);
    free(s);
}

static domain *mine(const worker *w)
{
    domains *s = w->e->sync;
    return &s->at[w->id / s->size];
}

/* What the first worker of a group does for it; -1 after a failure. */
static int make_replica(const worker *w)
{
    engine *e = w->e;
    domain *g = mine(w);
    const size_t bytes = e->p->weight_size * sizeof(float);
    if (!g->base)
        g->base = aligned_alloc(64, bytes ? bytes : 64);
    if (!g->left)
        g->left = malloc((size_t)e->shared.n_stripes + 1);
    if (!g->base || !g->left)
        team_fail(e, NO_MEMORY, 0);
    if (!g->base || !g->left || replica_refresh(e, &g->replica))
        return -1;
    memcpy(g->base, g->replica->w, bytes);
    g->live = 1;
    g->steps = 0;
    g->carried = 0;
    return 0;
}

static int leads(const worker *w) { return w->id % ((const domains *)w->e->sync)->size == 0; }

static void phase_begin(worker *w)
{
    const domains *s = w->e->sync;
    if (s->n == 1 || (leads(w) && make_replica(w)))
        return;
    if (!team_meet(w))
        w->shared = mine(w)->replica;
}

static int begin(worker *w)
{
    const domains *s = w->e->sync;
    if (s->n == 1)
        return 0;
    if (leads(w) && make_replica(w))
        return -1;
    w->shared = mine(w)->replica;
    return 0;
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    controlled_layer_done(w, from, to, INT_MAX, NULL);
}

static shared_weights *other(const worker *w) { return ((const domains *)w->e->sync)->n == 1 ? NULL : &w->e->shared; }

/* By who holds the stripe in both. */
static void carry_stripe(worker *w, int k)
{
    engine *e = w->e;
    const domain *g = mine(w);
    const stripe *t = &e->stripe[k];
    if (t->state)
        shared_mean(g->replica, e->shared.w, g->base, t->at, t->size);
    else
        shared_sum(g->replica, e->shared.w, g->base, t->at, t->size, ((const domains *)e->sync)->share);
}

static int try_carry(worker *w, int k)
{
    stripe_state *near = &mine(w)->replica->state[k], *far = &w->e->shared.state[k];
    if (w->e->stripe[k].frozen)
        return 1;
    if (!stripe_try_lock(far)) {
        w->count.lock_failures++;
        return 0;
    }
    const int got = stripe_try_lock(near);
    if (got) {
        carry_stripe(w, k);
        stripe_unlock(near);
    } else
        w->count.lock_failures++;
    stripe_unlock(far);
    return got;
}

static void exchange_stripe(worker *w, int k)
{
    for (int round = 0; !try_carry(w, k); round++) {
        wait_begins(w);
        wait_round(round);
    }
    wait_ends(w);
}

/* Each group begins its walk at a stripe of its own. */
static void carry(worker *w)
{
    const domains *s = w->e->sync;
    domain *g = mine(w);
    const int n = w->e->shared.n_stripes, start = (int)((int64_t)(g - s->at) * n / s->n);
    int left = n;
    memset(g->left, 1, (size_t)n);
    for (int i = 0; i < n; i++) {
        const int k = (start + i) % n;
        if (try_carry(w, k)) {
            g->left[k] = 0;
            left--;
        }
    }
    for (int k = 0; left && k < n; k++)
        if (g->left[k])
            exchange_stripe(w, k);
}

static void step_done(worker *w)
{
    const domains *s = w->e->sync;
    controlled_step_done(w);
    if (s->n == 1)
        return;
    domain *g = mine(w);
    int32_t nobody = 0;
    if (__atomic_add_fetch(&g->steps, 1, __ATOMIC_RELAXED) < s->period ||
        !__atomic_compare_exchange_n(&g->carried, &nobody, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&g->steps, 0, __ATOMIC_RELAXED);
    carry(w);
    __atomic_store_n(&g->carried, 0, __ATOMIC_RELEASE);
}

static const shared_weights *replica_at(const engine *e, int i)
{
    const domain *g = ((const domains *)e->sync)->at + i;
    return g->live ? g->replica : NULL;
}

static void phase_end(engine *e)
{
    domains *s = e->sync;
    int live = 0;
    if (s->n == 1)
        return;
    for (int k = 0; k < e->shared.n_stripes; k++) /* other ranks' updates may still be coming in */
        wait_for_stripe(&e->shared.state[k]);
    replica_states(e, replica_at, s->n);
    for (int i = 0; i < s->n; i++) {
        domain *g = &s->at[i];
        if (!g->live)
            continue;
        live++;
        g->live = 0;
        for (int k = 0; k < e->shared.n_stripes; k++) {
            const stripe *t = &e->stripe[k];
            if (t->frozen)
                continue;
            if (t->state)
                shared_mean(g->replica, e->shared.w, g->base, t->at, t->size);
            else
                shared_sum(g->replica, e->shared.w, g->base, t->at, t->size, s->share);
        }
    }
    if (live)
        bounds_limit_result(e);
    for (int k = 0; k < e->shared.n_stripes; k++)
        stripe_unlock(&e->shared.state[k]);
}

static const replica_hooks replicas = {.begin = begin, .exchange = exchange_stripe, .other = other};

const strategy sync_domains = {
    .name = "domains",
    .open = open,
    .close = close,
    .phase_begin = phase_begin,
    .layer_begin = controlled_layer_begin,
    .layer_done = layer_done,
    .step_done = step_done,
    .phase_done = controlled_phase_done,
    .phase_end = phase_end,
    .replicas = &replicas,
};
