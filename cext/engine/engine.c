/* Workers and phases; see engine.h. */
#include "threads.h"

#include "engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the weight vector and its stripes ---- */

static int cut_stripes(engine *e, float *weights, size_t stripe_floats)
{
    const plan *p = e->p;
    shared_weights *s = &e->shared;
    s->w = weights;
    for (int i = 0; i < p->n_nodes; i++)
        s->n_stripes += (int)((p->node[i].g.weight_size + stripe_floats - 1) / stripe_floats);
    s->stripe = calloc((size_t)s->n_stripes + 1, sizeof *s->stripe);
    s->state = aligned_alloc(128, ((size_t)s->n_stripes + 1) * sizeof *s->state);
    if (!s->stripe || !s->state)
        return -1;
    memset(s->state, 0, ((size_t)s->n_stripes + 1) * sizeof *s->state);
    int k = 0;
    for (int i = 0; i < p->n_nodes; i++) {
        const size_t size = p->node[i].g.weight_size;
        for (size_t at = 0; at < size; at += stripe_floats, k++) {
            s->stripe[k].at = p->node[i].weight_at + at;
            s->stripe[k].size = size - at < stripe_floats ? size - at : stripe_floats;
            s->stripe[k].node = i;
        }
    }
    return 0;
}

static void stripes_of(const engine *e, int node, int *from, int *to)
{
    const shared_weights *s = &e->shared;
    int a = 0, b = s->n_stripes; /* stripes are sorted by node */
    while (a < b) {
        int m = (a + b) / 2;
        if (s->stripe[m].node < node)
            a = m + 1;
        else
            b = m;
    }
    for (b = a; b < s->n_stripes && s->stripe[b].node == node;)
        b++;
    *from = a;
    *to = b;
}

void publish_stripe(worker *w, int k)
{
    engine *e = w->e;
    stripe_state *t = &e->shared.state[k];
    const size_t at = e->shared.stripe[k].at, size = e->shared.stripe[k].size;
    if (w->unwritten) {
        const plan_node *node = &e->p->node[e->shared.stripe[k].node];
        shared_apply(&e->shared, node->kind, &node->g, w->unwritten, node->weight_at, at, size, e->lr, w->own);
    } else
        shared_update(&e->shared, e->rule, at, size, w->dw, e->lr, w->own);
    const uint32_t stale = stripe_version(t) - w->version[k];
    stripe_advance(t);
    w->count.updates++;
    w->count.staleness[stale < STALENESS_BINS ? stale : STALENESS_BINS - 1]++;
    w->count.staleness_sum += stale;
    if (stale > w->count.staleness_max)
        w->count.staleness_max = stale;
}

void postpone_stripe(worker *w, int k)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[e->shared.stripe[k].node];
    w->pending[k] = 1;
    w->n_pending++;
    if (w->unwritten) {
        memset(w->dw + e->shared.stripe[k].at, 0, e->shared.stripe[k].size * sizeof(float));
        node->kind->apply(&node->g, w->unwritten, e->shared.stripe[k].at - node->weight_at, e->shared.stripe[k].size,
                          w->dw + node->weight_at, -1);
    }
}

void wait_briefly(void)
{
#if defined(__x86_64__)
    _mm_pause();
#endif
}

void wait_for_core(void) { sched_yield(); }

/* ---- the memory of one worker ---- */

/* Places a block of n elements of `size` bytes at *used, on a cache line of its own; NULL base: only counts. */
static void *place(char *base, size_t *used, size_t n, size_t size)
{
    void *at = base ? base + *used : NULL;
    *used += round_up(n * size, 128);
    return at;
}

