/* Asynchronous elastic averaging (EASGD: Zhang, Choromanska, LeCun 2015). Each worker trains a replica of its own; every
 * `period` steps the replica x and the centre c, which is the process's weights, draw each other near:
 *
 *   d = a (x - c),  x <- x - d,  c <- c + d
 *
 * stripe by stripe under the centre's lock, and once more at the phase's end, where the replicas are given up. */
#include "replicas.h"

#include <stdlib.h>

typedef struct {
    _Alignas(128) shared_weights *replica;
    int live;  /* has trained in this phase */
    int since; /* steps since the last exchange */
} seat;

static int open(engine *e)
{
    const size_t bytes = (size_t)e->n_workers * sizeof(seat);
    if (!(e->sync = aligned_alloc(128, bytes)))
        return -1;
    memset(e->sync, 0, bytes);
    return 0;
}

static void close(engine *e)
{
    seat *s = e->sync;
    for (int i = 0; s && i < e->n_workers; i++)
        replica_free(s[i].replica);
    free(s);
}

static int begin(worker *w)
{
    seat *s = (seat *)w->e->sync + w->id;
    if (replica_refresh(w->e, &s->replica))
        return -1;
    w->shared = s->replica;
    s->live = 1;
    s->since = 0;
    return 0;
}

static void phase_begin(worker *w)
{
    if (!begin(w))
        team_meet(w); /* an exchange may begin only when all have copied */
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    for (int k = from; k < to; k++)
        weights_publish(w, k);
}

static void draw_near(size_t n, float *restrict x, float *restrict c, float a)
{
    for (size_t i = 0; i < n; i++) {
        const float d = a * (x[i] - c[i]);
        x[i] -= d;
        c[i] += d;
    }
}

static void exchange_stripe(worker *w, int k)
{
    engine *e = w->e;
    const float a = e->option[1] > 0 ? (float)e->option[1] : 0.9f / (float)e->n_workers;
    const stripe *t = &e->stripe[k];
    if (t->frozen)
        return;
    hold_stripe(w, &e->shared.state[k]);
    draw_near(t->size, w->shared->w + t->at, e->shared.w + t->at, a);
    stripe_unlock(&e->shared.state[k]);
}

static void exchange(worker *w)
{
    const int n = w->e->shared.n_stripes, start = (int)((int64_t)w->id * n / w->e->n_workers);
    for (int i = 0; i < n; i++)
        exchange_stripe(w, (start + i) % n);
}

static shared_weights *other(const worker *w) { return &w->e->shared; }

static void step_done(worker *w)
{
    seat *s = (seat *)w->e->sync + w->id;
    const int period = w->e->option[0] > 0 ? (int)w->e->option[0] : 10;
    if (++s->since >= period) {
        exchange(w);
        s->since = 0;
    }
}

static void phase_done(worker *w)
{
    if (((seat *)w->e->sync)[w->id].live)
        exchange(w);
}

static const shared_weights *replica_at(const engine *e, int i)
{
    const seat *s = (const seat *)e->sync + i;
    return s->live ? s->replica : NULL;
}

static void phase_end(engine *e)
{
    seat *s = e->sync;
    int live = 0;
    replica_states(e, replica_at, e->n_workers);
    for (int i = 0; i < e->n_workers; i++) {
        live += s[i].live;
        s[i].live = 0;
    }
    if (live)
        bounds_limit_result(e);
}

static const replica_hooks replicas = {.begin = begin, .exchange = exchange_stripe, .other = other};

const strategy sync_elastic = {
    .name = "elastic",
    .open = open,
    .close = close,
    .phase_begin = phase_begin,
    .layer_done = layer_done,
    .step_done = step_done,
    .phase_done = phase_done,
    .phase_end = phase_end,
    .replicas = &replicas,
};
