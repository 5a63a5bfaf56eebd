/* CHAOS: stripes by try-lock, a busy one is passed over and visited again. Where workers read copies, each copies a stripe right
 * after its publication. */
#include "virtual/orders.h"
#include "virtual/passes.h"

enum { MAX_PENDING, READ_AT_PUBLICATION }; /* clock_parts.option */

static void setup(vclock *c)
{
    c->max_pending = (int)c->p.option[MAX_PENDING];
    c->keeps_copies = c->p.option[READ_AT_PUBLICATION] && c->p.n_workers > 1;
}

static void enter(vclock *c, actor *a)
{
    if (!c->keeps_copies) {
        passes_begin(c, a);
        return;
    }
    for (int k = 0; k < c->p.n_stripes; k++)
        a->of[k].outdated = 1;
    a->next = passes_begin;
    actor_spend(c, a, stripes_renew(c, a), &c->count.publishing);
}

static void step_begun(vclock *c, actor *a)
{
    const double copying = c->keeps_copies ? stripes_renew(c, a) : 0;
    c->count.publishing += copying;
    actor_spend(c, a, copying + passes_seconds_before(c, a), &c->count.forward);
    c->count.forward -= copying;
}

const clock_order clock_order_chaos = {
    .name = "chaos",
    .locks = 1,
    .setup = setup,
    .enter = enter,
    .begin = passes_begin,
    .step_begun = step_begun,
    .layer_done = passes_publish_layer,
    .step_done = passes_next_step,
};
