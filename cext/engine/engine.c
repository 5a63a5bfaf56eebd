/* Workers and phases; see engine.h. */
#include "threads.h"

#include "engine.h"
#include "ticks.h"
#include "trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *aligned_zeros(size_t bytes)
{
    void *p = aligned_alloc(4096, round_up(bytes, 4096));
    if (p)
        memset(p, 0, bytes);
    return p;
}

/* ---- the weight vector and its stripes ---- */

static int cut_stripes(engine *e, float *weights, float *const *moment, size_t stripe_floats)
{
    const plan *p = e->p;
    shared_weights *s = &e->shared;
    s->w = weights;
    s->size = p->weight_size;
    memcpy(s->moment, moment, sizeof s->moment);
    for (int i = 0; i < p->n_nodes; i++)
        s->n_stripes += (int)((p->node[i].g.weight_size + stripe_floats - 1) / stripe_floats);
    s->stripe = e->stripe = calloc((size_t)s->n_stripes + 1, sizeof *e->stripe);
    s->state = aligned_zeros(((size_t)s->n_stripes + 1) * sizeof *s->state);
    if (!e->stripe || !s->state)
        return -1;
    int k = 0;
    for (int i = 0; i < p->n_nodes; i++) {
        const size_t size = p->node[i].g.weight_size;
        e->n_layers += size > 0;
        for (size_t at = 0; at < size; at += stripe_floats, k++) {
            e->stripe[k].at = p->node[i].weight_at + at;
            e->stripe[k].size = size - at < stripe_floats ? size - at : stripe_floats;
            e->stripe[k].node = i;
            e->stripe[k].layer = e->n_layers - 1;
        }
    }
    e->layer = calloc((size_t)e->n_layers + 1, sizeof *e->layer);
    return e->layer ? 0 : -1;
}

void stripes_of(const engine *e, int node, int *from, int *to)
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

shared_weights *replica_new(const engine *e, const shared_weights *of)
{
    shared_weights *s = malloc(sizeof *s);
    const size_t bytes = e->p->weight_size * sizeof(float), states = ((size_t)of->n_stripes + 1) * sizeof *s->state;
    int missing = !s;
    if (s) {
        *s = *of;
        missing = !(s->w = aligned_zeros(bytes + 1));
        missing |= !(s->state = aligned_zeros(states));
        for (int i = 0; i < e->rule->n_moments; i++)
            missing |= !(s->moment[i] = aligned_zeros(bytes + 1));
    }
    if (missing) {
        replica_free(s);
        return NULL;
    }
    memcpy(s->w, of->w, bytes);
    memcpy(s->state, of->state, states);
    for (int i = 0; i < e->rule->n_moments; i++)
        memcpy(s->moment[i], of->moment[i], bytes);
    return s;
}

void replica_free(shared_weights *s)
{
    if (!s)
        return;
    free(s->w);
    free(s->state);
    for (int i = 0; i < MAX_MOMENTS; i++)
        free(s->moment[i]);
    free(s);
}

void read_copy(worker *w, float *copy)
{
    for (int k = 0; k < w->to->n_stripes; k++) {
        w->seen[k] = stripe_version(&w->to->state[k]);
        shared_copy(w->to, w->to->stripe[k].at, w->to->stripe[k].size, copy);
    }
    w->reads = copy;
}

void publish_stripe(worker *w, int k)
{
    engine *e = w->e;
    stripe_state *t = &w->to->state[k];
    const size_t at = e->stripe[k].at, size = e->stripe[k].size;
    const uint32_t version = stripe_version(t);
    const uint32_t stale = version - w->version[k];
    w->step.t = version + 1;
    w->step.lr = step_rate(e, stale);
    if (w->trace)
        trace_event(w, EVENT_PUBLISH, (uint32_t)k);
    if (w->unwritten && !w->pending[k]) { /* what waits has been written down */
        const plan_node *node = &e->p->node[e->stripe[k].node];
        shared_apply(w->to, node->kind, &node->g, w->unwritten, node->weight_at, at, size, w->step.lr, w->own);
    } else
        shared_update(w->to, e->rule, at, size, w->dw, &w->step, w->own);
    const uint32_t others = (e->how->unlocked ? stripe_count(t) : stripe_advance(t)) - version;
    if (others)
        w->layer[e->stripe[k].layer].overlaps += others;
    count_update(w, k, stale);
}

