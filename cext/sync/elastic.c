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

static void phase_begin(worker *w)
{
    seat *s = (seat *)w->e->sync + w->id;
    if (replica_refresh(w->e, &s->replica) || meet(w)) /* they meet because an exchange may begin only when all have copied */
        return;
    w->to = s->replica;
    s->live = 1;
    s->since = 0;
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    for (int k = from; k < to; k++)
        publish_stripe(w, k);
}

static void draw_near(size_t n, float *restrict x, float *restrict c, float a)
{
    for (size_t i = 0; i < n; i++) {
        const float d = a * (x[i] - c[i]);
        x[i] -= d;
        c[i] += d;
    }
}

static void exchange(worker *w)
{
    engine *e = w->e;
    const float a = e->option[1] > 0 ? (float)e->option[1] : 0.9f / (float)e->n_workers;
    const int n = e->shared.n_stripes, start = (int)((int64_t)w->id * n / e->n_workers);
    for (int i = 0; i < n; i++) {
        const stripe *t = &e->stripe[(start + i) % n];
        stripe_state *state = &e->shared.state[(start + i) % n];
        hold_stripe(w, state);
        draw_near(t->size, w->to->w + t->at, e->shared.w + t->at, a);
        stripe_unlock(state);
    }
}

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
        bound_result(e);
}

const strategy sync_elastic = {
    .name = "elastic",
    .open = open,
    .close = close,
    .phase_begin = phase_begin,
    .layer_done = layer_done,
    .step_done = step_done,
    .phase_done = phase_done,
    .phase_end = phase_end,
};
