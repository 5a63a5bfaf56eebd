/* The pass of a chunk of samples; see pass.h. */
#include "pass.h"

#include "bounds.h"
#include "team.h"
#include "ticks.h"
#include "trace.h"

#include <math.h>

static inline float pixel_value(uint8_t byte) { return (float)byte * (1.f / 127.5f) - 1.f; }

static void load_sample(const engine *e, worker *w, int sample, int64_t image)
{
    const plan_node *in = &e->p->node[0];
    const size_t C = (size_t)in->g.out.c, P = (size_t)in->g.out.h * (size_t)in->g.out.w;
    float *x = w->value[0] + (size_t)sample * in->value_stride;
    const size_t at = (size_t)image * C * P;
    const uint8_t *b = e->data.bytes ? e->data.bytes + at : NULL;
    const float *f = e->data.floats ? e->data.floats + at : NULL;
    if (C == 1 && b) /* most small data sets; without the stride the compiler vectorises it */
        for (size_t i = 0; i < P; i++)
            x[i] = pixel_value(b[i]);
    else
        for (size_t c = 0; c < C; c++)
            for (size_t i = 0; i < P; i++)
                x[i * C + c] = b ? pixel_value(b[c * P + i]) : f[c * P + i];
}

/* Asks for the images and labels of the chunk at `at`, which will be needed when this one is done: they lie anywhere in
 * memory. */
static void expect_chunk(const engine *e, int64_t at, int n)
{
    const size_t size = shape_size(e->p->node[0].g.out) * (e->data.bytes ? 1 : sizeof(float)), line = 64;
    const char *images = e->data.bytes ? (const char *)e->data.bytes : (const char *)e->data.floats;
    for (int64_t i = at; i < at + n && i < e->end; i++) {
        const int64_t number = e->data.order ? e->data.order[i] : i;
        const char *image = images + (size_t)number * size;
        if (e->data.labels)
            __builtin_prefetch(e->data.labels + number);
        for (size_t k = 0; k < size + line - 1; k += line) /* the last line too, wherever the first one begins */
            __builtin_prefetch(image + (k < size ? k : size - 1));
    }
}

void pass_forward_call(const engine *e, const worker *w, int i, int n, call *c)
{
    const plan_node *node = &e->p->node[i];
    c->n = n;
    for (int k = 0; k < node->g.n_inputs; k++)
        c->x[k] = (source){w->value[node->input[k]], e->p->node[node->input[k]].value_stride};
    c->y = (sink){w->value[i], node->value_stride};
    c->keep = (sink){w->keep[i], node->g.keep_size};
    c->scratch = w->scratch;
    c->w = NULL;
    if (node->g.weight_size)
        c->w = w->reads ? w->reads + node->weight_at
                        : shared_read(w->shared, node->weight_at, node->g.weight_size, w->private_copy);
}

void pass_load_chunk(worker *w, int64_t at, int n)
{
    const engine *e = w->e;
    for (int s = 0; s < n; s++) {
        const int64_t image = e->data.order ? e->data.order[at + s] : at + s;
        load_sample(e, w, s, image);
        w->label[s] = e->data.labels ? (int)e->data.labels[image] : 0;
    }
}

void pass_forward_node(worker *w, int i, int n, int note_versions)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[i];
    if (w->trace && node->g.weight_size)
        trace_read(w, i, EVENT_FORWARD, note_versions);
    else if (note_versions && node->g.weight_size) {
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
    for (int i = 1; i < e->p->n_nodes; i++)
        pass_forward_node(w, i, n, note_versions);
}

int pass_loss(worker *w, int n, int learns)
{
    const engine *e = w->e;
    const plan_node *out = &e->p->node[e->p->output];
    const int k = (int)shape_size(out->g.out);
    for (int s = 0; s < n; s++) {
        const float *y = w->value[e->p->output] + (size_t)s * out->value_stride;
        float *dy = learns ? w->delta[0] + (size_t)s * out->value_stride : NULL;
        const double loss = e->loss->value(k, y, w->label[s], w->scale, dy);
        int best = 0;
        for (int j = 1; j < k; j++)
            if (!(y[j] <= y[best]))
                best = j;
        w->count.errors += best != w->label[s];
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
}

int pass_applies(const engine *e, const plan_node *node)
{
    const int decays = e->step.option[RULE_WEIGHT_DECAY] != 0 || e->step.option[RULE_L1] != 0;
    return node->kind->apply && e->rule->plain && !decays && !bounds_on_gradients(e) && !e->strategy->publishes_later;
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

int pass_learns(const engine *e, int i)
{
    const plan_node *node = &e->p->node[i];
    return node->needs_gradient && node->n_deltas;
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
    if (w->trace && node->g.weight_size)
        trace_read(w, i, EVENT_BACKWARD, 0);
    pass_backward_call(e, w, i, n, first, c);
    const int publishes = w->hooks && node->g.weight_size;
    if (publishes && e->instant)
        shared_target(w->shared, node->weight_at, w->dw, c);
    else if (publishes && first && last && n == 1 && pass_applies(e, node)) {
        c->dw = NULL;
        w->unwritten = c;
    }
    node->kind->backward(&node->g, c);
    if (publishes && e->instant)
        shared_added(w->shared, node->weight_at, node->g.weight_size, w->dw, w->private_copy);
}

static void backward(const engine *e, worker *w, int n, int first, int last, int looked_at)
{
    for (int i = e->p->n_nodes - 1; i > 0; i--) {
        if (!pass_learns(e, i))
            continue;
        const int publishes = w->hooks && e->p->node[i].g.weight_size;
        if (publishes && first && e->strategy->layer_begin) {
            int from, to;
            stripes_of(e, i, &from, &to);
            const int64_t since = looked_at ? working(w) : 0;
            e->strategy->layer_begin(w, i, from, to);
            if (looked_at)
                w->count.publish += working(w) - since;
        }
        call c;
        pass_backward_node(w, i, n, first, last, &c);
        if (w->reached && last && e->p->node[i].g.weight_size)
            __atomic_store_n(w->reached, i, __ATOMIC_RELEASE);
        if (publishes && last) {
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
    const int learns = e->phase != TEST && e->phase != FORWARD, trains = e->phase == TRAIN;
    const int looked_at = trains && w->count.passes++ % SAMPLED == 0;
    const int64_t started = trains ? working(w) : 0;
    for (int64_t at = begin; at < end; at += e->chunk) {
        int lost;
        const int n = end - at < e->chunk ? (int)(end - at) : e->chunk;
        const int64_t loading = looked_at ? working(w) : 0, published = w->count.publish;
        pass_load_chunk(w, at, n);
        /* the step's next images; after its last the other workers most likely take a step each */
        expect_chunk(e, at + n < end ? at + n : end + (e->n_workers - 1) * (end - begin), n);
        forward(e, w, n, w->hooks && (!w->reads || (w->trace && w->reads == w->trace->copy)) && at == begin);
        if (e->phase == FORWARD) {
            for (int s = 0; s < n; s++)
                memcpy(e->out + (size_t)(at + s) * k, w->value[e->p->output] + (size_t)s * out->value_stride,
                       k * sizeof(float));
        } else if ((lost = pass_loss(w, n, learns))) {
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
    w->scale = scale;
    const int failed = pass_images(w, begin, end);
    w->dw = kept;
    return failed;
}
