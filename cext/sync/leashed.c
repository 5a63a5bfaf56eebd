/* Leashed-SGD (Bäckström, Walulya, Papatriantafilou, Tsigas 2021): the weights are an immutable vector behind a pointer.
 *
 * A step reads the vector that is current when it begins. At its end the worker claims a vector that nobody uses, fills it
 * with the current one plus its update, and makes it current if the pointer has not moved meanwhile (compare and swap); else
 * it tries again. Nobody waits for a lock, and nobody reads what is being written.
 *
 * Who reads a vector counts itself in, then looks again whether the vector is still current; if not, it must not read. Who
 * wants to write one adds CLAIM to a count of 0, then looks whether the vector is current and the count still CLAIM; if not,
 * it must not write. All four are sequentially consistent, so of a reader and a writer at least one sees the other. A worker
 * holds at most two vectors, hence 2 workers + 1 are enough.
 *
 * persistence (option 0): failed tries that are allowed before an update is given up, plus 1; 0: any number. */
#include "stripes.h"

#include <stdlib.h>

enum { CLAIM = -(1 << 20) };

typedef struct {
    _Alignas(128) int32_t users;
    uint32_t number; /* updates since the phase began */
    shared_weights *v;
} vector;

typedef struct {
    _Alignas(128) vector *current;
    _Alignas(128) vector *pool;
    int n;
    vector **reading; /* per worker */
} pool;

static void close(engine *e)
{
    pool *l = e->sync;
    for (int i = 0; l && l->pool && i < l->n; i++)
        replica_free(l->pool[i].v);
    if (l) {
        free(l->pool);
        free(l->reading);
    }
    free(l);
}

static int open(engine *e)
{
    pool *l = e->sync = aligned_alloc(128, sizeof *l);
    if (!l)
        return -1;
    *l = (pool){.n = 2 * e->n_workers + 1};
    l->pool = aligned_alloc(128, (size_t)l->n * sizeof *l->pool);
    l->reading = calloc((size_t)e->n_workers, sizeof *l->reading);
    if (l->pool) /* `close` looks into it */
        memset(l->pool, 0, (size_t)l->n * sizeof *l->pool);
    if (!l->pool || !l->reading)
        return -1;
    for (int i = 0; i < l->n; i++)
        if (!(l->pool[i].v = replica_new(e, &e->shared)))
            return -1;
    return 0;
}

static vector *current(const pool *l) { return __atomic_load_n(&l->current, __ATOMIC_SEQ_CST); }
static void count(vector *v, int32_t n) { __atomic_fetch_add(&v->users, n, __ATOMIC_SEQ_CST); }

static vector *begin_reading(pool *l)
{
    for (;;) {
        vector *v = current(l);
        count(v, 1);
        if (current(l) == v)
            return v;
        count(v, -1);
    }
}

static vector *claim(worker *w, pool *l)
{
    for (int round = 0;; round++) {
        for (int i = 0; i < l->n; i++) {
            vector *v = &l->pool[(2 * w->id + 1 + i) % l->n];
            int32_t nobody = 0;
            if (v == current(l) ||
                !__atomic_compare_exchange_n(&v->users, &nobody, CLAIM, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
                continue;
            if (v != current(l) && __atomic_load_n(&v->users, __ATOMIC_SEQ_CST) == CLAIM) {
                wait_ends(w);
                return v;
            }
            count(v, -CLAIM);
        }
        wait_begins(w);
        wait_round(round); /* the only cause: counts of readers who came too late and are about to leave */
    }
}

static void copy(const engine *e, const shared_weights *from, const shared_weights *to, size_t at, size_t n)
{
    memcpy(to->w + at, from->w + at, n * sizeof(float));
    for (int i = 0; i < e->rule->n_moments; i++)
        memcpy(to->moment[i] + at, from->moment[i] + at, n * sizeof(float));
}

/* to = from, updated by the worker's gradient. */
static void update(worker *w, const vector *from, vector *to, uint32_t stale)
{
    engine *e = w->e;
    update_step step = e->step, own;
    step.lr = weights_rate(e, stale);
    for (int k = 0; k < e->shared.n_stripes; k++) {
        const size_t at = e->stripe[k].at, n = e->stripe[k].size;
        float *moment[MAX_MOMENTS];
        copy(e, from->v, to->v, at, n);
        if (!w->pending[k] || e->stripe[k].frozen)
            continue;
        for (int i = 0; i < e->rule->n_moments; i++)
            moment[i] = to->v->moment[i] + at;
        step.t = stripe_version(&e->shared.state[k]) + from->number + 1;
        if (e->stripe[k].state)
            e->p->isa->observe(n, to->v->w + at, w->dw + at, e->p->node[e->stripe[k].node].g.state_rate, 1);
        else
            e->rule->apply(n, to->v->w + at, w->dw + at, moment, weights_step(e, k, &step, &own));
    }
    for (int i = 0; i < e->p->n_nodes; i++)
        bounds_limit_copy(w, i, to->v->w);
    to->number = from->number + 1;
}

static void phase_begin(worker *w)
{
    engine *e = w->e;
    pool *l = e->sync;
    if (w->id == 0) {
        for (int i = 0; i < l->n; i++)
            __atomic_store_n(&l->pool[i].users, 0, __ATOMIC_RELAXED);
        copy(e, &e->shared, l->pool[0].v, 0, e->p->weight_size);
        l->pool[0].number = 0;
        __atomic_store_n(&l->current, &l->pool[0], __ATOMIC_SEQ_CST);
    }
    team_meet(w);
}

static void step_begin(worker *w)
{
    pool *l = w->e->sync;
    w->reads = (l->reading[w->id] = begin_reading(l))->v->w;
}

static void end_reading(worker *w)
{
    pool *l = w->e->sync;
    if (l->reading[w->id])
        count(l->reading[w->id], -1);
    l->reading[w->id] = NULL;
}

static void step_done(worker *w)
{
    pool *l = w->e->sync;
    const int tries = (int)w->e->option[0];
    const uint32_t read = l->reading[w->id]->number;
    uint32_t stale = 0;
    int failed = 0, done = 0;
    end_reading(w);
    vector *mine = claim(w, l);
    while (!done && (!tries || failed < tries)) {
        vector *now = begin_reading(l), *expected = now;
        stale = now->number - read;
        update(w, now, mine, stale);
        done = __atomic_compare_exchange_n(&l->current, &expected, mine, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        failed += !done;
        count(now, -1);
    }
    count(mine, -CLAIM);
    w->count.lock_failures += failed;
    w->count.dropped += !done;
    for (int k = 0; done && k < w->e->shared.n_stripes; k++)
        if (w->pending[k])
            weights_count_update(w, k, stale);
    forget_pending(w);
}

static void phase_done(worker *w) { end_reading(w); /* a step that failed */ }

static void phase_end(engine *e)
{
    pool *l = e->sync;
    const vector *last = current(l);
    if (!last)
        return;
    copy(e, last->v, &e->shared, 0, e->p->weight_size);
    for (int k = 0; k < e->shared.n_stripes; k++) {
        if (plan_trains(e->p, e->stripe[k].node) && !e->stripe[k].frozen)
            e->shared.state[k].version += last->number;
    }
    l->current = NULL;
}

const strategy sync_leashed = {
    .name = "leashed",
    .publishes_later = 1,
    .bounds = 1,
    .open = open,
    .close = close,
    .phase_begin = phase_begin,
    .step_begin = step_begin,
    .layer_done = gather_layer,
    .step_done = step_done,
    .phase_done = phase_done,
    .phase_end = phase_end,
};