static size_t lay_out(worker *w, const plan *p, int n_stripes, int chunk, char *base)
{
    size_t used = 0;
    float **value = place(base, &used, (size_t)p->n_nodes, sizeof *value);
    float **keep = place(base, &used, (size_t)p->n_nodes, sizeof *keep);
    float **delta = place(base, &used, (size_t)p->n_edges, sizeof *delta);
    for (int i = 0; i < p->n_nodes; i++) {
        float *v = place(base, &used, p->node[i].value_stride * (size_t)chunk, sizeof(float));
        float *k = place(base, &used, p->node[i].g.keep_size * (size_t)chunk, sizeof(float));
        if (base)
            value[i] = v, keep[i] = k;
    }
    for (int i = 0; i < p->n_edges; i++) {
        float *d = place(base, &used, p->node[p->edge[i].node].value_stride * (size_t)chunk, sizeof(float));
        if (base)
            delta[i] = d;
    }
    w->value = value;
    w->keep = keep;
    w->delta = delta;
    w->scratch = place(base, &used, p->scratch_size, sizeof(float));
    w->dw = place(base, &used, p->weight_size, sizeof(float));
    w->own = place(base, &used, CHAOS_CAREFUL ? p->weight_size : 0, sizeof(float));
    w->seen = place(base, &used, (size_t)n_stripes, sizeof *w->seen);
    w->version = place(base, &used, (size_t)n_stripes, sizeof *w->version);
    w->pending = place(base, &used, (size_t)n_stripes, sizeof *w->pending);
    w->label = place(base, &used, (size_t)chunk, sizeof *w->label);
    return used;
}

size_t engine_worker_bytes(const plan *p, int n_stripes, int chunk)
{
    worker w;
    return sizeof w + lay_out(&w, p, n_stripes, chunk, NULL);
}

/* In the worker's thread, so that the pages are near its core. */
static worker *worker_new(engine *e, int id)
{
    worker *w = aligned_alloc(128, round_up(sizeof *w, 128));
    if (!w)
        return NULL;
    memset(w, 0, sizeof *w);
    const size_t bytes = round_up(lay_out(w, e->p, e->shared.n_stripes, e->chunk, NULL), 4096);
    char *memory = aligned_alloc(4096, bytes);
    if (!memory) {
        free(w);
        return NULL;
    }
    memset(memory, 0, bytes);
    lay_out(w, e->p, e->shared.n_stripes, e->chunk, memory);
    w->memory = (float *)memory;
    w->e = e;
    w->id = id;
    return w;
}

/* ---- one pass over a chunk of samples ---- */

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

static void describe_call(const engine *e, const worker *w, int i, int n, call *c)
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
        c->w = shared_read(&e->shared, node->weight_at, node->g.weight_size, w->own);
}

static void forward(const engine *e, worker *w, int n, int note_versions)
{
    int stripe = 0;
    for (int i = 1; i < e->p->n_nodes; i++) {
        const plan_node *node = &e->p->node[i];
        if (note_versions && node->g.weight_size)
            for (; stripe < e->shared.n_stripes && e->shared.stripe[stripe].node <= i; stripe++)
                w->seen[stripe] = stripe_version(&e->shared.state[stripe]);
        call c;
        describe_call(e, w, i, n, &c);
        node->kind->forward(&node->g, &c);
    }
}

/* Loss of the chunk; writes the output's delta when `scale` is not 0. */
static int lose(const engine *e, worker *w, int n, float scale)
{
    const plan_node *out = &e->p->node[e->p->output];
    const int k = (int)shape_size(out->g.out);
    for (int s = 0; s < n; s++) {
        const float *y = w->value[e->p->output] + (size_t)s * out->value_stride;
        float *dy = scale == 0 ? NULL : w->delta[0] + (size_t)s * out->value_stride;
        const double loss = e->loss->value(k, y, w->label[s], scale, dy);
        int best = 0;
        for (int j = 1; j < k; j++)
            if (!(y[j] <= y[best]))
                best = j;
        w->count.errors += best != w->label[s];
        w->count.loss += loss;
        if (!isfinite(loss))
            return -1;
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
}

/* Whether a step of one sample leaves the gradient of this layer unwritten. */
static int applies(const engine *e, const plan_node *node) { return node->kind->apply && e->rule->plain; }

const char *engine_loop(const engine *e, int i, enum pass pass)
{
    const plan_node *node = &e->p->node[i];
    const geometry *pool = node->pool < 0 ? NULL : &e->p->node[node->pool].g;
    return node->kind->loop ? node->kind->loop(&node->g, pool, e->batch == 1 ? 1 : e->chunk, pass) : NULL;
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
    const float_mode old = flush_denormals();
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long r = 0; r < rounds; r++)
        if (pass == PASS_FORWARD)
            node->kind->forward(&node->g, &c);
        else if (pass == PASS_UPDATE && unwritten)
            shared_apply(&e->shared, node->kind, &node->g, &c, node->weight_at, node->weight_at, node->g.weight_size, 0,
                         w->own);
        else if (pass == PASS_UPDATE)
            shared_update(&e->shared, e->rule, node->weight_at, node->g.weight_size, w->dw, 0, w->own);
        else
            node->kind->backward(&node->g, &c);
    clock_gettime(CLOCK_MONOTONIC, &to);
    restore_denormals(old);
    const double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    return seconds / (double)rounds / (pass == PASS_UPDATE ? e->batch : e->chunk);
}