float step_rate(const engine *e, uint32_t stale)
{
    if (!e->step_scale)
        return e->step.lr;
    return e->step.lr * e->step_scale[stale < STALENESS_BINS ? stale : STALENESS_BINS - 1];
}

void count_update(worker *w, int k, uint32_t stale)
{
    layer_tally *t = &w->layer[w->e->stripe[k].layer];
    t->updates++;
#if CHAOS_TELEMETRY
    t->staleness[stale < STALENESS_BINS ? stale : STALENESS_BINS - 1]++;
    t->staleness_sum += stale;
    if (stale > t->staleness_max)
        t->staleness_max = stale;
    if (w->pending[k])
        t->pending += ticks() - w->postponed[k];
#else
    (void)stale;
#endif
}

int stripe_learns(const engine *e, int k) { return e->p->node[e->stripe[k].node].n_deltas > 0; }
void count_lock_failure(worker *w, int k) { w->layer[w->e->stripe[k].layer].lock_failures++; }

void postpone_stripe(worker *w, int k)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[e->stripe[k].node];
    w->pending[k] = 1;
    w->postponed[k] = ticks();
    w->n_pending++;
    if (w->trace)
        trace_event(w, EVENT_POSTPONE, (uint32_t)k);
    if (w->unwritten) {
        memset(w->dw + e->stripe[k].at, 0, e->stripe[k].size * sizeof(float));
        node->kind->apply(&node->g, w->unwritten, e->stripe[k].at - node->weight_at, e->stripe[k].size,
                          w->dw + node->weight_at, -1);
    }
}

void wait_begins(worker *w)
{
    if (!w->waits_since)
        w->waits_since = ticks();
}

void wait_ends(worker *w)
{
    if (w->waits_since)
        w->count.waiting += ticks() - w->waits_since;
    w->waits_since = 0;
}

void wait_briefly(void)
{
#if defined(__x86_64__)
    _mm_pause();
#endif
}

void wait_for_core(void) { sched_yield(); }

void wait_round(int round)
{
    if (round < 64)
        wait_briefly();
    else
        wait_for_core();
}

/* ---- the memory of one worker ---- */

/* Places a block of n elements of `size` bytes at *used, on a cache line of its own; NULL base: only counts. */
static void *place(char *base, size_t *used, size_t n, size_t size)
{
    void *at = base ? base + *used : NULL;
    *used += round_up(n * size, 128);
    return at;
}

static size_t lay_out(worker *w, const engine *e, char *base)
{
    const plan *p = e->p;
    const int n_stripes = e->shared.n_stripes, chunk = e->chunk;
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
    w->own = place(base, &used, CHAOS_CAREFUL ? p->weight_size * (size_t)(1 + e->rule->n_moments) : 0, sizeof(float));
    w->seen = place(base, &used, (size_t)n_stripes, sizeof *w->seen);
    w->version = place(base, &used, (size_t)n_stripes, sizeof *w->version);
    w->pending = place(base, &used, (size_t)n_stripes, sizeof *w->pending);
    w->postponed = place(base, &used, (size_t)n_stripes, sizeof *w->postponed);
    w->layer = place(base, &used, (size_t)e->n_layers, sizeof *w->layer);
    w->label = place(base, &used, (size_t)chunk, sizeof *w->label);
    w->room = place(base, &used, e->how->room ? e->how->room(e) : 0, sizeof(float));
    return used;
}

size_t engine_worker_bytes(const engine *e)
{
    worker w;
    return sizeof w + lay_out(&w, e, NULL);
}

/* In the worker's thread, so that the pages are near its core. */
worker *worker_new(engine *e, int id)
{
    worker *w = aligned_alloc(128, round_up(sizeof *w, 128));
    if (!w)
        return NULL;
    memset(w, 0, sizeof *w);
    char *memory = aligned_zeros(lay_out(w, e, NULL));
    if (!memory) {
        free(w);
        return NULL;
    }
    lay_out(w, e, memory);
    w->memory = (float *)memory;
    w->e = e;
    w->id = id;
    w->to = &e->shared;
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
        c->w = w->reads ? w->reads + node->weight_at
                        : shared_read(w->to, node->weight_at, node->g.weight_size, w->own);
}

void load_chunk(worker *w, int64_t at, int n)
{
    const engine *e = w->e;
    for (int s = 0; s < n; s++) {
        const int64_t image = e->data.order ? e->data.order[at + s] : at + s;
        load_sample(e, w, s, image);
        w->label[s] = e->data.labels ? (int)e->data.labels[image] : 0;
    }
}

