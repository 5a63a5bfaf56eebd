/* The pass: a chunk of samples through the network and back, and the steps that are made of passes. */
#include "threads.h"

#include "inside.h"
#include "layers/random.h"
#include "ticks.h"
#include "trace.h"

#include <math.h>
#include <time.h>

static inline float pixel_value(uint8_t byte) { return (float)byte * (1.f / 127.5f) - 1.f; }

/* Channels innermost, what lies channel by channel. */
static void load_input(const feed *f, shape s, int64_t image, float *x)
{
    const size_t C = (size_t)s.c, P = (size_t)s.h * (size_t)s.w, at = (size_t)image * C * P;
    const uint8_t *b = f->bytes ? f->bytes + at : NULL;
    if (C == 1 && b) /* most small data sets; without the stride the compiler vectorises it */
        for (size_t i = 0; i < P; i++)
            x[i] = pixel_value(b[i]);
    else if (f->numbers)
        for (size_t c = 0; c < C; c++)
            for (size_t i = 0; i < P; i++)
                x[i * C + c] = (float)f->numbers[at + c * P + i];
    else
        for (size_t c = 0; c < C; c++)
            for (size_t i = 0; i < P; i++)
                x[i * C + c] = b ? pixel_value(b[c * P + i]) : f->floats[at + c * P + i];
}

static size_t number_size(const feed *f) { return f->bytes ? 1 : f->floats ? sizeof *f->floats : sizeof *f->numbers; }

static const char *feed_start(const feed *f)
{
    return f->bytes ? (const char *)f->bytes : f->floats ? (const char *)f->floats : (const char *)f->numbers;
}

/* Asks for an image's part of a feed. */
static void expect(const feed *f, int64_t image)
{
    const size_t size = f->size * number_size(f), line = 64;
    const char *at = feed_start(f) + (size_t)image * size;
    for (size_t k = 0; k < size + line - 1; k += line) /* the last line too, wherever the first one begins */
        __builtin_prefetch(at + (k < size ? k : size - 1));
}

/* Asks for the images and targets of the chunk at `at`, which will be needed when this one is done: they lie anywhere in
 * memory. */
static void expect_chunk(const engine *e, int64_t at, int n)
{
    const images *d = &e->data;
    for (int64_t i = at; i < at + n && i < e->end; i++) {
        const int64_t image = d->order ? d->order[i] : i;
        if (d->target.size)
            expect(&d->target, image);
        for (int k = 0; k < e->p->n_inputs; k++)
            expect(&d->input[k], image);
    }
}

static void describe_call(const engine *e, const worker *w, int i, int n, call *c)
{
    const plan_node *node = &e->p->node[i];
    c->n = n;
    for (int k = 0; k < node->g.n_inputs; k++)
        c->x[k] = (source){w->value[node->input[k]], e->p->node[node->input[k]].value_stride};
    c->y = (sink){w->value[i], node->value_stride};
    c->keep = (sink){w->keep[i], node->g.keep_size};
    c->scratch = w->scratch;
    c->training = e->phase != TEST && e->phase != FORWARD;
    c->share = w->share;
    c->key = NULL;
    if (node->g.properties & RANDOM && c->training) {
        for (int s = 0; s < n; s++)
            w->key[s] = random_key(random_key(e->data.key, (uint64_t)w->image[s]), (uint64_t)node->layer);
        c->key = w->key;
    }
    c->state = NULL;
    if (node->g.state_size)
        c->state = w->reads ? w->reads + node->state_at : shared_read(w->to, node->state_at, node->g.state_size, w->own);
    c->w = NULL;
    if (node->g.weight_size)
        c->w = w->reads ? w->reads + node->weight_at : shared_read(w->to, node->weight_at, node->g.weight_size, w->own);
}

void number_chunk(worker *w, int64_t at, int n)
{
    const images *d = &w->e->data;
    for (int s = 0; s < n; s++)
        w->image[s] = d->order ? d->order[at + s] : at + s;
}

void load_chunk(worker *w, int64_t at, int n)
{
    const engine *e = w->e;
    number_chunk(w, at, n);
    for (int i = 0; i < e->p->n_inputs; i++) {
        const plan_node *in = &e->p->node[i];
        for (int s = 0; s < n; s++)
            load_input(&e->data.input[in->feed], in->g.out, w->image[s], w->value[i] + (size_t)s * in->value_stride);
    }
}

void forward_node(worker *w, int i, int n, int note_versions)
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
            w->seen[k] = stripe_version(&w->to->state[k]);
    }
    call c;
    describe_call(e, w, i, n, &c);
    node->kind->forward(&node->g, &c);
}

static void forward(const engine *e, worker *w, int n, int note_versions)
{
    for (int i = e->p->n_inputs; i < e->p->n_nodes; i++)
        forward_node(w, i, n, note_versions);
}