static void layer_done(const engine *e, worker *w, int node)
{
    int from, to;
    stripes_of(e, node, &from, &to);
    memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
    e->how->layer_done(w, node, from, to);
}

static void backward(const engine *e, worker *w, int n, int first, int last)
{
    for (int i = e->p->n_nodes - 1; i > 0; i--) {
        const plan_node *node = &e->p->node[i];
        if (!node->needs_gradient || !node->n_deltas)
            continue;
        const int publishes = e->phase == TRAIN && node->g.weight_size;
        if (publishes && first && e->how->layer_begin) {
            int from, to;
            stripes_of(e, i, &from, &to);
            e->how->layer_begin(w, i, from, to);
        }
        float *dy = w->delta[node->first_delta];
        for (int d = e->p->edge[node->first_delta].next; d >= 0; d = e->p->edge[d].next)
            for (int s = 0; s < n; s++)
                e->p->isa->add(shape_size(node->g.out), dy + (size_t)s * node->value_stride,
                               w->delta[d] + (size_t)s * node->value_stride);
        call c;
        if (!node->skipped) {
            describe_backward(e, w, i, n, first, &c);
            if (publishes && first && last && n == 1 && applies(e, node)) {
                c.dw = NULL;
                w->unwritten = &c;
            }
            node->kind->backward(&node->g, &c);
        }
        if (publishes && last)
            layer_done(e, w, i);
        w->unwritten = NULL;
    }
}

/* ---- the phase ---- */

