/* The phases of a clock; see clock.h. */
#include "clock.h"

#include "actor.h"
#include "order.h"

#include <stdlib.h>
#include <string.h>

void vclock_begin(vclock *c, int64_t n_images)
{
    const clock_order *o = c->order;
    c->n_images = n_images;
    c->n_steps = (n_images + c->p.batch - 1) / c->p.batch;
    c->next_step = 0;
    c->arrived = 0;
    memset(c->state, 0, o->state_size);
    memset(c->actor_states, 0, (size_t)c->p.n_workers * o->actor_size);
    if (o->phase_begin)
        o->phase_begin(c);
    for (int w = 0; w < c->p.n_workers; w++)
        c->actor[w].next = o->enter && n_images ? o->enter : o->begin;
    actor_gather(c);
}

int64_t vclock_next(vclock *c, int64_t room, event *events, double *since, double *when)
{
    const int64_t most = vclock_room(c);
    c->out = events;
    c->since = since;
    c->when = when;
    c->n_out = 0;
    while (c->n_heap && c->n_out + most <= room) {
        actor *a = actor_first(c);
        if (c->heap[0].time > c->now)
            c->now = c->heap[0].time;
        a->next(c, a);
        if (!a->next)
            actor_remove(c, a);
    }
    return c->n_out;
}

int64_t vclock_room(const vclock *c) { return (c->p.n_workers > c->p.n_stripes ? c->p.n_workers : c->p.n_stripes) + 1; }
double vclock_now(const vclock *c) { return c->now; }
const clock_counts *vclock_counted(const vclock *c) { return &c->count; }
int vclock_workers(const vclock *c) { return c->p.n_workers; }
int vclock_lanes(const vclock *c) { return c->order->in_lanes ? c->p.lanes : 0; }

static void *copied(const void *from, int n, size_t size)
{
    void *to = malloc((size_t)n * size + 1);
    if (to && n)
        memcpy(to, from, (size_t)n * size);
    return to;
}

vclock *vclock_new(const clock_parts *parts)
{
    vclock *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    clock_parts *p = &c->p;
    *p = *parts;
    p->layer = copied(parts->layer, p->n_layers, sizeof *p->layer);
    p->stripe = copied(parts->stripe, p->n_stripes, sizeof *p->stripe);
    p->stage = copied(parts->stage, p->n_stages, sizeof *p->stage);
    p->factor = copied(parts->factor, p->n_workers, sizeof *p->factor);
    if (p->order->simplify)
        p->order->simplify(p);
    const clock_order *o = c->order = p->order;
    const size_t n = (size_t)p->n_workers, stripes = (size_t)p->n_stripes, vectors = o->place ? n + 1 : 1;
    c->actor = calloc(n, sizeof *c->actor);
    c->heap = calloc(n, sizeof *c->heap);
    c->stripe = calloc(vectors * stripes + 1, sizeof *c->stripe);
    c->actor_stripes = calloc(n * stripes + 1, sizeof *c->actor_stripes);
    c->state = calloc(1, o->state_size + 1);
    c->actor_states = calloc(n, o->actor_size + 1);
    if (!p->layer || !p->stripe || !p->stage || !p->factor || !c->actor || !c->heap || !c->stripe || !c->actor_stripes ||
        !c->state || !c->actor_states) {
        vclock_free(c);
        return NULL;
    }
    for (size_t w = 0; w < n; w++) {
        actor *a = &c->actor[w];
        *a = (actor){.id = (int)w, .factor = p->factor[w], .of = c->actor_stripes + w * stripes};
        a->state = c->actor_states + w * o->actor_size;
        if (o->place)
            o->place(c, a);
    }
    if (o->setup)
        o->setup(c);
    random_seed(&c->random, p->seed);
    return c;
}

void vclock_free(vclock *c)
{
    if (!c)
        return;
    free((void *)c->p.layer);
    free((void *)c->p.stripe);
    free((void *)c->p.stage);
    free((void *)c->p.factor);
    free(c->actor);
    free(c->heap);
    free(c->stripe);
    free(c->actor_stripes);
    free(c->state);
    free(c->actor_states);
    free(c);
}
