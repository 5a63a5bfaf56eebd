/* Forward and back; see passes.h. */
#include "passes.h"

static int next_learning(const vclock *c, int layer)
{
    while (layer >= 0 && !c->p.layer[layer].learns)
        layer--;
    return layer;
}

/* The chunk's next layer, the next chunk, or what comes after the last. */
static void layer_over(vclock *c, actor *a);

static void backward(vclock *c, actor *a)
{
    const clock_layer *l = &c->p.layer[a->layer];
    const int n = passes_chunk(c, a), last = a->image + n == a->end;
    actor_emit(c, a, EVENT_BACKWARD, l->node, c->now);
    actor_spend(c, a, l->backward * n * a->factor * random_factor(&c->random, c->p.jitter) + stripes_fetch_layer(c, a, l),
                &c->count.backward);
    a->at = 0;
    a->next = last && c->order->layer_done ? c->order->layer_done : layer_over;
    for (int k = l->first; last && c->keeps_copies && k < l->end; k++)
        a->of[k].outdated = 1;
}

/* Looks at everything that is pending, then waits for what is of this layer: its gradient is about to be overwritten. */
static void sweep(vclock *c, actor *a)
{
    for (; a->n_pending && a->at < c->p.n_stripes; a->at++) {
        if (!a->of[a->at].pending)
            continue;
        if (!stripes_busy(c, a, a->at)) {
            stripes_publish(c, a, a->at, 0, sweep);
            return;
        }
        c->count.failures++;
    }
    const clock_layer *l = &c->p.layer[a->layer];
    stripes_settle(c, a, l->first, l->end, backward);
}

static void enter_backward(vclock *c, actor *a)
{
    a->at = 0;
    a->next = a->n_pending && a->image == a->begin ? sweep : backward;
}

void passes_forward(vclock *c, actor *a)
{
    const clock_layer *l = &c->p.layer[a->layer];
    actor_emit(c, a, EVENT_FORWARD, l->node, c->now);
    actor_spend(c, a,
                l->forward * passes_chunk(c, a) * a->factor * random_factor(&c->random, c->p.jitter) +
                    stripes_fetch_layer(c, a, l),
                &c->count.forward);
    if (++a->layer == c->p.n_layers) {
        a->layer = next_learning(c, c->p.n_layers - 1);
        a->next = enter_backward;
    }
}

static void layer_over(vclock *c, actor *a)
{
    a->layer = next_learning(c, a->layer - 1);
    if (a->layer >= 0) {
        a->next = enter_backward;
    } else if (a->image + c->p.chunk < a->end) {
        a->image += c->p.chunk;
        a->layer = 0;
        a->next = passes_forward;
        actor_spend(c, a, passes_seconds_before(c, a), &c->count.forward);
    } else
        c->order->step_done(c, a);
}

void passes_publish_layer(vclock *c, actor *a)
{
    const clock_layer *l = &c->p.layer[a->layer];
    const int n = l->end - l->first, start = actor_share(c, a->id, n);
    for (; a->at < n; a->at++) {
        const int k = l->first + (start + a->at) % n;
        if (!stripes_busy(c, a, k)) {
            a->at++;
            stripes_publish(c, a, k, c->keeps_copies, passes_publish_layer);
            return;
        }
        c->count.failures++;
        stripes_postpone(c, a, k);
    }
    if (c->max_pending && a->n_pending > c->max_pending)
        stripes_settle(c, a, 0, c->p.n_stripes, layer_over);
    else
        a->next = layer_over;
}

void passes_postpone_layer(vclock *c, actor *a)
{
    const clock_layer *l = &c->p.layer[a->layer];
    const int n = l->end - l->first, start = actor_share(c, a->id, n);
    for (int i = 0; i < n && !c->p.publishes_later; i++)
        actor_emit(c, a, EVENT_POSTPONE, l->first + (start + i) % n, c->now);
    a->next = layer_over;
}

void passes_next_step(vclock *c, actor *a) { a->next = c->order->begin; }

void passes_end(vclock *c, actor *a) { stripes_settle(c, a, 0, c->p.n_stripes, c->order->leave); }

void passes_step_begun(vclock *c, actor *a) { actor_spend(c, a, passes_seconds_before(c, a), &c->count.forward); }

void passes_copy(vclock *c, actor *a)
{
    actor_emit(c, a, EVENT_COPY, 0, c->now);
    for (int k = 0; k < c->p.n_stripes; k++)
        a->of[k].known = stripes_trained(c, a, k)->version;
    a->next = passes_forward;
    actor_spend(c, a, a->since - c->now + passes_seconds_before(c, a), &c->count.forward);
}

void passes_take(vclock *c, actor *a, int64_t step)
{
    c->next_step++;
    a->step = step;
    a->begin = a->image = step * c->p.batch;
    a->end = a->begin + actor_step_images(c, step);
    a->layer = 0;
    actor_emit(c, a, EVENT_STEP, step, c->now);
    a->next = passes_forward;
    c->order->step_begun(c, a);
}

void passes_begin(vclock *c, actor *a)
{
    if (c->next_step < c->n_steps)
        passes_take(c, a, c->next_step);
    else
        passes_end(c, a);
}
