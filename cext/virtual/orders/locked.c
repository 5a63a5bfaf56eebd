/* Locked: one lock for all weights, first come first served: copies them, later publishes a whole step. */
#include "virtual/orders.h"
#include "virtual/passes.h"

typedef struct {
    double free_at; /* the lock */
} locked;

static void simplify(clock_parts *p)
{
    if (p->n_workers == 1)
        p->order = &clock_order_sequential;
}

/* Waits until the worker has the lock, and holds it as long as it takes to copy or update everything; when that is over. */
static double hold(vclock *c, actor *a)
{
    locked *s = c->state;
    const double start = s->free_at > c->now ? s->free_at : c->now;
    s->free_at = start + stripes_seconds(c, a, 1);
    actor_wait(c, a, start);
    return s->free_at;
}

static void step_begun(vclock *c, actor *a)
{
    a->next = passes_copy;
    a->since = hold(c, a);
}

static void publish(vclock *c, actor *a)
{
    stripes_skip(c, a);
    if (a->at < c->p.n_stripes)
        stripes_publish(c, a, a->at++, 0, publish);
    else
        a->next = passes_begin;
}

static void step_done(vclock *c, actor *a)
{
    a->at = 0;
    a->next = publish;
    hold(c, a);
}

const clock_order clock_order_locked = {
    .name = "locked",
    .state_size = sizeof(locked),
    .simplify = simplify,
    .begin = passes_begin,
    .step_begun = step_begun,
    .layer_done = passes_postpone_layer,
    .step_done = step_done,
};
