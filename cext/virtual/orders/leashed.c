/* Leashed: a step reads weights that stay as they are; what it makes of those that are current in the end becomes current unless
 * others have moved on meanwhile: then it tries again. */
#include "virtual/orders.h"
#include "virtual/passes.h"

typedef struct {
    int64_t updates; /* of all weights */
} leashed;

typedef struct {
    int64_t updates; /* when the try began */
} attempt;

static void simplify(clock_parts *p)
{
    if (p->n_workers == 1)
        p->order = &clock_order_sequential;
}

/* The copy is a pointer: lines come when they are read. */
static void copy(vclock *c, actor *a)
{
    actor_emit(c, a, EVENT_COPY, 0, c->now);
    a->next = passes_forward;
    actor_spend(c, a, passes_seconds_before(c, a), &c->count.forward);
}

static void step_begun(vclock *c, actor *a) { (void)c, a->next = copy; }

static void begin_try(vclock *c, actor *a);

static void end_try(vclock *c, actor *a)
{
    leashed *s = c->state;
    const attempt *t = a->state;
    if (s->updates != t->updates) {
        c->count.failures++;
        a->next = begin_try;
        return;
    }
    s->updates++;
    for (int k = 0; k < c->p.n_stripes; k++) {
        if (!c->p.stripe[k].learns)
            continue;
        actor_emit(c, a, EVENT_PUBLISH, k, a->since);
        stripes_count(c, a, k);
    }
    a->next = passes_begin;
}

/* Makes new weights of the current ones: a copy, which takes about as long as an update, and the update. */
static void begin_try(vclock *c, actor *a)
{
    double seconds = 0;
    for (int k = 0; k < c->p.n_stripes; k++)
        seconds += (1 + c->p.stripe[k].learns) * c->p.stripe[k].publish * a->factor + stripes_fetch(c, a, k);
    ((attempt *)a->state)->updates = ((const leashed *)c->state)->updates;
    a->since = c->now;
    a->next = end_try;
    actor_spend(c, a, seconds, &c->count.publishing);
}

static void step_done(vclock *c, actor *a) { (void)c, a->next = begin_try; }

const clock_order clock_order_leashed = {
    .name = "leashed",
    .state_size = sizeof(leashed),
    .actor_size = sizeof(attempt),
    .simplify = simplify,
    .begin = passes_begin,
    .step_begun = step_begun,
    .layer_done = passes_postpone_layer,
    .step_done = step_done,
};
