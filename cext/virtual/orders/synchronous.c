/* Synchronous: lanes of one step, a meeting, stripes of its sum, a meeting. */
#include "virtual/meeting.h"
#include "virtual/orders.h"
#include "virtual/passes.h"

typedef struct {
    int64_t step;
    int next_lane, next_stripe;
} synchronous;

/* One worker does it all. */
static void simplify(clock_parts *p)
{
    if (p->lanes > 1)
        return;
    p->order = &clock_order_sequential;
    p->n_workers = 1;
}

static void next_step(vclock *c)
{
    synchronous *s = c->state;
    s->step++;
    s->next_lane = s->next_stripe = 0;
}

static void reduce(vclock *c, actor *a);

static void begin(vclock *c, actor *a)
{
    synchronous *s = c->state;
    if (s->step >= c->n_steps) {
        a->next = NULL;
        return;
    }
    const int lanes = actor_step_lanes(c, s->step), lane = s->next_lane;
    if (lane == lanes) {
        meeting_join(c, a, reduce, NULL);
        return;
    }
    const int64_t from = s->step * c->p.batch, n = actor_step_images(c, s->step);
    s->next_lane++;
    a->step = s->step;
    a->image = lane_begin(from, from + n, lanes, lane, c->p.group);
    a->end = lane_begin(from, from + n, lanes, lane + 1, c->p.group);
    a->layer = 0;
    a->next = passes_forward;
    actor_emit(c, a, EVENT_LANE, lane, c->now);
    actor_spend(c, a, passes_seconds_before(c, a), &c->count.forward);
}

static void reduced(vclock *c, actor *a)
{
    actor_emit(c, a, EVENT_REDUCE, a->stripe, a->since);
    stripes_count(c, a, a->stripe);
    a->next = reduce;
}

static void reduce(vclock *c, actor *a)
{
    synchronous *s = c->state;
    if (s->next_stripe == c->p.n_stripes) {
        meeting_join(c, a, begin, next_step);
        return;
    }
    const int k = a->stripe = s->next_stripe++;
    a->since = c->now;
    a->next = reduced;
    /* each lane's gradient is read about as fast as a gradient is published */
    actor_spend(c, a, c->p.stripe[k].publish * actor_step_lanes(c, s->step) * a->factor + stripes_fetch(c, a, k),
                &c->count.publishing);
}

const clock_order clock_order_synchronous = {
    .name = "synchronous",
    .in_lanes = 1,
    .cuts = 1,
    .state_size = sizeof(synchronous),
    .simplify = simplify,
    .begin = begin,
    .step_done = passes_next_step,
};
