/* Domains: replicas of groups, updated as by CHAOS; the worker that makes the last of a period's steps of its group exchanges
 * the group's replica with the process's weights. */
#include "virtual/meeting.h"
#include "virtual/orders.h"
#include "virtual/passes.h"
#include "virtual/replicas.h"

enum { GROUP, PERIOD }; /* clock_parts.option */

/* Of a group, kept by its first worker. */
typedef struct {
    int64_t steps; /* since the last exchange began */
    int carried; /* a worker is exchanging */
} member;

static int group_size(const clock_parts *p) { return p->option[GROUP] > 0 ? (int)p->option[GROUP] : 1; }
static int n_groups(const clock_parts *p) { return (p->n_workers + group_size(p) - 1) / group_size(p); }
static int group_of(const vclock *c, const actor *a) { return a->id / group_size(&c->p); }
static member *of_group(const vclock *c, const actor *a) { return c->actor[group_of(c, a) * group_size(&c->p)].state; }

/* All in one group. */
static const clock_order one_group = {
    .name = "domains",
    .locks = 1,
    .begin = passes_begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = passes_next_step,
};

static void simplify(clock_parts *p)
{
    if (n_groups(p) == 1)
        p->order = &one_group;
}

static void place(const vclock *c, actor *a) { a->vector = 1 + group_of(c, a); }

static void carried(vclock *c, actor *a)
{
    of_group(c, a)->carried = 0;
    a->next = passes_begin;
}

static void step_done(vclock *c, actor *a)
{
    member *m = of_group(c, a);
    const int64_t period = c->p.option[PERIOD] > 0 ? (int64_t)c->p.option[PERIOD] : 16;
    const int start = (int)((int64_t)group_of(c, a) * c->p.n_stripes / n_groups(&c->p));
    a->next = passes_begin;
    if (++m->steps < period || m->carried)
        return;
    m->steps = 0;
    m->carried = 1;
    replicas_exchange(c, a, start, group_size(&c->p) > 1, carried);
}

static void entered(vclock *c, actor *a) { meeting_join(c, a, passes_begin, NULL); }

/* The replica, and what it was. */
static void enter(vclock *c, actor *a)
{
    if (a->id % group_size(&c->p) == 0)
        replicas_copy(c, a, 2, entered);
    else
        entered(c, a);
}

const clock_order clock_order_domains = {
    .name = "domains",
    .locks = 1,
    .actor_size = sizeof(member),
    .simplify = simplify,
    .place = place,
    .enter = enter,
    .begin = passes_begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = step_done,
};
