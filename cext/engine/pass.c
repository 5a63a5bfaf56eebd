/* The pass of a chunk of samples; see pass.h. */
#include "pass.h"

#include "bounds.h"
#include "feed.h"
#include "team.h"
#include "ticks.h"
#include "trace.h"

#include <math.h>

void pass_forward_call(const engine *e, const worker *w, int i, int n, call *c)
{
    const plan_node *node = &e->p->node[i];
    c->n = n;
    for (int k = 0; k < node->g.n_inputs; k++)
        c->x[k] = (source){w->value[node->input[k]], e->p->node[node->input[k]].value_stride};
    c->y = (sink){w->value[i], node->value_stride};
    c->keep = (sink){w->keep[i], node->g.keep_size};
    c->scratch = w->scratch;
    c->training = engine_learns(e) && !plan_evaluates(e->p, node);
    c->share = w->share;
    c->key = NULL;
    if (node->g.properties & RANDOM && c->training) {
        feed_keys(w, node->layer, n);
        c->key = w->key;
    }
    c->state = NULL;
    if (node->g.state_size)
        c->state = w->reads ? w->reads + node->state_at
                            : shared_read(w->shared, node->state_at, node->g.state_size, w->private_copy);
    c->w = NULL;
    if (node->g.weight_size)
        c->w = w->reads ? w->reads + node->weight_at
                        : shared_read(w->shared, node->weight_at, node->g.weight_size, w->private_copy);
}

void pass_forward_node(worker *w, int i, int n, int note_versions)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[i];
    const plan_block *block = plan_block_of(e->p, i);
    note_versions = note_versions && block && block->first_reader == i; /* an update is as late as its oldest reading */
    if (w->trace && block)
        trace_read(w, i, EVENT_FORWARD, note_versions);
    else if (note_versions) {
        int from, to;
        stripes_of(e, i, &from, &to);
        for (int k = from; k < to; k++)
            w->seen[k] = stripe_version(&w->shared->state[k]);
    }
    call c;
    pass_forward_call(e, w, i, n, &c);
    node->kind->forward(&node->g, &c);
}

static void forward(const engine *e, worker *w, int n, int note_versions)
{
    for (int i = e->p->n_inputs; i < e->p->n_nodes; i++)
        pass_forward_node(w, i, n, note_versions);
}

/* The loss of a term for sample s, which counts as its weight says; writes its part of dy unless that is NULL. */
static double term_of_loss(worker *w, int term, int s, const float *y, float *dy)
{
    const loss_term *t = &w->e->term[term];
    const loss_call c = feed_loss_call(w, term, s);
    float *to = !dy ? NULL : t->adds ? w->scratch : dy + t->first;
    const double loss = t->kind->value(&c, y + t->first, to) * (double)c.weight;
    if (to && t->adds)
        for (int i = 0; i < t->k; i++)
            dy[t->first + i] += to[i];
    return loss;
}

/* Of the first term whose answers are right or wrong. */
static int wrong_answers(const worker *w, int s, const float *y)
{
    for (int t = 0; t < w->e->n_terms; t++) {
        const loss_term *term = &w->e->term[t];
        const loss_call c = feed_loss_call(w, t, s);
        const int wrong = term->kind->wrong ? term->kind->wrong(&c, y + term->first) : -1;
        if (wrong >= 0)
            return wrong;
    }
    return 0;
}

int pass_loss(worker *w, int n, int learns)
{
    const engine *e = w->e;
    const plan_node *out = &e->p->node[e->p->output];
    for (int s = 0; s < n; s++) {
        const float *y = w->value[e->p->output] + (size_t)s * out->value_stride;
        float *dy = learns ? w->delta[0] + (size_t)s * out->value_stride : NULL;
        if (dy && e->unseen)
            memset(dy, 0, shape_size(out->g.out) * sizeof *dy);
        double loss = 0;
        for (int t = 0; t < e->n_terms; t++)
            loss += term_of_loss(w, t, s, y, dy);
        w->count.errors += wrong_answers(w, s, y);
        /* On a grid of 2^-30 the sum of up to 2^23 is exact: whoever adds, in whatever order, gets the same bits. */
        w->count.loss += nearbyint(loss * 0x1p30) * 0x1p-30;
        if (!isfinite(loss))
            return s + 1;
    }
    return 0;
}

