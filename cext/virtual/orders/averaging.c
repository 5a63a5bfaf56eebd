/* Averaging: replicas; after a period of steps of each worker a meeting, where each averages its share of the stripes, another
 * meeting, and a copy of the result. */
#include "virtual/meeting.h"
#include "virtual/orders.h"
#include "virtual/passes.h"
#include "virtual/replicas.h"

typedef struct {
    int64_t begin, end; /* steps between two averages */
} rounds;

typedef struct {
    int64_t taken; /* steps */
} turns;

static void begin_round(vclock *c, int64_t step)
{
    rounds *r = c->state;
    const int64_t steps = (int64_t)c->p.option[0] * c->p.n_workers; /* 0: all there are */
    r->begin = step;
    r->end = steps && steps < c->n_steps - step ? step + steps : c->n_steps;
}

static void phase_begin(vclock *c) { begin_round(c, 0); }

static void place(const vclock *c, actor *a) { (void)c, a->vector = 1 + a->id; }

static void begin(vclock *c, actor *a);

static void leave(vclock *c, actor *a) { replicas_copy(c, a, 1, begin); }

/* Here, so that nobody comes to the next meeting before all have left this one. */
static void leave_all(vclock *c)
{
    for (int id = 0; id < c->p.n_workers; id++)
        actor_emit(c, &c->actor[id], EVENT_LEAVE, 0, c->now);
    begin_round(c, ((const rounds *)c->state)->end);
}

static void average(vclock *c, actor *a);

static void averaged(vclock *c, actor *a)
{
    actor_emit(c, a, EVENT_EXCHANGE, a->stripe, a->since);
    replicas_count(c, a, a->stripe);
    a->next = average;
}

static void average(vclock *c, actor *a)
{
    const int k = actor_share(c, a->id, c->p.n_stripes) + a->at, workers = c->p.n_workers;
    if (k == actor_share(c, a->id + 1, c->p.n_stripes)) {
        meeting_join(c, a, leave, leave_all);
        return;
    }
    a->at++;
    a->stripe = k;
    a->since = c->now;
    a->next = averaged;
    /* every replica's lines are in its worker's cache */
    actor_spend(c, a, workers * c->p.stripe[k].publish * a->factor + (workers - 1) * c->p.stripe[k].lines * c->p.line,
                &c->count.publishing);
}

static void begin(vclock *c, actor *a)
{
    const rounds *r = c->state;
    turns *t = a->state;
    const int64_t step = a->id + t->taken * c->p.n_workers;
    if (step < r->end) {
        t->taken++;
        passes_take(c, a, step);
    } else if (r->begin < c->n_steps) {
        actor_emit(c, a, EVENT_ARRIVE, 0, c->now);
        meeting_join(c, a, average, NULL);
    } else
        a->next = NULL;
}

static void entered(vclock *c, actor *a) { meeting_join(c, a, begin, NULL); }
static void enter(vclock *c, actor *a) { replicas_copy(c, a, 1, entered); }

const clock_order clock_order_averaging = {
    .name = "averaging",
    .state_size = sizeof(rounds),
    .actor_size = sizeof(turns),
    .place = place,
    .phase_begin = phase_begin,
    .enter = enter,
    .begin = begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = passes_next_step,
};
