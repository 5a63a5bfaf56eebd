/* Replicas; see replicas.h. */
#include "replicas.h"

void replicas_copy(vclock *c, actor *a, int replicas, action *then)
{
    a->next = then;
    actor_spend(c, a, stripes_seconds(c, a, replicas), &c->count.publishing);
}

void replicas_count(vclock *c, actor *a, int k)
{
    a->of[k].known_other = ++stripes_other(c, a, k)->version;
    stripes_other(c, a, k)->writer = a->id;
}

static void exchange(vclock *c, actor *a);

static void exchanged(vclock *c, actor *a)
{
    const int k = a->stripe;
    actor_emit(c, a, EVENT_EXCHANGE, k, a->since);
    replicas_count(c, a, k);
    a->of[k].known = ++stripes_trained(c, a, k)->version;
    stripes_trained(c, a, k)->writer = a->id;
    a->stripe = -1;
    a->next = exchange;
}

static void exchange(vclock *c, actor *a)
{
    if (a->at == c->p.n_stripes) {
        a->next = a->then;
        return;
    }
    const int k = (a->from + a->at) % c->p.n_stripes, shared = a->shared;
    vector_stripe *trained = stripes_trained(c, a, k), *other = stripes_other(c, a, k);
    const double free_at = shared && trained->free_at > other->free_at ? trained->free_at : other->free_at;
    if (free_at > c->now) {
        c->count.failures += a->stripe != k;
        a->stripe = k;
        actor_wait_for_stripe(c, a, free_at);
        return;
    }
    const double seconds = (2 + shared) * c->p.stripe[k].publish * a->factor + stripes_fetch(c, a, k) +
                           stripes_fetch_other(c, a, k);
    a->stripe = k;
    a->at++;
    a->since = c->now;
    a->next = exchanged;
    other->free_at = c->now + seconds;
    if (shared)
        trained->free_at = other->free_at;
    actor_spend(c, a, seconds, &c->count.publishing);
}

void replicas_exchange(vclock *c, actor *a, int start, int shared, action *then)
{
    a->from = start;
    a->at = 0;
    a->stripe = -1;
    a->shared = shared;
    a->then = then;
    a->next = exchange;
}