void pass_backward_call(const engine *e, const worker *w, int i, int n, int first, call *c)
{
    const plan_node *node = &e->p->node[i];
    pass_forward_call(e, w, i, n, c);
    c->first = first;
    c->frozen = node->block >= 0 && !e->p->block[node->block].trains;
    const plan_node *pool = node->pool < 0 ? NULL : &e->p->node[node->pool], *from = pool ? pool : node;
    c->pool = pool ? &pool->g : NULL;
    if (pool) {
        c->won.p = (const int32_t *)w->keep[node->pool];
        c->won.stride = pool->g.keep_size;
    }
    c->dy = (source){w->delta[from->first_delta], from->value_stride};
    for (int k = 0; k < node->g.n_inputs; k++)
        c->dx[k] = (sink){node->edge[k] < 0 ? NULL : w->delta[node->edge[k]], e->p->node[node->input[k]].value_stride};
    c->dw = w->dw + node->weight_at;
    c->dstate = w->dw + node->state_at;
}

int pass_applies(const engine *e, const plan_node *node, int n)
{
    const int decays = e->step.option[RULE_WEIGHT_DECAY] != 0 || e->step.option[RULE_L1] != 0;
    const plan_block *block = node->block < 0 ? NULL : &e->p->block[node->block];
    return node->kind->apply && (n == 1 || (node->kind->applies && node->kind->applies(&node->g, n))) &&
           block->first_user == block->final_user && e->rule->plain && !decays && !bounds_on_gradients(e) &&
           !e->strategy->publishes_later;
}

/* The clock of a pass that is looked at; it stands still while the worker waits. */
static int64_t working(const worker *w) { return ticks() - w->count.waiting; }

static void layer_done(const engine *e, worker *w, int node)
{
    bounds_clip_gradient(e, node, w->dw);
    int from, to;
    stripes_of(e, node, &from, &to);
    memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
    if (e->strategy->layer_done)
        e->strategy->layer_done(w, node, from, to);
}

int pass_learns(const engine *e, int i) { return plan_learns(e->p, i); }

/* What a backward call has left to add of its gradient and its observations. */
static void add_instantly(worker *w, int i, float share)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[i];
    int from, to;
    if (!plan_block_of(e->p, i)->frozen) {
        shared_added(w->shared, e->p->isa, node->weight_at, node->g.weight_size, w->dw, w->private_copy);
        shared_observe(w->shared, e->p->isa, node->state_at, node->g.state_size, w->dw, node->g.state_rate, share,
                       w->private_copy);
        return;
    }
    stripes_of(e, i, &from, &to);
    for (int k = from; k < to; k++) {
        const stripe *s = &e->stripe[k];
        if (s->state && !s->frozen)
            shared_observe(w->shared, e->p->isa, s->at, s->size, w->dw, node->g.state_rate, share, w->private_copy);
        else if (!s->frozen)
            shared_sum_up(w->shared, e->p->isa, s->at, s->size, w->dw, w->private_copy);
    }
}

