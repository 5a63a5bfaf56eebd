/* Publication of stripes; see stripes.h. */
#include "stripes.h"

#include <math.h>

double stripes_fetch_layer(const vclock *c, actor *a, const clock_layer *layer)
{
    double seconds = 0;
    if (c->keeps_copies)
        return 0;
    for (int k = layer->first; k < layer->end; k++)
        seconds += stripes_fetch(c, a, k);
    return seconds;
}

double stripes_seconds(const vclock *c, const actor *a, int times)
{
    double seconds = 0;
    for (int k = 0; k < c->p.n_stripes; k++)
        seconds += times * c->p.stripe[k].publish * a->factor + c->p.stripe[k].lines * c->p.line;
    return seconds;
}

void stripes_count(vclock *c, actor *a, int k)
{
    a->of[k].known = ++stripes_trained(c, a, k)->version;
    stripes_trained(c, a, k)->writer = a->id;
    c->count.published++;
}

static void published(vclock *c, actor *a)
{
    const int k = a->stripe;
    actor_emit(c, a, EVENT_PUBLISH, k, a->since);
    stripes_count(c, a, k);
    a->n_pending -= a->of[k].pending;
    a->of[k].pending = 0;
    if (a->renews) {
        actor_emit(c, a, EVENT_READ, k, c->now);
        a->of[k].outdated = 0;
    }
    a->next = a->then;
}

void stripes_publish(vclock *c, actor *a, int k, int renews, action *then)
{
    const double seconds = (1 + renews) * c->p.stripe[k].publish * a->factor + stripes_fetch(c, a, k);
    a->since = c->now;
    a->stripe = k;
    a->renews = renews;
    a->then = then;
    a->next = published;
    stripes_trained(c, a, k)->free_at = c->now + seconds;
    actor_spend(c, a, seconds, &c->count.publishing);
}

void stripes_postpone(vclock *c, actor *a, int k)
{
    actor_emit(c, a, EVENT_POSTPONE, k, c->now);
    a->of[k].pending = 1;
    a->n_pending++;
}

static void settle(vclock *c, actor *a)
{
    double soonest = INFINITY;
    for (int k = a->from; a->n_pending && k < a->to; k++) {
        if (!a->of[k].pending)
            continue;
        if (!stripes_busy(c, a, k)) {
            stripes_publish(c, a, k, 0, settle);
            return;
        }
        if (stripes_trained(c, a, k)->free_at < soonest)
            soonest = stripes_trained(c, a, k)->free_at;
    }
    if (soonest < INFINITY)
        actor_wait_for_stripe(c, a, soonest);
    else
        a->next = a->settled;
}

void stripes_settle(vclock *c, actor *a, int from, int to, action *then)
{
    a->from = from;
    a->to = to;
    a->settled = then;
    a->next = settle;
}

double stripes_renew(vclock *c, actor *a)
{
    double seconds = 0;
    for (int k = 0; k < c->p.n_stripes; k++)
        if (a->of[k].outdated) {
            actor_emit(c, a, EVENT_READ, k, c->now);
            seconds += c->p.stripe[k].publish * a->factor + stripes_fetch(c, a, k);
            a->of[k].outdated = 0;
        }
    return seconds;
}
