/* Synchronous mini-batch SGD: all workers form one step's gradient, which is added up in a fixed order.
 *
 * A step's images are cut into lanes; how many depends on their number and on the option (0), never on the workers. A lane's
 * gradient is formed in a buffer of its own by whoever takes the lane. Then the workers meet, add the lanes in their order,
 * stripe by stripe, update the stripe, and meet again. The last worker to read a buffer and the next to write it are kept
 * apart by the second meeting, the other way round by the first. */
#include "sync.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int lanes;
    float **gradient; /* per lane */
    uint8_t *touched; /* per lane: its pages have been placed, by the worker that took it first */
    int goes_on;      /* worker 0's decision, for all after the next meeting */
    _Alignas(128) int64_t tickets; /* handed out in this phase */
    char apart[120];
} synchronous;

static void close(engine *e)
{
    synchronous *s = e->sync;
    for (int j = 0; s && s->gradient && j < s->lanes; j++)
        free(s->gradient[j]);
    if (s) {
        free(s->gradient);
        free(s->touched);
        free(s);
    }
}

static int open(engine *e)
{
    synchronous *s = e->sync = aligned_alloc(128, sizeof *s);
    if (!s)
        return -1;
    memset(s, 0, sizeof *s);
    s->lanes = lanes_of(e->batch, (int)e->option[0], e->p->group);
    if (s->lanes == 1)
        return 0;
    s->gradient = calloc((size_t)s->lanes, sizeof *s->gradient);
    s->touched = calloc((size_t)s->lanes, 1);
    int missing = !s->gradient || !s->touched;
    for (int j = 0; !missing && j < s->lanes; j++)
        missing = !(s->gradient[j] = aligned_alloc(4096, round_up(e->p->weight_size * sizeof(float) + 1, 4096)));
    return missing ? -1 : 0;
}

/* Work is handed out by tickets. Every worker takes one too many, so all know which number the next piece of work starts
 * with, and the counter never goes back. */
static int64_t take(synchronous *s, int64_t first) { return __atomic_fetch_add(&s->tickets, 1, __ATOMIC_RELAXED) - first; }

static int form_lane(worker *w, int j, int n_lanes, int64_t begin, int64_t end)
{
    synchronous *s = w->e->sync;
    if (!s->touched[j]) {
        s->touched[j] = 1;
        memset(s->gradient[j], 0, w->e->p->weight_size * sizeof(float));
    }
    const int group = w->e->p->group;
    return pass_gradient(w, lane_begin(begin, end, n_lanes, j, group), lane_begin(begin, end, n_lanes, j + 1, group),
                         1.f / (float)(end - begin), s->gradient[j]);
}

static void reduce_unit(worker *w, int unit, int n_lanes)
{
    const synchronous *s = w->e->sync;
    int from, to;
    unit_stripes(w->e, unit, &from, &to);
    for (int k = from; k < to; k++) {
        const size_t at = w->shared->stripe[k].at, size = w->shared->stripe[k].size;
        memcpy(w->dw + at, s->gradient[0] + at, size * sizeof *w->dw);
        for (int j = 1; j < n_lanes; j++)
            w->e->p->isa->add(size, w->dw + at, s->gradient[j] + at);
        w->version[k] = stripe_version(&w->shared->state[k]);
    }
    unit_publish(w, unit);
}

static void train(worker *w)
{
    engine *e = w->e;
    synchronous *s = e->sync;
    int64_t begin = __atomic_load_n(&e->next, __ATOMIC_RELAXED), end, first = 0, i;
    if (s->lanes == 1) { /* nothing to share */
        while (w->id == 0 && step_pick(w, &begin, &end) && !step_train(w, begin, end))
            ;
        return;
    }
    if (w->id == 0)
        s->goes_on = team_goes_on(e);
    for (; !team_meet(w) && s->goes_on && begin < e->end; begin = end) {
        end = begin + e->batch < e->end ? begin + e->batch : e->end;
        const int n_lanes = lanes_in(end - begin, s->lanes, e->p->group);
        while ((i = take(s, first)) < n_lanes)
            if (form_lane(w, (int)i, n_lanes, begin, end))
                return;
        first += n_lanes + e->n_workers;
        if (team_meet(w))
            return;
        while ((i = take(s, first)) < unit_count(e))
            reduce_unit(w, (int)i, n_lanes);
        first += unit_count(e) + e->n_workers;
        if (w->id == 0) {
            __atomic_store_n(&e->next, end, __ATOMIC_RELAXED);
            s->goes_on = team_goes_on(e);
        }
    }
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    for (int k = from; k < to; k++)
        weights_publish(w, k);
}

static void phase_end(engine *e) { ((synchronous *)e->sync)->tickets = 0; }

const strategy sync_synchronous = {
    .name = "synchronous",
    .open = open,
    .close = close,
    .train = train,
    .layer_done = layer_done,
    .phase_end = phase_end,
};