void pass_backward_node(worker *w, int i, int n, int first, int last, call *c)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[i];
    float *dy = w->delta[node->first_delta];
    for (int d = e->p->edge[node->first_delta].next; d >= 0; d = e->p->edge[d].next)
        for (int s = 0; s < n; s++)
            e->p->isa->add(shape_size(node->g.out), dy + (size_t)s * node->value_stride,
                           w->delta[d] + (size_t)s * node->value_stride);
    if (node->skipped)
        return;
    const plan_block *block = plan_trained_block(e->p, i);
    if (w->trace && block)
        trace_read(w, i, EVENT_BACKWARD, 0);
    /* several users of a block add to one gradient */
    pass_backward_call(e, w, i, n, first && (!block || block->first_user == i), c);
    const int publishes = w->hooks && block;
    if (publishes && e->instant) {
        memset(w->dw + node->state_at, 0, node->g.state_size * sizeof *w->dw);
        if (block->frozen)
            c->first = 1;
        else
            shared_target(w->shared, node->weight_at, w->dw, c);
    } else if (publishes && first && last && pass_applies(e, node, n)) {
        c->dw = NULL;
        w->unwritten = c;
    }
    node->kind->backward(&node->g, c);
    if (publishes && e->instant)
        add_instantly(w, i, (float)n * w->share);
}

static void backward(const engine *e, worker *w, int n, int first, int last, int looked_at)
{
    for (int i = e->p->n_nodes - 1; i >= e->p->n_inputs; i--) {
        if (!pass_learns(e, i))
            continue;
        const plan_block *block = plan_trained_block(e->p, i);
        const int publishes = w->hooks && block;
        if (publishes && first && block->first_user == i && e->strategy->layer_begin) {
            int from, to;
            stripes_of(e, i, &from, &to);
            const int64_t since = looked_at ? working(w) : 0;
            e->strategy->layer_begin(w, i, from, to);
            if (looked_at)
                w->count.publish += working(w) - since;
        }
        call c;
        pass_backward_node(w, i, n, first, last, &c);
        if (w->reached && last && block && block->final_user == i)
            __atomic_store_n(w->reached, i, __ATOMIC_RELEASE);
        if (publishes && last && block->final_user == i) {
            const int64_t since = looked_at ? working(w) : 0;
            layer_done(e, w, i);
            if (looked_at)
                w->count.publish += working(w) - since;
        }
        w->unwritten = NULL;
    }
}

int pass_images(worker *w, int64_t begin, int64_t end)
{
    engine *e = w->e;
    const plan_node *out = &e->p->node[e->p->output];
    const size_t k = shape_size(out->g.out);
    const int learns = engine_learns(e), trains = e->phase == TRAIN;
    const int looked_at = trains && w->count.passes++ % SAMPLED == 0;
    const int64_t started = trains ? working(w) : 0;
    for (int64_t at = begin; at < end; at += e->chunk) {
        int lost;
        const int n = end - at < e->chunk ? (int)(end - at) : e->chunk;
        const int64_t loading = looked_at ? working(w) : 0, published = w->count.publish;
        feed_load(w, at, n);
        /* the step's next images; after its last the other workers most likely take a step each */
        feed_expect(e, at + n < end ? at + n : end + (e->n_workers - 1) * (end - begin), n);
        forward(e, w, n, w->hooks && (!w->reads || (w->trace && w->reads == w->trace->copy)) && at == begin);
        if (e->out && (e->phase == FORWARD || e->phase == TEST))
            for (int s = 0; s < n; s++)
                memcpy(e->out + (size_t)(at + s) * k, w->value[e->p->output] + (size_t)s * out->value_stride,
                       k * sizeof(float));
        if (e->phase != FORWARD && (lost = pass_loss(w, n, learns))) {
            team_fail(e, DIVERGED, at + lost - 1);
            return -1;
        }
        const int64_t turned = looked_at ? working(w) : 0;
        if (learns)
            backward(e, w, n, at == begin, at + n == end, looked_at);
        if (looked_at) {
            w->count.forward += turned - loading;
            w->count.backward += working(w) - turned - (w->count.publish - published);
        }
        w->count.images += n;
    }
    if (trains)
        w->count.passing += working(w) - started;
    return 0;
}

int pass_gradient(worker *w, int64_t begin, int64_t end, float scale, float *dw)
{
    float *kept = w->dw;
    w->dw = dw;
    w->scale = w->share = scale;
    const int failed = pass_images(w, begin, end);
    w->dw = kept;
    return failed;
}
