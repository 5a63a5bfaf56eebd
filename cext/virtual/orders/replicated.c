/* Replicated: replicas of groups, updated as by CHAOS; a token goes round the groups' first workers, and with it an exchange
 * with the next group's replica (mix) or the process's weights. */
#include "virtual/meeting.h"
#include "virtual/orders.h"
#include "virtual/passes.h"
#include "virtual/replicas.h"

enum { GROUP, PERIOD, RULE }; /* clock_parts.option */

typedef struct {
    int token; /* the group that has it */
} ring;

typedef struct {
    int64_t steps; /* 0, or 1 + steps since the one that the token allowed */
} member;

static int group_size(const clock_parts *p) { return p->option[GROUP] > 0 ? (int)p->option[GROUP] : 1; }
static int n_groups(const clock_parts *p) { return (p->n_workers + group_size(p) - 1) / group_size(p); }
static int group_of(const vclock *c, const actor *a) { return a->id / group_size(&c->p); }
static int leads(const vclock *c, const actor *a) { return a->id % group_size(&c->p) == 0; }
static int has_token(const vclock *c, const actor *a)
{
    return leads(c, a) && ((const ring *)c->state)->token == group_of(c, a);
}

/* All in one group. */
static const clock_order one_group = {
    .name = "replicated",
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

static void place(const vclock *c, actor *a)
{
    const int group = group_of(c, a), mix = c->p.option[RULE] == 0;
    a->vector = 1 + group;
    a->other = mix ? 1 + (group + 1) % n_groups(&c->p) : 0;
}

static void hand_on(vclock *c, const actor *a)
{
    ring *r = c->state;
    if (has_token(c, a))
        r->token = (r->token + 1) % n_groups(&c->p);
}

static void step_done(vclock *c, actor *a)
{
    member *m = a->state;
    const int64_t period = c->p.option[PERIOD] > 0 ? (int64_t)c->p.option[PERIOD] : 64;
    a->next = passes_begin;
    if (!has_token(c, a))
        return;
    if (!m->steps) {
        m->steps = 1;
        replicas_exchange(c, a, 0, 1, passes_begin);
    } else if (m->steps++ >= period) {
        m->steps = 0;
        hand_on(c, a);
    }
}

static void leave(vclock *c, actor *a)
{
    hand_on(c, a);
    a->next = NULL;
}

static void entered(vclock *c, actor *a) { meeting_join(c, a, passes_begin, NULL); }

/* The replica, and what the group has added to it. */
static void enter(vclock *c, actor *a)
{
    if (leads(c, a))
        replicas_copy(c, a, 2, entered);
    else
        entered(c, a);
}

const clock_order clock_order_replicated = {
    .name = "replicated",
    .locks = 1,
    .state_size = sizeof(ring),
    .actor_size = sizeof(member),
    .simplify = simplify,
    .place = place,
    .enter = enter,
    .begin = passes_begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = step_done,
    .leave = leave,
};