/* What the loss is told of sample s of the chunk. */
static loss_call describe_loss(const worker *w, int s)
{
    const engine *e = w->e;
    const shape out = e->p->node[e->p->output].g.out;
    const size_t at = (size_t)w->image[s] * e->data.target.size;
    return (loss_call){.k = (int)shape_size(out),
                       .pixels = e->data.form == TARGET_MAP ? (int)e->data.target.size : 1,
                       .target = e->data.form,
                       .number = e->data.target.numbers ? e->data.target.numbers + at : NULL,
                       .values = e->data.target.floats ? e->data.target.floats + at : NULL,
                       .option = e->loss_option,
                       .scale = e->data.weight ? w->scale * e->data.weight[w->image[s]] : w->scale};
}

int lose(worker *w, int n, int learns)
{
    const engine *e = w->e;
    const plan_node *out = &e->p->node[e->p->output];
    for (int s = 0; s < n; s++) {
        const float *y = w->value[e->p->output] + (size_t)s * out->value_stride;
        float *dy = learns ? w->delta[0] + (size_t)s * out->value_stride : NULL;
        const loss_call c = describe_loss(w, s);
        double loss = e->loss->value(&c, y, dy);
        if (e->data.weight)
            loss *= (double)e->data.weight[w->image[s]];
        w->count.errors += e->loss->wrong ? e->loss->wrong(&c, y) : 0;
        /* On a grid of 2^-30 the sum of up to 2^23 is exact: whoever adds, in whatever order, gets the same bits. */
        w->count.loss += nearbyint(loss * 0x1p30) * 0x1p-30;
        if (!isfinite(loss))
            return s + 1;
    }
    return 0;
}

/* Describes the backward call of node i: its delta is complete, its inputs' are wanted where the plan says so. */
static void describe_backward(const engine *e, const worker *w, int i, int n, int first, call *c)
{
    const plan_node *node = &e->p->node[i];
    describe_call(e, w, i, n, c);
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
    c->dstate = w->dw + node->state_at;
}

/* Whether a step of one sample leaves the gradient of this layer unwritten. */
static int applies(const engine *e, const plan_node *node)
{
    const int decays = e->step.option[RULE_WEIGHT_DECAY] != 0 || e->step.option[RULE_L1] != 0;
    const plan_block *b = node->block < 0 ? NULL : &e->p->block[node->block];
    return node->kind->apply && b->first_user == b->final_user && e->rule->plain && !decays && !clips_gradients(e) &&
           !e->how->late;
}

const char *engine_loop(const engine *e, int i, enum pass pass)
{
    const plan_node *node = &e->p->node[i];
    const worker *w = e->worker[0];
    call c;
    if (!node->kind->loop)
        return NULL;
    if (w) {
        describe_backward(e, w, i, e->chunk, 1, &c);
    } else {
        memset(&c, 0, sizeof c);
        c.n = e->chunk;
        c.first = 1;
        c.pool = node->pool < 0 ? NULL : &e->p->node[node->pool].g;
    }
    static float written;
    c.dw = e->batch == 1 && applies(e, node) ? NULL : &written;
    return node->kind->loop(&node->g, &c, pass);
}

double engine_time(engine *e, int i, enum pass pass, long rounds)
{
    const plan_node *node = &e->p->node[i];
    worker *w = e->worker[0];
    const int unwritten = e->batch == 1 && applies(e, node);
    if (unwritten && pass == PASS_WEIGHT_GRADIENT)
        return -1;
    call c;
    if (pass == PASS_FORWARD)
        describe_call(e, w, i, e->chunk, &c);
    else
        describe_backward(e, w, i, e->chunk, 1, &c);
    if (unwritten)
        c.dw = NULL;
    if (pass == PASS_WEIGHT_GRADIENT)
        for (int k = 0; k < node->g.n_inputs; k++)
            c.dx[k].p = NULL;
    update_step step = e->step;
    step.lr = 0;
    step.t = 1;
    const float_mode old = flush_denormals();
    const int64_t from = nanoseconds();
    for (long r = 0; r < rounds; r++)
        if (pass == PASS_FORWARD)
            node->kind->forward(&node->g, &c);
        else if (pass == PASS_UPDATE && unwritten)
            shared_apply(&e->shared, node->kind, &node->g, &c, node->weight_at, node->weight_at, node->g.weight_size, 0,
                         w->own);
        else if (pass == PASS_UPDATE)
            shared_update(&e->shared, e->rule, node->weight_at, node->g.weight_size, w->dw, &step, w->own);
        else
            node->kind->backward(&node->g, &c);
    const double seconds = 1e-9 * (double)(nanoseconds() - from);
    restore_denormals(old);
    return seconds / (double)rounds / (pass == PASS_UPDATE ? e->batch : e->chunk);
}