void forward_node(worker *w, int i, int n, int note_versions)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[i];
    if (w->trace && node->g.weight_size)
        trace_read(w, i, EVENT_FORWARD, note_versions);
    else if (note_versions && node->g.weight_size) {
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
    for (int i = 1; i < e->p->n_nodes; i++)
        forward_node(w, i, n, note_versions);
}

int lose(worker *w, int n, int learns)
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
static int applies(const engine *e, const plan_node *node)
{
    const int decays = e->step.option[RULE_WEIGHT_DECAY] != 0 || e->step.option[RULE_L1] != 0;
    return node->kind->apply && e->rule->plain && !decays && !clips_gradients(e) && !e->how->late;
}

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

int64_t working(const worker *w) { return ticks() - w->count.waiting; }

static void layer_done(const engine *e, worker *w, int node)
{
    condition_gradient(e, node, w->dw);
    int from, to;
    stripes_of(e, node, &from, &to);
    memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
    if (e->how->layer_done)
        e->how->layer_done(w, node, from, to);
}

int learns_node(const engine *e, int i)
{
    const plan_node *node = &e->p->node[i];
    return node->needs_gradient && node->n_deltas;
}

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
    if (w->trace && node->g.weight_size)
        trace_read(w, i, EVENT_BACKWARD, 0);
    describe_backward(e, w, i, n, first, c);
    const int publishes = w->hooks && node->g.weight_size;
    if (publishes && e->instant)
        shared_target(w->to, node->weight_at, w->dw, c);
    else if (publishes && first && last && n == 1 && applies(e, node)) {
        c->dw = NULL;
        w->unwritten = c;
    }
    node->kind->backward(&node->g, c);
    if (publishes && e->instant)
        shared_added(w->to, node->weight_at, node->g.weight_size, w->dw, w->own);
}

static void backward(const engine *e, worker *w, int n, int first, int last, int looked_at)
{
    for (int i = e->p->n_nodes - 1; i > 0; i--) {
        if (!learns_node(e, i))
            continue;
        const int publishes = w->hooks && e->p->node[i].g.weight_size;
        if (publishes && first && e->how->layer_begin) {
            int from, to;
            stripes_of(e, i, &from, &to);
            const int64_t since = looked_at ? working(w) : 0;
            e->how->layer_begin(w, i, from, to);
            if (looked_at)
                w->count.publish += working(w) - since;
        }
        call c;
        backward_node(w, i, n, first, last, &c);
        if (publishes && last) {
            const int64_t since = looked_at ? working(w) : 0;
            layer_done(e, w, i);
            if (looked_at)
                w->count.publish += working(w) - since;
        }
        w->unwritten = NULL;
    }
}

/* ---- the phase ---- */

