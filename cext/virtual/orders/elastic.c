/* Elastic averaging: replicas; after a period of steps, and in the end, a worker's is exchanged with the process's weights,
 * stripe by stripe under the stripe's lock. */
#include "virtual/meeting.h"
#include "virtual/orders.h"
#include "virtual/passes.h"
#include "virtual/replicas.h"

typedef struct {
    int64_t steps; /* since the last exchange */
    int ended;     /* it has made the phase's last one */
} elastic;

static void place(const vclock *c, actor *a) { (void)c, a->vector = 1 + a->id; }

static void begin(vclock *c, actor *a);

static void exchange(vclock *c, actor *a)
{
    ((elastic *)a->state)->steps = 0;
    replicas_exchange(c, a, actor_share(c, a->id, c->p.n_stripes), 0, begin);
}

static void begin(vclock *c, actor *a)
{
    elastic *s = a->state;
    if (c->next_step < c->n_steps || s->ended) {
        passes_begin(c, a);
        return;
    }
    s->ended = 1;
    exchange(c, a);
}

static void step_done(vclock *c, actor *a)
{
    const int64_t period = c->p.option[0] > 0 ? (int64_t)c->p.option[0] : 10;
    a->next = begin;
    if (++((elastic *)a->state)->steps >= period)
        exchange(c, a);
}

static void entered(vclock *c, actor *a) { meeting_join(c, a, begin, NULL); }
static void enter(vclock *c, actor *a) { replicas_copy(c, a, 1, entered); }

const clock_order clock_order_elastic = {
    .name = "elastic",
    .actor_size = sizeof(elastic),
    .place = place,
    .enter = enter,
    .begin = begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = step_done,
};
