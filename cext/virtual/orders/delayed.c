/* Delayed: workers in strict turn publish a whole step and copy the weights for their next one. */
#include "virtual/orders.h"
#include "virtual/passes.h"

#include <math.h>

typedef struct {
    int64_t turn; /* step whose worker publishes */
} delayed;

typedef struct {
    int64_t taken; /* steps */
} turns;

static void simplify(clock_parts *p)
{
    if (p->n_workers == 1)
        p->order = &clock_order_sequential;
}

static void begin(vclock *c, actor *a)
{
    turns *t = a->state;
    const int64_t step = a->id + t->taken * c->p.n_workers;
    if (step >= c->n_steps) {
        passes_end(c, a);
        return;
    }
    t->taken++;
    passes_take(c, a, step);
}

static void step_begun(vclock *c, actor *a)
{
    a->since = c->now;
    a->next = passes_copy;
}

static void publish(vclock *c, actor *a);

static void wait_for_turn(vclock *c, actor *a)
{
    const delayed *s = c->state;
    if (s->turn == a->step) {
        a->next = publish;
    } else {
        a->since = c->now;
        actor_schedule(c, a, INFINITY);
    }
}

static void pass_turn(vclock *c)
{
    delayed *s = c->state;
    actor *a = &c->actor[++s->turn % c->p.n_workers];
    if (a->next == wait_for_turn && a->step == s->turn) {
        c->count.waiting += c->now - a->since;
        actor_schedule(c, a, c->now);
    }
}

static void publish(vclock *c, actor *a)
{
    stripes_skip(c, a);
    if (a->at < c->p.n_stripes) {
        stripes_publish(c, a, a->at++, 0, publish);
        return;
    }
    begin(c, a);
    if (a->next == passes_copy)
        passes_copy(c, a);
    pass_turn(c); /* when the weights have been copied */
}

static void step_done(vclock *c, actor *a)
{
    a->at = 0;
    a->next = wait_for_turn;
}

const clock_order clock_order_delayed = {
    .name = "delayed",
    .state_size = sizeof(delayed),
    .actor_size = sizeof(turns),
    .simplify = simplify,
    .begin = begin,
    .step_begun = step_begun,
    .layer_done = passes_postpone_layer,
    .step_done = step_done,
};