void fail(engine *e, int why, int64_t at)
{
    int32_t none = DONE;
    if (__atomic_compare_exchange_n(&e->failure, &none, why, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        __atomic_store_n(&e->failed_at, at, __ATOMIC_RELAXED);
}

int lanes_of(int64_t batch, int wanted)
{
    const int64_t usual = (batch + LANE_IMAGES - 1) / LANE_IMAGES, most = usual < MAX_LANES ? usual : MAX_LANES;
    const int64_t n = wanted ? wanted : most;
    return (int)(n < batch ? n : batch);
}

int64_t lane_begin(int64_t begin, int64_t end, int lanes, int j) { return begin + (end - begin) * j / lanes; }

int goes_on(const engine *e)
{
    return !__atomic_load_n(&e->stop, __ATOMIC_RELAXED) && !__atomic_load_n(&e->failure, __ATOMIC_RELAXED);
}

int meet(worker *w)
{
    engine *e = w->e;
    const int32_t meeting = __atomic_load_n(&e->meeting, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&e->arrived, 1, __ATOMIC_ACQ_REL) == e->n_workers) {
        __atomic_store_n(&e->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&e->meeting, meeting + 1, __ATOMIC_RELEASE);
    }
    int failed = 0;
    for (int round = 0; __atomic_load_n(&e->meeting, __ATOMIC_ACQUIRE) == meeting && !failed; round++) {
        wait_begins(w);
        failed = __atomic_load_n(&e->failure, __ATOMIC_RELAXED) ? -1 : 0;
        if (round < 1000)
            wait_briefly();
        else
            wait_for_core();
    }
    wait_ends(w);
    return failed;
}

/* ---- the bound on staleness ----
 *
 * What can make an update late is the steps that are under way during its own: those that were when it began (`others`)
 * and those that have begun since. No step may begin that would make these more than the bound, for itself or for another.
 * Who is under way never waits here, so somebody always gets on. */

struct flight {
    int64_t others, begun;
    int under_way;
};

static void hold_gate(engine *e)
{
    int32_t open = 0;
    for (int round = 0; !__atomic_compare_exchange_n(&e->gate, &open, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED); round++) {
        wait_round(round);
        open = 0;
    }
}

static void leave_gate(engine *e) { __atomic_store_n(&e->gate, 0, __ATOMIC_RELEASE); }

static int may_begin(const engine *e)
{
    if (e->under_way > e->max_staleness)
        return 0;
    for (int i = 0; i < e->n_workers; i++) {
        const struct flight *f = &e->flight[i];
        if (f->under_way && f->others + e->begun - f->begun >= e->max_staleness)
            return 0;
    }
    return 1;
}

/* Waits until the worker may begin a step; 0 if the phase is to end. */
static int take_off(worker *w)
{
    engine *e = w->e;
    for (int round = 0; goes_on(e); round++) {
        hold_gate(e);
        const int may = may_begin(e);
        if (may)
            e->flight[w->id] = (struct flight){e->under_way++, ++e->begun, 1};
        leave_gate(e);
        if (may) {
            wait_ends(w);
            return 1;
        }
        wait_begins(w);
        wait_round(round);
    }
    wait_ends(w);
    return 0;
}

static void land(worker *w)
{
    hold_gate(w->e);
    w->e->under_way -= w->e->flight[w->id].under_way;
    w->e->flight[w->id].under_way = 0;
    leave_gate(w->e);
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

/* Images [begin, end) through the network, in chunks, and back where the phase learns. */
static int pass_images(worker *w, int64_t begin, int64_t end)
{
    engine *e = w->e;
    const plan_node *out = &e->p->node[e->p->output];
    const size_t k = shape_size(out->g.out);
    const int learns = e->phase != TEST && e->phase != FORWARD, trains = e->phase == TRAIN;
    const int looked_at = trains && w->count.passes++ % SAMPLED == 0;
    const int64_t started = trains ? working(w) : 0;
    for (int64_t at = begin; at < end; at += e->chunk) {
        const int n = end - at < e->chunk ? (int)(end - at) : e->chunk;
        const int64_t loading = looked_at ? working(w) : 0, published = w->count.publish;
        load_chunk(w, at, n);
        forward(e, w, n, w->hooks && (!w->reads || w->trace) && at == begin);
        if (e->phase == FORWARD) {
            for (int s = 0; s < n; s++)
                memcpy(e->out + (size_t)(at + s) * k, w->value[e->p->output] + (size_t)s * out->value_stride,
                       k * sizeof(float));
        } else if (lose(w, n, learns)) {
            fail(e, DIVERGED, at);
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
    if (w->trace) {
        trace_event(w, EVENT_STEP, (uint32_t)((begin - e->trace->begin) / e->batch));
        w->reads = w->trace->copy;
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
    w->scale = scale;
    const int failed = pass_images(w, begin, end);
    w->dw = own;
    return failed;
}

static void train(worker *w)
{
    const strategy *how = w->e->how;
    int64_t begin, end;
    if (how->phase_begin)
        how->phase_begin(w);
    if (how->train)
        how->train(w);
    else
        while (pick_step(w, &begin, &end) && !train_step(w, begin, end))
            ;
    if (how->phase_done)
        how->phase_done(w);
}

static void form_lanes(worker *w)
{
    engine *e = w->e;
    const int64_t begin = e->lanes.begin, end = e->lanes.end;
    for (int64_t i; goes_on(e) && (i = __atomic_fetch_add(&e->next, 1, __ATOMIC_RELAXED)) < e->end;) {
        const int j = e->lanes.first + (int)i;
        if (gradient_of(w, lane_begin(begin, end, e->lanes.count, j), lane_begin(begin, end, e->lanes.count, j + 1),
                        1.f / (float)(end - begin), e->out + (size_t)i * e->p->weight_size))
            return;
    }
}

static void apply_parts(worker *w)
{
    engine *e = w->e;
    int from, to;
    for (int64_t i; (i = __atomic_fetch_add(&e->next, 1, __ATOMIC_RELAXED)) < e->end;) {
        stripes_of_part(e, (int)i, &from, &to);
        for (int k = from; k < to; k++) {
            memcpy(w->dw + e->stripe[k].at, e->gradient + e->stripe[k].at, e->stripe[k].size * sizeof(float));
            w->version[k] = stripe_version(&w->to->state[k]);
        }
        publish_part(w, (int)i);
    }
}

void worker_begin(worker *w)
{
    const engine *e = w->e;
    memset(&w->count, 0, sizeof w->count);
    w->step = e->step;
    memset(w->layer, 0, (size_t)e->n_layers * sizeof *w->layer);
    w->count.begin = ticks();
}

static void work(engine *e, int id)
{
    worker *w = e->worker[id];
    int64_t begin, end;
    if (!w && !(w = e->worker[id] = worker_new(e, id))) {
        fail(e, NO_MEMORY, 0);
        return;
    }
    worker_begin(w);
    if (e->phase == TRAIN) {
        w->trace = e->trace ? &e->trace->lane[id] : NULL;
        train(w);
        w->trace = NULL;
        w->to = &e->shared;
        w->reads = NULL;
    } else if (e->phase == LANE_GRADIENTS)
        form_lanes(w);
    else if (e->phase == APPLY)
        apply_parts(w);
    else
        while (pick_step(w, &begin, &end)) {
            w->scale = 1.f / (float)(end - begin);
            if (pass_images(w, begin, end))
                break;
        }
    w->count.end = ticks();
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
    to->lock_failures += from->lock_failures;
    to->give_ways += from->give_ways;
    to->dropped += from->dropped;
    to->passing += from->passing;
    to->waiting += from->waiting;
    to->passes += from->passes;
    to->forward += from->forward;
    to->backward += from->backward;
    to->publish += from->publish;
}

static void merge_layer(tally *all, layer_tally *to, const layer_tally *from)
{
    to->updates += from->updates;
    to->staleness_sum += from->staleness_sum;
    to->lock_failures += from->lock_failures;
    to->overlaps += from->overlaps;
    to->pending += from->pending;
    if (from->staleness_max > to->staleness_max)
        to->staleness_max = from->staleness_max;
    const int last = from->staleness_max < STALENESS_BINS ? (int)from->staleness_max : STALENESS_BINS - 1;
    for (int i = 0; i <= last; i++)
        to->staleness[i] += from->staleness[i];
    all->updates += from->updates;
    all->lock_failures += from->lock_failures;
    all->staleness_sum += from->staleness_sum;
    if (from->staleness_max > all->staleness_max)
        all->staleness_max = from->staleness_max;
}

/* The phase lasts from when the first worker begins until the last one ends; who is not there yet, or no more, waits. What
 * is left of a worker's time outside of passes and waiting is the strategy's. Within passes the looked-at ones tell how the
 * time is divided. */
static void split_time(engine *e, int team)
{
    const double tick = e->tick;
    const tally *t = &e->total;
    int64_t begin = INT64_MAX, end = INT64_MIN, present = 0;
    for (int i = 0; i < team; i++)
        if (e->worker[i]) {
            const tally *w = &e->worker[i]->count;
            begin = w->begin < begin ? w->begin : begin;
            end = w->end > end ? w->end : end;
            present += w->end - w->begin;
        }
    const double total = begin < end ? (double)(end - begin) * team : 0, looked_at = (double)(t->forward + t->backward + t->publish);
    const double outside = (double)(present - t->passing - t->waiting), share = looked_at > 0 ? (double)t->passing / looked_at : 0;
    e->time.total = total * tick;
    e->time.wait = (total - (double)(present - t->waiting)) * tick;
    if (e->phase == TRAIN) {
        e->time.forward = (double)t->forward * share * tick;
        e->time.backward = (double)t->backward * share * tick;
        e->time.publish = ((double)t->publish * share + outside) * tick;
    }
}

void engine_begin(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out)
{
    e->phase = phase;
    e->data = *data;
    e->step.lr = lr;
    e->out = out;
    e->failure = DONE;
    e->arrived = 0; /* a failed phase leaves them waiting */
    e->failed_at = 0;
    if (e->trace)
        e->trace->begin = begin;
    /* engine_position may be reading: whoever sees the new end sees no counter of an earlier phase */
    __atomic_store_n(&e->next, begin, __ATOMIC_RELAXED);
    __atomic_store_n(&e->end, end, __ATOMIC_RELEASE);
    memset(&e->total, 0, sizeof e->total);
    memset(e->layer, 0, (size_t)e->n_layers * sizeof *e->layer);
    e->time = (time_split){0, 0, 0, 0, 0};
}

void engine_merge(engine *e, int team)
{
    for (int i = 0; i < team; i++)
        if (e->worker[i]) {
            merge(&e->total, &e->worker[i]->count);
            for (int l = 0; l < e->n_layers; l++)
                merge_layer(&e->total, &e->layer[l], &e->worker[i]->layer[l]);
        }
}

int engine_run(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out)
{
    engine_begin(e, phase, data, begin, end, lr, out);
    const int team = phase == GRADIENTS ? 1 : e->n_workers;
    const int64_t from[2] = {ticks(), nanoseconds()};
    if (run_team(team, take_part, e) < team)
        return NO_TEAM;
    const int64_t to[2] = {ticks(), nanoseconds()};
    engine_merge(e, team);
    e->tick = to[0] > from[0] ? 1e-9 * (double)(to[1] - from[1]) / (double)(to[0] - from[0]) : 0;
    split_time(e, team);
    if (phase == TRAIN && e->how->phase_end)
        e->how->phase_end(e);
    if (e->failure)
        return e->failure;
    return e->total.images < end - begin ? STOPPED : DONE;
}

int engine_lanes(engine *e, const images *data, int64_t begin, int64_t end, int lanes, int first, int n, float *out)
{
    e->lanes.begin = begin;
    e->lanes.end = end;
    e->lanes.count = lanes;
    e->lanes.first = first;
    const int status = engine_run(e, LANE_GRADIENTS, data, 0, n, 0, out);
    const int64_t wanted = lane_begin(begin, end, lanes, first + n) - lane_begin(begin, end, lanes, first);
    return status != DONE && status != STOPPED ? status : e->total.images == wanted ? DONE : STOPPED;
}

int engine_apply(engine *e, const float *gradient, float lr)
{
    static const images none;
    e->gradient = gradient;
    const int status = engine_run(e, APPLY, &none, 0, n_parts(e), lr, NULL);
    return status == STOPPED ? DONE : status;
}

void engine_stop(engine *e) { __atomic_store_n(&e->stop, 1, __ATOMIC_RELAXED); }
void engine_clear(engine *e) { __atomic_store_n(&e->stop, 0, __ATOMIC_RELAXED); }

int64_t engine_position(const engine *e)
{
    const int64_t end = __atomic_load_n(&e->end, __ATOMIC_ACQUIRE), next = __atomic_load_n(&e->next, __ATOMIC_RELAXED);
    return next < end ? next : end;
}

engine *engine_new(const engine_parts *q)
{
    engine *e = aligned_alloc(128, round_up(sizeof *e, 128));
    if (!e)
        return NULL;
    memset(e, 0, sizeof *e);
    e->p = q->p;
    e->how = q->how;
    e->rule = q->rule;
    e->loss = q->loss;
    e->n_workers = q->n_workers;
    e->batch = q->batch;
    e->chunk = q->batch < MAX_CHUNK ? q->batch : MAX_CHUNK;
    if (q->strategy_options)
        memcpy(e->option, q->strategy_options, sizeof e->option);
    e->bounded = q->bounded;
    e->max_staleness = q->max_staleness;
    e->flight = calloc((size_t)q->n_workers, sizeof *e->flight);
    if (q->rule_options)
        memcpy(e->step.option, q->rule_options, sizeof e->step.option);
    e->worker = calloc((size_t)q->n_workers, sizeof *e->worker);
    if (q->cpus && (e->cpu = malloc((size_t)q->n_workers * sizeof *e->cpu)))
        memcpy(e->cpu, q->cpus, (size_t)q->n_workers * sizeof *e->cpu);
    if (!e->worker || !e->flight || (q->cpus && !e->cpu) ||
        cut_stripes(e, q->weights, q->moment, round_up(q->stripe_bytes / sizeof(float), LANES)) ||
        (q->how->open && q->how->open(e))) {
        engine_free(e);
        return NULL;
    }
    return e;
}

void engine_free(engine *e)
{
    if (!e)
        return;
    if (e->how->close)
        e->how->close(e);
    for (int i = 0; e->worker && i < e->n_workers; i++)
        if (e->worker[i]) {
            free(e->worker[i]->memory);
            free(e->worker[i]);
        }
    free(e->worker);
    trace_free(e->trace);
    free(e->cpu);
    free(e->flight);
    free(e->stripe);
    free(e->layer);
    free(e->shared.state);
    free(e);
}
