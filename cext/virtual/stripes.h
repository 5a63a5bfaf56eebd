/* How virtual workers publish stripes. For this room and orders/. */
#ifndef CHAOS_VIRTUAL_STRIPES_H
#define CHAOS_VIRTUAL_STRIPES_H

#include "actor.h"

/* A stripe of the weights that the worker trains; of those that it exchanges them with. */
static inline vector_stripe *stripes_trained(const vclock *c, const actor *a, int k)
{
    return &c->stripe[a->vector * c->p.n_stripes + k];
}
static inline vector_stripe *stripes_other(const vclock *c, const actor *a, int k)
{
    return &c->stripe[a->other * c->p.n_stripes + k];
}

/* Seconds until a worker has a line that the stripe's last writer has written. */
static inline double stripes_line(const vclock *c, const actor *a, const vector_stripe *s)
{
    const clock_parts *p = &c->p;
    if (!p->domain)
        return p->line;
    const int there = s->writer % p->cores, here = a->id % p->cores;
    return there / p->domain == here / p->domain ? p->near : there / p->socket == here / p->socket ? p->across : p->far;
}

/* Seconds until the worker has the stripe's lines, which it then has. */
static inline double stripes_fetch(const vclock *c, actor *a, int k)
{
    const vector_stripe *s = stripes_trained(c, a, k);
    const double seconds = a->of[k].known == s->version ? 0 : c->p.stripe[k].lines * stripes_line(c, a, s);
    a->of[k].known = s->version;
    return seconds;
}
static inline double stripes_fetch_other(const vclock *c, actor *a, int k)
{
    const vector_stripe *s = stripes_other(c, a, k);
    const double seconds = a->of[k].known_other == s->version ? 0 : c->p.stripe[k].lines * stripes_line(c, a, s);
    a->of[k].known_other = s->version;
    return seconds;
}
double stripes_fetch_layer(const vclock *c, actor *a, const clock_layer *layer);

static inline int stripes_busy(const vclock *c, const actor *a, int k)
{
    return c->order->locks && stripes_trained(c, a, k)->free_at > c->now;
}

/* Takes a walk past the stripes of layers that do not learn: nothing is published there. */
static inline void stripes_skip(const vclock *c, actor *a)
{
    while (a->at < c->p.n_stripes && !c->p.stripe[a->at].learns)
        a->at++;
}
/* Seconds of `times` updates of all stripes, or copies, whose lines come from elsewhere. */
double stripes_seconds(const vclock *c, const actor *a, int times);
/* The gradient of the stripe has become an update; the worker has its lines. */
void stripes_count(vclock *c, actor *a, int k);
/* Publishes a stripe, and takes a copy of it if the worker `renews` its own; then goes on with `then`. */
void stripes_publish(vclock *c, actor *a, int k, int renews, action *then);
/* The stripe waits for publication. */
void stripes_postpone(vclock *c, actor *a, int k);
/* Publishes what is pending in [from, to), however long it takes; then goes on with `then`. */
void stripes_settle(vclock *c, actor *a, int from, int to, action *then);
/* Renews the copies of all stripes that are outdated; seconds. */
double stripes_renew(vclock *c, actor *a);

#endif