/* The clock of a pass that is looked at; it stands still while the worker waits. */
static int64_t working(const worker *w) { return ticks() - w->count.waiting; }

static void layer_done(const engine *e, worker *w, int node)
{
    condition_gradient(e, node, w->dw);
    int from, to;
    stripes_of(e, node, &from, &to);
    memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
    if (e->how->layer_done)
        e->how->layer_done(w, node, from, to);
}

int learns_node(const engine *e, int i) { return plan_learns(e->p, i); }

void backward_node(worker *w, int i, int n, int first, int last, call *c)
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
    const plan_block *block = plan_block_of(e->p, i);
    if (w->trace && block)
        trace_read(w, i, EVENT_BACKWARD, 0);
    /* several users of a block add to one gradient */
    describe_backward(e, w, i, n, first && (!block || block->first_user == i), c);
    const int publishes = w->hooks && block;
    if (publishes && e->instant) {
        memset(w->dw + node->state_at, 0, node->g.state_size * sizeof *w->dw);
        shared_target(w->to, node->weight_at, w->dw, c);
    } else if (publishes && first && last && n == 1 && applies(e, node)) {
        c->dw = NULL;
        w->unwritten = c;
    }
    node->kind->backward(&node->g, c);
    if (publishes && e->instant) {
        shared_added(w->to, node->weight_at, node->g.weight_size, w->dw, w->own);
        shared_observe(w->to, e->p->isa, node->state_at, node->g.state_size, w->dw, node->g.state_rate, w->own);
    }
}

static void backward(const engine *e, worker *w, int n, int first, int last, int looked_at)
{
    for (int i = e->p->n_nodes - 1; i >= e->p->n_inputs; i--) {
        if (!learns_node(e, i))
            continue;
        const plan_block *block = plan_block_of(e->p, i);
        const int publishes = w->hooks && block;
        if (publishes && first && block->first_user == i && e->how->layer_begin) {
            int from, to;
            stripes_of(e, i, &from, &to);
            const int64_t since = looked_at ? working(w) : 0;
            e->how->layer_begin(w, i, from, to);
            if (looked_at)
                w->count.publish += working(w) - since;
        }
        call c;
        backward_node(w, i, n, first, last, &c);
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

int pick_step(worker *w, int64_t *begin, int64_t *end)
{
    engine *e = w->e;
    const int bounded = e->bounded && e->phase == TRAIN;
    if (bounded ? !take_off(w) : !goes_on(e))
        return 0;
    const int64_t step = e->phase == GRADIENTS ? e->end : e->phase == TRAIN ? e->batch : e->chunk;
    *begin = __atomic_fetch_add(&e->next, step, __ATOMIC_RELAXED);
    *end = *begin + step < e->end ? *begin + step : e->end;
    if (bounded && *begin >= e->end)
        land(w);
    return *begin < e->end;
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
        load_chunk(w, at, n);
        /* the step's next images; after its last the other workers most likely take a step each */
        expect_chunk(e, at + n < end ? at + n : end + (e->n_workers - 1) * (end - begin), n);
        forward(e, w, n, w->hooks && (!w->reads || (w->trace && w->reads == w->trace->copy)) && at == begin);
        if (e->phase == FORWARD) {
            for (int s = 0; s < n; s++)
                memcpy(e->out + (size_t)(at + s) * k, w->value[e->p->output] + (size_t)s * out->value_stride,
                       k * sizeof(float));
        } else if ((lost = lose(w, n, learns))) {
            fail(e, DIVERGED, at + lost - 1);
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

int train_step(worker *w, int64_t begin, int64_t end)
{
    const engine *e = w->e;
    const strategy *how = e->how;
    w->hooks = 1;
    w->scale = (e->instant ? -e->step.lr : 1.f) / (float)(end - begin);
    w->share = 1.f / (float)(end - begin);
    if (w->trace) {
        trace_event(w, EVENT_STEP, (uint32_t)((begin - e->trace->begin) / e->batch));
        w->reads = w->reads ? w->reads : w->trace->copy;
    }
    if (how->step_begin)
        how->step_begin(w);
    const int failed = pass_images(w, begin, end);
    if (!failed && how->step_done)
        how->step_done(w);
    for (int i = 0; !failed && !how->bounds && bounds_weights(w->e) && i < w->e->p->n_nodes; i++)
        bound_layer(w, i);
    if (w->e->bounded)
        land(w);
    w->hooks = 0;
    return failed;
}

int gradient_of(worker *w, int64_t begin, int64_t end, float scale, float *dw)
{
    float *own = w->dw;
    w->dw = dw;
    w->scale = w->share = scale;
    const int failed = pass_images(w, begin, end);
    w->dw = own;
    return failed;
}