static void fail(engine *e, int why, int64_t at)
{
    int32_t none = DONE;
    if (__atomic_compare_exchange_n(&e->failure, &none, why, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        __atomic_store_n(&e->failed_at, at, __ATOMIC_RELAXED);
}

static void work(engine *e, int id)
{
    worker *w = e->worker[id];
    if (!w && !(w = e->worker[id] = worker_new(e, id))) {
        fail(e, NO_MEMORY, 0);
        return;
    }
    memset(&w->count, 0, sizeof w->count);
    const plan_node *out = &e->p->node[e->p->output];
    const size_t k = shape_size(out->g.out);
    const int learns = e->phase == TRAIN || e->phase == GRADIENTS;
    const int64_t step = e->phase == GRADIENTS ? e->end : e->phase == TRAIN ? e->batch : e->chunk;
    int running = 1;
    while (running && !__atomic_load_n(&e->stop, __ATOMIC_RELAXED) && !__atomic_load_n(&e->failure, __ATOMIC_RELAXED)) {
        const int64_t begin = __atomic_fetch_add(&e->next, step, __ATOMIC_RELAXED);
        if (begin >= e->end)
            break;
        const int64_t end = begin + step < e->end ? begin + step : e->end;
        for (int64_t at = begin; running && at < end; at += e->chunk) {
            const int n = end - at < e->chunk ? (int)(end - at) : e->chunk;
            for (int s = 0; s < n; s++) {
                const int64_t image = e->data.order ? e->data.order[at + s] : at + s;
                load_sample(e, w, s, image);
                w->label[s] = e->data.labels ? (int)e->data.labels[image] : 0;
            }
            forward(e, w, n, e->phase == TRAIN && at == begin);
            if (e->phase == FORWARD) {
                for (int s = 0; s < n; s++)
                    memcpy(e->out + (size_t)(at + s) * k, w->value[e->p->output] + (size_t)s * out->value_stride,
                           k * sizeof(float));
            } else if (lose(e, w, n, learns ? 1.f / (float)(end - begin) : 0)) {
                fail(e, DIVERGED, at);
                running = 0;
                break;
            }
            if (learns)
                backward(e, w, n, at == begin, at + n == end);
            w->count.images += n;
        }
    }
    if (e->phase == TRAIN && e->how->phase_done)
        e->how->phase_done(w);
}

/* Pinned before anything else, so that the worker's memory is near its CPU. */
static void take_part(void *arg, int id)
{
    engine *e = arg;
    affinity before;
    if (!e->cpu) {
        work(e, id);
    } else if (pin_thread(e->cpu[id], &before)) {
        work(e, id);
        unpin_thread(&before);
    } else {
        fail(e, NOT_PINNED, id);
    }
}

static void merge(tally *to, const tally *from)
{
    to->images += from->images;
    to->errors += from->errors;
    to->loss += from->loss;
    for (int i = 0; i < STALENESS_BINS; i++)
        to->staleness[i] += from->staleness[i];
    to->staleness_sum += from->staleness_sum;
    if (from->staleness_max > to->staleness_max)
        to->staleness_max = from->staleness_max;
    to->updates += from->updates;
    to->lock_failures += from->lock_failures;
    to->give_ways += from->give_ways;
}

int engine_run(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out)
{
    e->phase = phase;
    e->data = *data;
    e->lr = lr;
    e->out = out;
    e->failure = DONE;
    e->failed_at = 0;
    /* engine_position may be reading: whoever sees the new end sees no counter of an earlier phase */
    __atomic_store_n(&e->next, begin, __ATOMIC_RELAXED);
    __atomic_store_n(&e->end, end, __ATOMIC_RELEASE);
    memset(&e->total, 0, sizeof e->total);
    const int team = phase == GRADIENTS ? 1 : e->n_workers;
    if (run_team(team, take_part, e) < team)
        return NO_TEAM;
    for (int i = 0; i < team; i++)
        if (e->worker[i])
            merge(&e->total, &e->worker[i]->count);
    if (e->failure)
        return e->failure;
    return e->total.images < end - begin ? STOPPED : DONE;
}

void engine_stop(engine *e) { __atomic_store_n(&e->stop, 1, __ATOMIC_RELAXED); }
void engine_clear(engine *e) { __atomic_store_n(&e->stop, 0, __ATOMIC_RELAXED); }

int64_t engine_position(const engine *e)
{
    const int64_t end = __atomic_load_n(&e->end, __ATOMIC_ACQUIRE), next = __atomic_load_n(&e->next, __ATOMIC_RELAXED);
    return next < end ? next : end;
}

engine *engine_new(const plan *p, float *weights, int n_workers, const int *cpus, int batch, size_t stripe_bytes,
                   const strategy *how, const update_kind *rule, const loss_kind *loss)
{
    engine *e = aligned_alloc(128, round_up(sizeof *e, 128));
    if (!e)
        return NULL;
    memset(e, 0, sizeof *e);
    e->p = p;
    e->how = how;
    e->rule = rule;
    e->loss = loss;
    e->n_workers = n_workers;
    e->batch = batch;
    e->chunk = batch < MAX_CHUNK ? batch : MAX_CHUNK;
    e->worker = calloc((size_t)n_workers, sizeof *e->worker);
    if (cpus && (e->cpu = malloc((size_t)n_workers * sizeof *e->cpu)))
        memcpy(e->cpu, cpus, (size_t)n_workers * sizeof *e->cpu);
    if (!e->worker || (cpus && !e->cpu) || cut_stripes(e, weights, round_up(stripe_bytes / sizeof(float), LANES))) {
        engine_free(e);
        return NULL;
    }
    return e;
}

void engine_free(engine *e)
{
    if (!e)
        return;
    for (int i = 0; e->worker && i < e->n_workers; i++)
        if (e->worker[i]) {
            free(e->worker[i]->memory);
            free(e->worker[i]);
        }
    free(e->worker);
    free(e->cpu);
    free(e->shared.stripe);
    free(e->shared.state);
    free(e);
}
