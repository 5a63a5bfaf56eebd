/* Runs the C core without Python: for scripts/run_sanitizers.sh, which builds it with the tools that watch memory and
 * threads. Exits with 1 when a result is not what is known about it.
 *
 *   driver [networks]   every check on every instruction set here, with that many random networks (default 20)
 *   driver fault        reads one image more than there is, which AddressSanitizer must notice
 *
 * Every array handed to the core is an allocation of exactly its size. Random networks are the same on every machine. */
#define _GNU_SOURCE /* sched_getcpu */
#include "engine/bench.h"
#include "engine/distance.h"
#include "engine/finish.h"
#include "engine/exchange.h"
#include "engine/phase.h"
#include "replay/replay.h"
#include "engine/trace.h"
#include "registry.h"
#include "virtual/clock.h"
#include "virtual/orders.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures, n_networks, n_phases;
static int64_t lock_failures, late, latest; /* what contention there was: proof that the checks met some */
static char where[300];

__attribute__((format(printf, 2, 3))) static int expect(int right, const char *what, ...)
{
    if (!right) {
        va_list list;
        va_start(list, what);
        fprintf(stderr, "driver: %s: ", where);
        vfprintf(stderr, what, list);
        fputc('\n', stderr);
        va_end(list);
        failures++;
    }
    return right;
}

/* ---- chance ---- */

static uint64_t seed;

static int below(int n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static float between(float low, float high) { return low + (high - low) * (float)below(1 << 20) / (float)(1 << 20); }

static void *block(size_t n, size_t size)
{
    void *p = malloc(n * size);
    if (!p)
        abort();
    return p;
}

/* ---- networks ---- */

static const int nothing[1];
static const float no_number[1];

/* The numbers are the kind's options. Returns -1 when the geometry is impossible. */
static int layer(plan *p, const char *kind, int input, int channels, int n_options, const int *option)
{
    const char *reason;
    return plan_add(p,
                    &(plan_layer){.kind = kind,
                                  .n_inputs = 1,
                                  .input = &input,
                                  .channels = channels,
                                  .n_whole = n_options,
                                  .whole = option ? option : nothing,
                                  .real = no_number,
                                  .shares = -1},
                    &reason);
}

static int add(plan *p, int n, const int *input)
{
    const char *reason;
    return plan_add(
        p, &(plan_layer){.kind = "add", .n_inputs = n, .input = input, .whole = nothing, .real = no_number, .shares = -1},
        &reason);
}

static int act(plan *p, const char *kind, int input) { return layer(p, kind, input, 0, 0, NULL); }
static int linear(plan *p, int input, int outputs, int bias) { return layer(p, "linear", input, outputs, 1, &bias); }

static int pool(plan *p, int input, int kh, int kw, int sh, int sw)
{
    return layer(p, "max_pool2d", input, 0, 4, (const int[]){kh, kw, sh, sw});
}

static int conv(plan *p, int input, int channels, int k, int padding)
{
    const int q = padding;
    return layer(p, "conv2d", input, channels, 12, (const int[]){k, k, 1, 1, q, q, q, q, 1, 1, 1, 1});
}

static plan *begin(const instruction_set *isa, int c, int h, int w)
{
    const char *reason;
    plan *p = plan_new(isa, 0, NULL);
    if (!p || plan_add_input(p, (shape){c, h, w}, &reason) < 0)
        abort();
    return p;
}

static plan *finish(plan *p, int output)
{
    if (output < 0 || plan_finish(p, output) < 0)
        abort();
    return p;
}

static plan *digits(const instruction_set *isa)
{
    plan *p = begin(isa, 1, 18, 19);
    int x = conv(p, 0, 5, 4, 0);
    x = act(p, "tanh", pool(p, x, 2, 2, 2, 2));
    x = act(p, "scaled_tanh", pool(p, conv(p, x, 20, 3, 1), 3, 3, 3, 3));
    x = act(p, "relu", linear(p, act(p, "flatten", x), 33, 1));
    return finish(p, linear(p, x, 10, 1));
}

static plan *branches(const instruction_set *isa)
{
    plan *p = begin(isa, 2, 9, 8);
    const int a = act(p, "tanh", conv(p, 0, 6, 3, 1)), b = act(p, "relu", conv(p, a, 6, 3, 1));
    const int c = act(p, "sigmoid", conv(p, a, 6, 1, 0)), d = add(p, 4, (const int[]){a, b, c, a});
    const int f = linear(p, act(p, "flatten", pool(p, d, 2, 2, 2, 2)), 7, 1);
    const int g = linear(p, act(p, "flatten", pool(p, b, 3, 3, 3, 3)), 7, 0);
    return finish(p, linear(p, act(p, "tanh", add(p, 2, (const int[]){f, g})), 5, 1));
}

/* Everything a convolution can be, each before a pooling that hands its winners through. */
static plan *separable(const instruction_set *isa)
{
    plan *p = begin(isa, 3, 14, 13);
    int x = pool(p, conv(p, 0, 12, 3, 1), 1, 3, 1, 3);
    x = layer(p, "conv2d", x, 12, 12, (const int[]){3, 2, 1, 1, 1, 0, 2, 1, 1, 1, 1, 12});
    x = act(p, "tanh", pool(p, x, 2, 2, 2, 2));
    x = layer(p, "conv2d", x, 20, 12, (const int[]){2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2});
    x = act(p, "relu", pool(p, x, 2, 2, 2, 3));
    x = layer(p, "conv2d", x, 9, 12, (const int[]){2, 2, 2, 1, 2, 2, 1, 0, 0, 2, 1, 1});
    return finish(p, linear(p, act(p, "flatten", x), 6, 1));
}

static plan *wide(const instruction_set *isa)
{
    plan *p = begin(isa, 150, 1, 1);
    const int x = act(p, "relu", linear(p, 0, 130, 1));
    return finish(p, linear(p, act(p, "tanh", linear(p, x, 65, 0)), 10, 1));
}

/* Layers of any geometry, on the last node or an earlier one; some branches lead nowhere. */
static plan *any(const instruction_set *isa)
{
    const int strip = below(3) == 0;
    const int c = strip ? 1 : 1 + below(20), h = strip ? 5 + below(6) : 1 + below(10),
              w = strip ? 16 + below(12) : 1 + below(10);
    plan *p = begin(isa, c, h, w);
    static const char *const activations[] = {"tanh", "relu", "sigmoid", "scaled_tanh"};
    int last = 0;
    for (int left = 2 + below(6); left > 0; left--) {
        const int from = below(4) ? last : below(p->n_nodes);
        const shape in = p->node[from].g.out;
        int made = -1;
        for (int tries = 0; made < 0 && tries < 20; tries++)
            switch (below(8)) {
            case 0:
            case 1:
            case 2: { /* groups: one, all, or some */
                const int style = below(4), groups = style == 0 ? in.c : style == 1 && in.c % 2 == 0 ? 2 : 1;
                const int channels = style == 0 && below(2) ? in.c : groups * (1 + below(groups > 1 ? 6 : 40));
                int option[12] = {0};
                for (int i = 0; i < 2; i++) {
                    option[i] = 1 + below(5);                   /* kernel */
                    option[2 + i] = below(4) ? 1 : 2 + below(2); /* stride */
                    option[9 + i] = below(5) ? 1 : 2;           /* dilation */
                }
                for (int i = 4; i < 8; i++)
                    option[i] = below(4) ? 0 : below(3); /* padding */
                option[8] = below(4) > 0;
                option[11] = groups;
                made = layer(p, "conv2d", from, channels, 12, option);
                break;
            }
            case 3:
            case 4: {
                int option[4];
                for (int i = 0; i < 4; i++)
                    option[i] = i && below(3) ? option[0] : 1 + below(3);
                made = layer(p, "max_pool2d", from, 0, 4, option);
                break;
            }
            case 5: made = act(p, activations[below(4)], from); break;
            case 6: {
                int input[MAX_INPUTS], n = 0;
                for (int i = p->n_nodes - 1; i >= 0 && n < MAX_INPUTS; i--)
                    if (!memcmp(&p->node[i].g.out, &in, sizeof in))
                        input[n++] = i;
                made = n > 1 ? add(p, n, input) : -1;
                break;
            }
            default: made = linear(p, in.h * in.w == 1 ? from : act(p, "flatten", from), 1 + below(70), left % 3 > 0);
            }
        last = made < 0 ? last : made;
    }
    return finish(p, linear(p, act(p, "flatten", last), 2 + below(11), 1));
}

static void describe(const plan *p, const char *name)
{
    size_t used = (size_t)snprintf(where, sizeof where, "%s, %s", name, p->isa->name);
    for (int i = 0; i < p->n_nodes && used < sizeof where; i++) {
        const plan_node *n = &p->node[i];
        used += (size_t)snprintf(where + used, sizeof where - used, " %d:%s(%d)%dx%dx%d", i,
                                 n->kind ? n->kind->name : "input", n->g.n_inputs ? n->input[0] : 0, n->g.out.c, n->g.out.h,
                                 n->g.out.w);
    }
}

/* ---- weights and data ---- */

/* How many of its parts a layer has: a bias is an option of some. */
static int n_parts(const plan_node *n)
{
    if (!strcmp(n->kind->name, "conv2d"))
        return 1 + n->g.whole[8];
    return !strcmp(n->kind->name, "linear") ? 1 + n->g.whole[0] : n->kind->n_parts;
}

/* Random weights at the places of parameters, which are marked with their node; the rest stays zero and 0. */
static float *weights_of(const plan *p, int *node_at)
{
    float *w = aligned_alloc(64, p->weight_size * sizeof *w);
    if (!w)
        abort();
    memset(w, 0, p->weight_size * sizeof *w);
    memset(node_at, 0, p->weight_size * sizeof *node_at);
    for (int i = 1; i < p->n_nodes; i++) {
        const plan_node *n = &p->node[i];
        if (!n->g.weight_size)
            continue;
        ptrdiff_t at, size = 0;
        while (n->kind->locate(&n->g, 0, size) >= 0)
            size++;
        const float most = sqrtf(3.f * (float)n->g.out.c / (float)size);
        for (int k = 0; k < n_parts(n); k++)
            for (ptrdiff_t j = 0; (at = n->kind->locate(&n->g, k, j)) >= 0; j++) {
                expect((size_t)at < n->g.weight_size + n->g.state_size && !node_at[n->weight_at + (size_t)at],
                       "node %d: place %td is taken", i, at);
                w[n->weight_at + (size_t)at] = between(-most, most);
                node_at[n->weight_at + (size_t)at] = i;
            }
    }
    return w;
}

static float *copy(const float *w, size_t n)
{
    float *to = aligned_alloc(64, n * sizeof *to);
    if (!to)
        abort();
    return memcpy(to, w, n * sizeof *to);
}

typedef struct {
    images view;
    int n; /* length of the order */
} data;

static data data_for(const plan *p, int n, int bytes)
{
    const int classes = (int)shape_size(p->node[p->output].g.out), stored = n - n / 4;
    int64_t *labels = block((size_t)stored, sizeof *labels), *order = block((size_t)n, sizeof *order);
    data d = {{.form = TARGET_CLASS, .target = {.numbers = labels, .size = 1}, .order = order}, n};
    for (int k = 0; k < p->n_inputs; k++) {
        const size_t size = shape_size(p->node[k].g.out);
        uint8_t *b = block((size_t)stored * size, 1);
        float *f = block((size_t)stored * size, sizeof *f);
        for (size_t i = 0; i < (size_t)stored * size; i++) {
            b[i] = (uint8_t)below(256);
            f[i] = between(-1, 1);
        }
        if (bytes)
            free(f), f = NULL;
        else
            free(b), b = NULL;
        d.view.input[k] = (feed){.bytes = b, .floats = f, .size = size};
    }
    for (int i = 0; i < stored; i++)
        labels[i] = below(classes);
    for (int i = 0; i < n; i++)
        order[i] = i < stored ? stored - 1 - i : below(stored);
    return d;
}

static void data_free(data d)
{
    for (int k = 0; k < MAX_INPUTS; k++) {
        free((void *)d.view.input[k].bytes);
        free((void *)d.view.input[k].floats);
    }
    free((void *)d.view.target.numbers);
    free((void *)d.view.order);
}

/* ---- one engine, one phase ---- */

/* Strategies with some of their options. What is not said here is not checked. */
typedef struct {
    const char *name;
    int exact, sequential; /* no update is lost; one worker is sequential, bit for bit */
    int bounded, max_staleness;
    double option[MAX_STRATEGY_OPTIONS];
} variant;

enum { SEQUENTIAL, CHAOS, AT_PUBLICATION = 3 };
static const variant variants[] = {
    {"sequential", 1, 1, 0, 0, {0}},
    {"chaos", 1, 1, 0, 0, {0}},
    {"chaos", 1, 1, 1, 2, {1}},
    {"chaos", 1, 1, 0, 0, {0, 1}},
    {"chaos", 1, 1, 1, 2, {1, 1}},
    {"hogwild", 0, 1, 0, 0, {0}},
    {"hogwild", 0, 0, 0, 0, {1}},
    {"locked", 1, 1, 0, 0, {0}},
    {"locked", 1, 1, 1, 0, {0}},
    {"leashed", 1, 1, 0, 0, {0}},
    {"leashed", 1, 1, 1, 3, {0}},
    {"leashed", 0, 1, 0, 0, {1}},
    {"elastic", 0, 0, 0, 0, {0}},
    {"elastic", 0, 0, 0, 0, {1, 0.5}},
    {"replicated", 0, 1, 0, 0, {0}},
    {"replicated", 0, 1, 0, 0, {2, 1}},
    {"replicated", 1, 1, 1, 1, {1, 1, 1}},
    {"replicated", 1, 1, 0, 0, {2, 3, 1}},
    {"synchronous", 1, 0, 0, 0, {0}},
    {"hybrid", 1, 0, 0, 0, {0}},
    {"averaging", 0, 1, 0, 0, {0}},
    {"delayed", 1, 1, 0, 0, {0}},
};
enum { VARIANTS = sizeof variants / sizeof *variants };
static const char *const CROSS_ENTROPY = "cross_entropy", *const MSE = "mse", *const SCORE = "score";

/* The first of that name. */
static int variant_of(const char *name)
{
    int v = 0;
    while (strcmp(variants[v].name, name))
        v++;
    return v;
}

static const strategy *strategy_named(const char *name)
{
    int s = 0;
    while (strategy_at(s) && strcmp(strategy_at(s)->name, name))
        s++;
    if (!strategy_at(s))
        abort();
    return strategy_at(s);
}

static const loss_kind *loss_named(const instruction_set *isa, const char *name)
{
    const loss_kind *const *l = isa->losses;
    while (strcmp((*l)->name, name))
        l++;
    return *l;
}

static const update_kind *rule_named(const instruction_set *isa, const char *name)
{
    const update_kind *const *u = isa->updates;
    while (strcmp((*u)->name, name))
        u++;
    return *u;
}

static engine *engine_for(const plan *p, float *w, int workers, int batch, size_t stripe_bytes, int v, const char *loss)
{
    engine *e = engine_new(&(engine_parts){.p = p,
                                           .weights = w,
                                           .n_workers = workers,
                                           .batch = batch,
                                           .stripe_bytes = stripe_bytes,
                                           .strategy = strategy_named(variants[v].name),
                                           .strategy_options = variants[v].option,
                                           .bounded = variants[v].bounded,
                                           .max_staleness = variants[v].max_staleness,
                                           .rule = rule_named(p->isa, "sgd"),
                                           .loss = loss_named(p->isa, loss)});
    if (!e)
        abort();
    return e;
}

/* Stripes that one step publishes. */
static int64_t live_stripes(const engine *e)
{
    int64_t n = 0;
    for (int k = 0; k < e->shared.n_stripes; k++)
        n += e->p->node[e->stripe[k].node].n_deltas > 0;
    return n;
}

static int variant_named(const char *name)
{
    for (int v = 0; v < VARIANTS; v++)
        if (!strcmp(variants[v].name, name))
            return v;
    abort();
}

/* Runs a phase to its end and checks what is counted. */
static void run(engine *e, enum phase phase, const images *view, int n, float lr, float *out)
{
    const int status = engine_run(e, phase, view, 0, n, lr, out);
    const tally *t = &e->total;
    const int64_t steps = phase == TRAIN ? (n + e->batch - 1) / e->batch : 0;
    n_phases++;
    expect(status == DONE, "phase %d with %d workers, batch %d: status %d", phase, e->n_workers, e->batch, status);
    expect(t->images == n && engine_position(e) == n, "%d images, %lld counted", n, (long long)t->images);
    expect(isfinite(t->loss) && t->errors >= 0 && t->errors <= n, "loss %g, errors %lld", t->loss, (long long)t->errors);
    expect(t->updates == (steps - t->dropped) * live_stripes(e), "%lld updates in %lld steps", (long long)t->updates,
           (long long)steps);
    int64_t counted = 0;
    for (int i = 0; i < STALENESS_BINS; i++)
        for (int l = 0; l < e->n_layers; l++)
            counted += e->layer[l].staleness[i];
    expect(counted == t->updates, "staleness of %lld in %lld updates", (long long)counted, (long long)t->updates);
    if (e->n_workers == 1)
        expect(!t->staleness_sum && !t->lock_failures, "one worker met another");
    if (e->bounded)
        expect(t->staleness_max <= e->max_staleness, "staleness %lld", (long long)t->staleness_max);
    lock_failures += t->lock_failures;
    late += t->updates;
    for (int l = 0; l < e->n_layers; l++)
        late -= e->layer[l].staleness[0];
    latest = t->staleness_max > latest ? t->staleness_max : latest;
}

static double mean_loss(const plan *p, float *w, const data *d)
{
    engine *e = engine_for(p, w, 1, 20, 4096, SEQUENTIAL, CROSS_ENTROPY);
    run(e, TEST, &d->view, d->n, 0, NULL);
    const double loss = e->total.loss / d->n;
    engine_free(e);
    return loss;
}

static void same(const float *a, const float *b, size_t n, double tolerance, const char *what)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    expect(sqrt(difference) <= tolerance * sqrt(size), "%s: off by %.3g of %.3g", what, sqrt(difference), sqrt(size));
}

static void only_parameters(const float *v, const int *node_at, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (!expect(isfinite(v[i]) && (node_at[i] || v[i] == 0), "%s: %g at %zu, which is %s", what, (double)v[i], i,
                    node_at[i] ? "a weight" : "padding"))
            break;
}

/* The slope of the loss, one layer at a time, in random directions. ReLU and max-pooling have kinks: a step that meets one
 * is made smaller. */
static void check_slopes(const plan *p, const float *w, const int *node_at, const float *gradient, const data *d)
{
    float *way = block(p->weight_size, sizeof *way);
    for (int node = 1; node < p->n_nodes; node++)
        for (int direction = 0; direction < 2 && p->node[node].g.weight_size; direction++) {
            double size = 0, want = 0, slope = 0, tolerance = 0;
            for (size_t i = 0; i < p->weight_size; i++) {
                way[i] = node_at[i] != node ? 0 : below(2) ? 1 : -1;
                want += (double)gradient[i] * way[i];
                size += way[i] != 0 ? (double)gradient[i] * gradient[i] : 0;
            }
            int right = 0;
            for (float step = 5e-4f; !right && step > 1e-5f; step /= 4) {
                float *up = copy(w, p->weight_size), *down = copy(w, p->weight_size);
                for (size_t i = 0; i < p->weight_size; i++) {
                    up[i] += step * way[i];
                    down[i] -= step * way[i];
                }
                slope = (mean_loss(p, up, d) - mean_loss(p, down, d)) / (2 * (double)step);
                tolerance = 0.1 * sqrt(size) + 2.5e-7 / (double)step;
                right = fabs(slope - want) <= tolerance;
                free(up);
                free(down);
            }
            expect(right, "node %d: slope %g, by the gradient %g (length %g)", node, slope, want, sqrt(size));
        }
    free(way);
}

/* Fills everything a worker may leave behind with NaN, slack included: no phase may depend on it. */
static void spoil(worker *v)
{
    const plan *p = v->e->p;
    const size_t chunk = (size_t)v->e->chunk * sizeof(float);
    for (int i = 0; i < p->n_nodes; i++) {
        memset(v->value[i], 0xff, p->node[i].value_stride * chunk);
        memset(v->keep[i], 0xff, p->node[i].g.keep_size * chunk);
    }
    for (int i = 0; i < p->n_edges; i++)
        memset(v->delta[i], 0xff, p->node[p->edge[i].node].value_stride * chunk);
    memset(v->scratch, 0xff, p->scratch_size * sizeof(float));
}

/* What other instruction sets must agree with. */
typedef struct {
    float *outputs, *gradient, *trained;
} results;

static void check_network(plan *p, const char *name, int n, results *first)
{
    describe(p, name);
    n_networks++;
    const size_t size = p->weight_size, k = shape_size(p->node[p->output].g.out);
    int *node_at = block(size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *outputs[3], *gradient[3];
    const data d = data_for(p, n, below(2));
    static const int batches[] = {1, 3, 20}, teams[] = {1, 2, 4, 8};
    static const size_t stripes[] = {64, 1024, 16384};

    for (int b = 0; b < 3; b++) {
        float *w = copy(w0, size);
        outputs[b] = block((size_t)n * k, sizeof(float));
        gradient[b] = block(size, sizeof(float));
        engine *e = engine_for(p, w, 1, batches[b], 4096, SEQUENTIAL, CROSS_ENTROPY);
        images unlabelled = d.view;
        unlabelled.target = (feed){.size = 0};
        run(e, FORWARD, &unlabelled, n, 0, outputs[b]);
        run(e, TEST, &d.view, n, 0, NULL);
        const double loss = e->total.loss;
        const int64_t errors = e->total.errors;
        run(e, GRADIENTS, &d.view, n, 0, NULL);
        memcpy(gradient[b], e->worker[0]->dw, size * sizeof(float));
        only_parameters(gradient[b], node_at, size, "gradient");
        spoil(e->worker[0]);
        run(e, GRADIENTS, &d.view, n, 0, NULL);
        expect(!memcmp(gradient[b], e->worker[0]->dw, size * sizeof(float)), "the gradient depends on what was before");
        same(outputs[b], b || !first->outputs ? outputs[0] : first->outputs, (size_t)n * k, 1e-4, "outputs");
        same(gradient[b], b || !first->gradient ? gradient[0] : first->gradient, size, 2e-3, "gradients");
        engine_free(e);

        float *again = block((size_t)n * k, sizeof *again);
        e = engine_for(p, w, 3, batches[b], 4096, CHAOS, CROSS_ENTROPY);
        run(e, FORWARD, &unlabelled, n, 0, again);
        expect(!memcmp(again, outputs[b], (size_t)n * k * sizeof *again), "the outputs depend on the workers");
        run(e, TEST, &d.view, n, 0, NULL);
        expect(fabs(e->total.loss - loss) <= 1e-9 * fabs(loss) && e->total.errors == errors,
               "the loss depends on the workers");
        expect(!memcmp(w, w0, size * sizeof *w), "a phase that must not touch the weights has done so");
        engine_free(e);
        free(again);
        free(w);
    }
    check_slopes(p, w0, node_at, gradient[0], &d);

    /* one step is the gradient */
    for (int b = 0; b < 2; b++) {
        float *w = copy(w0, size), *want = copy(w0, size);
        engine *e = engine_for(p, w, 1, b ? n : 1, 1024, CHAOS, MSE);
        const int m = b ? n : 1;
        run(e, GRADIENTS, &d.view, m, 0, NULL);
        for (size_t i = 0; i < size; i++)
            want[i] -= 0.5f * e->worker[0]->dw[i];
        run(e, TRAIN, &d.view, m, 0.5f, NULL);
        same(w, want, size, 1e-5, "one step");
        engine_free(e);
        free(w);
        free(want);
    }

    for (int b = 0; b < 3; b++) {
        float *alone = copy(w0, size);
        engine *e = engine_for(p, alone, 1, batches[b], stripes[b], SEQUENTIAL, CROSS_ENTROPY);
        run(e, TRAIN, &d.view, n, 0.002f, NULL);
        engine_free(e);
        only_parameters(alone, node_at, size, "trained weights");
        for (int i = 0; i < VARIANTS + 2; i++) { /* chaos with every team, the others alone with one of the batches */
            const int v = i < 4 ? CHAOS : i - 2, t = i < 4 ? i : (v + b) % 3 == 0 ? 0 : 1 + below(3);
            float *w = copy(w0, size);
            e = engine_for(p, w, teams[t], batches[b], stripes[below(3)], v, CROSS_ENTROPY);
            run(e, TRAIN, &d.view, n, 0.002f, NULL);
            if (teams[t] == 1)
                expect(!variants[v].sequential || !memcmp(w, alone, size * sizeof *w), "%s: one worker is not sequential",
                       variants[v].name);
            else
                run(e, TRAIN, &d.view, n, 0.002f, NULL);
            only_parameters(w, node_at, size, "weights trained by several");
            engine_free(e);
            free(w);
        }
        if (b == 0 && !first->trained)
            first->trained = copy(alone, size);
        else if (b == 0)
            same(alone, first->trained, size, 2e-3, "trained weights");
        free(alone);
    }
    if (!first->outputs)
        first->outputs = outputs[0], first->gradient = gradient[0], outputs[0] = gradient[0] = NULL;
    for (int b = 0; b < 3; b++) {
        free(outputs[b]);
        free(gradient[b]);
    }
    data_free(d);
    free(w0);
    free(node_at);
    plan_free(p);
}

static void check_everywhere(plan *(*make)(const instruction_set *), const char *name, uint64_t from, int n)
{
    results first = {NULL, NULL, NULL};
    for (int i = 0; supported_isa(i); i++) {
        seed = from;
        check_network(make(supported_isa(i)), name, n, &first);
    }
    free(first.outputs);
    free(first.gradient);
    free(first.trained);
}

/* ---- what is known to the last bit ---- */

/* One linear layer with whole-numbered images and the score loss: the weights after any number of updates in any order. */
static void check_conservation(const instruction_set *isa, int workers, int batch, int v)
{
    enum { IN = 37, OUT = 21, N = 400 };
    plan *p = begin(isa, IN, 1, 1);
    finish(p, linear(p, 0, OUT, 1));
    describe(p, "conservation");
    float *x = block(IN * N, sizeof *x), *w = aligned_alloc(64, p->weight_size * sizeof *w);
    int64_t *labels = block(N, sizeof *labels);
    double want[IN + 1][OUT] = {{0}};
    memset(w, 0, p->weight_size * sizeof *w);
    for (int i = 0; i < N; i++) {
        labels[i] = below(OUT);
        want[IN][labels[i]]++;
        for (int j = 0; j < IN; j++)
            want[j][labels[i]] += x[i * IN + j] = (float)(below(7) - 3);
    }
    const images view = {
        .input = {{.floats = x, .size = IN}}, .form = TARGET_CLASS, .target = {.numbers = labels, .size = 1}};
    engine *e = engine_for(p, w, workers, batch, 64, v, SCORE);
    const int epochs = 3;
    for (int i = 0; i < epochs; i++)
        run(e, TRAIN, &view, N, (float)batch, NULL);
    const plan_node *n = &p->node[1];
    for (int o = 0; o < OUT; o++)
        for (int j = 0; j <= IN; j++) {
            const ptrdiff_t at = n->kind->locate(&n->g, j == IN, j == IN ? o : o * IN + j);
            expect(!variants[v].exact || (double)w[at] == epochs * want[j][o],
                   "%s, %d workers, batch %d: weight %d of %d is %g, not %g", variants[v].name, workers, batch, j, o,
                   (double)w[at], epochs * want[j][o]);
        }
    engine_free(e);
    plan_free(p);
    free(x);
    free(w);
    free(labels);
}

typedef struct {
    engine *e;
    int32_t stop;
    int added;
    float *ones, *seen, *own;
} exchanger;

static void *exchange(void *arg)
{
    exchanger *x = arg;
    do {
        exchange_add(x->e, 0, x->e->shared.n_stripes, x->ones, 1, x->own);
        exchange_read(x->e, 0, x->e->shared.n_stripes, x->seen);
        x->added++;
    } while (!__atomic_load_n(&x->stop, __ATOMIC_RELAXED));
    return NULL;
}

/* The same with somebody beside the workers who reads the weights and adds to them. */
static void check_exchange(const instruction_set *isa, int workers)
{
    enum { IN = 37, OUT = 21, N = 2000 };
    plan *p = begin(isa, IN, 1, 1);
    finish(p, linear(p, 0, OUT, 0));
    describe(p, "exchange");
    const size_t size = p->weight_size * sizeof(float);
    float *x = block(IN * N, sizeof *x), *w = aligned_alloc(64, size);
    int64_t *labels = block(N, sizeof *labels);
    memset(w, 0, size);
    int count[OUT] = {0};
    for (int i = 0; i < N; i++)
        count[labels[i] = below(OUT)]++;
    for (int i = 0; i < IN * N; i++)
        x[i] = 1;
    const images view = {
        .input = {{.floats = x, .size = IN}}, .form = TARGET_CLASS, .target = {.numbers = labels, .size = 1}};
    engine *e = engine_for(p, w, workers, 1, 64, CHAOS, SCORE);
    exchanger beside = {
        e, 0, 0, block(p->weight_size, sizeof(float)), block(p->weight_size, sizeof(float)), aligned_alloc(64, size)};
    for (size_t i = 0; i < p->weight_size; i++)
        beside.ones[i] = 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, exchange, &beside))
        abort();
    expect(engine_run(e, TRAIN, &view, 0, N, 1, NULL) == DONE, "the phase has failed");
    __atomic_store_n(&beside.stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    n_phases++;
    const plan_node *n = &p->node[1];
    for (int o = 0; o < OUT; o++)
        for (int j = 0; j < IN; j++) {
            const double got = w[n->kind->locate(&n->g, 0, o * IN + j)];
            expect(got == count[o] + beside.added, "exchange, %d workers: weight %d of %d is %g, not %d", workers, j, o, got,
                   count[o] + beside.added);
        }
    exchange_rewind(e);
    expect(engine_position(e) == 0, "position %lld", (long long)engine_position(e));
    engine_free(e);
    plan_free(p);
    free(beside.ones);
    free(beside.seen);
    free(beside.own);
    free(x);
    free(w);
    free(labels);
}

typedef struct {
    int32_t *room;
    int side, n;
    float ns[20];
} handed;

static void *hand_over(void *arg)
{
    handed *h = arg;
    h->n = distance_measure(h->room, 3, h->side, 7, 30, h->ns, 20);
    return NULL;
}

/* Two threads that hand three lines to and fro: all of them are written equally often. */
static void check_distance(void)
{
    enum { LINE = 16, AHEAD = 32 };
    int32_t *room = block(AHEAD + 3 * LINE, sizeof *room);
    memset(room, 0, (AHEAD + 3 * LINE) * sizeof *room);
    handed one = {room, 0, 0, {0}}, other = {room, 1, 0, {0}};
    pthread_t thread;
    snprintf(where, sizeof where, "distance");
    if (pthread_create(&thread, NULL, hand_over, &other))
        abort();
    hand_over(&one);
    pthread_join(thread, NULL);
    const int32_t *line = room + AHEAD;
    expect(one.n == 20 || other.n == 20, "%d and %d blocks", one.n, other.n);
    expect(line[0] == line[LINE] && line[0] == line[2 * LINE] && line[0] >= 2 * 7 * 20, "written %d, %d, %d times", line[0],
           line[LINE], line[2 * LINE]);
    free(room);
}

/* Every rule with every option: state and weights stay finite, the padding zero. */
static void check_rules(const instruction_set *isa, const strategy *strategy, int workers, int batch)
{
    plan *p = separable(isa);
    describe(p, strategy->name);
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *zeros = copy(w0, p->weight_size);
    memset(zeros, 0, p->weight_size * sizeof *zeros);
    data d = data_for(p, 24, 1);
    double option[MAX_RULE_OPTIONS];
    for (int i = 0; i < MAX_RULE_OPTIONS; i++)
        option[i] = i < RULE_OWN ? 0.01 : 0.5;
    option[RULE_MAX_NORM] = 0.3;
    for (const update_kind *const *rule = isa->updates; *rule; rule++) {
        engine_parts parts = {.p = p,
                              .weights = copy(w0, p->weight_size),
                              .n_workers = workers,
                              .batch = batch,
                              .stripe_bytes = 256,
                              .strategy = strategy,
                              .rule = *rule,
                              .rule_options = option,
                              .loss = loss_named(isa, CROSS_ENTROPY)};
        for (int i = 0; i < (*rule)->n_moments; i++)
            parts.moment[i] = copy(zeros, p->weight_size);
        engine *e = engine_new(&parts);
        if (!e)
            abort();
        for (int epoch = 0; epoch < 2; epoch++)
            run(e, TRAIN, &d.view, d.n, 0.01f, NULL);
        only_parameters(parts.weights, node_at, p->weight_size, (*rule)->name);
        for (int i = 0; i < (*rule)->n_moments; i++) {
            only_parameters(parts.moment[i], node_at, p->weight_size, (*rule)->name);
            free(parts.moment[i]);
        }
        engine_free(e);
        free(parts.weights);
    }
    data_free(d);
    free(zeros);
    free(w0);
    free(node_at);
    plan_free(p);
}

/* ---- other threads ---- */

static void *stopper(void *arg)
{
    engine *e = arg;
    while (engine_position(e) < 50)
        wait_for_core();
    engine_stop(e);
    return NULL;
}

/* Whoever stops a phase gets all images before its position trained, and none behind. Run twice: from where it stopped. */
static void check_stop(const instruction_set *isa, int workers, int batch, int v, enum phase phase)
{
    plan *p = digits(isa);
    describe(p, "stop");
    enum { N = 1 << 20 };
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w = weights_of(p, node_at);
    data d = data_for(p, N / 8192, 1);
    int64_t *order = block(N, sizeof *order);
    for (int i = 0; i < N; i++)
        order[i] = below(d.n - d.n / 4);
    images view = d.view;
    view.order = order;
    engine *e = engine_for(p, w, workers, batch, 256, v, CROSS_ENTROPY);
    int64_t begin = 0;
    for (int round = 0; round < 2; round++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, stopper, e))
            abort();
        const int status = engine_run(e, phase, &view, begin, N, 1e-4f, NULL);
        pthread_join(thread, NULL);
        const int64_t at = engine_position(e);
        n_phases++;
        expect(status == STOPPED && at < N, "%s, %d workers, batch %d: status %d at %lld", variants[v].name, workers, batch,
               status, (long long)at);
        expect(e->total.images == at - begin, "%lld images on the way from %lld to %lld", (long long)e->total.images,
               (long long)begin, (long long)at);
        expect(e->total.updates == (phase == TRAIN ? ((at - begin) / batch - e->total.dropped) * live_stripes(e) : 0),
               "%lld updates", (long long)e->total.updates);
        expect(isfinite(e->total.loss), "loss %g", e->total.loss);
        engine_clear(e);
        begin = at;
    }
    engine_free(e);
    free(order);
    data_free(d);
    free(w);
    free(node_at);
    plan_free(p);
}

/* One image of no number: the phase ends there, the weights stay finite. */
static void check_divergence(const instruction_set *isa, int v, enum phase phase)
{
    plan *p = digits(isa);
    describe(p, "divergence");
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w = weights_of(p, node_at);
    data d = data_for(p, 200, 0);
    const size_t size = shape_size(p->node[0].g.out);
    ((float *)d.view.input[0].floats)[(size_t)d.view.order[77] * size + 3] = NAN;
    engine *e = engine_for(p, w, 4, 1, 256, v, CROSS_ENTROPY);
    const int status = engine_run(e, phase, &d.view, 0, 200, 1e-3f, NULL);
    n_phases++;
    expect(status == DIVERGED && d.view.order[e->failed_at] == d.view.order[77], "status %d at %lld", status,
           (long long)e->failed_at);
    only_parameters(w, node_at, p->weight_size, "weights");
    engine_free(e);
    data_free(d);
    free(w);
    free(node_at);
    plan_free(p);
}

typedef struct {
    engine *e;
    const data *d;
    int status;
} errand;

static void *train(void *arg)
{
    errand *a = arg;
    a->status = engine_run(a->e, TRAIN, &a->d->view, 0, a->d->n, 0.01f, NULL);
    return NULL;
}

/* Engines share a plan and data, nothing else: two at once do what one after the other does. */
static void check_engines_at_once(const instruction_set *isa)
{
    enum { ENGINES = 3 };
    plan *p = branches(isa);
    describe(p, "engines at once");
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *w[ENGINES];
    data d = data_for(p, 60, 1);
    errand errands[ENGINES];
    pthread_t thread[ENGINES];
    for (int i = 0; i < ENGINES; i++) {
        w[i] = copy(w0, p->weight_size);
        errands[i] = (errand){engine_for(p, w[i], i == 2 ? 4 : 1, 1, 256, CHAOS, CROSS_ENTROPY), &d, -1};
    }
    for (int i = 0; i < ENGINES; i++)
        if (pthread_create(&thread[i], NULL, train, &errands[i]))
            abort();
    for (int i = 0; i < ENGINES; i++) {
        pthread_join(thread[i], NULL);
        n_phases++;
        expect(errands[i].status == DONE && errands[i].e->total.images == d.n, "engine %d: status %d", i, errands[i].status);
        only_parameters(w[i], node_at, p->weight_size, "weights");
    }
    expect(!memcmp(w[0], w[1], p->weight_size * sizeof(float)), "the engines met");
    for (int i = 0; i < ENGINES; i++) {
        engine_free(errands[i].e);
        free(w[i]);
    }
    data_free(d);
    free(w0);
    free(node_at);
    plan_free(p);
}

/* All workers on one CPU, where they meet most; and on one that there is not. */
static void check_pinning(const instruction_set *isa)
{
    enum { WORKERS = 4, N = 60 };
    plan *p = branches(isa);
    describe(p, "pinning");
    int *node_at = block(p->weight_size, sizeof *node_at), *cpus = block(WORKERS, sizeof *cpus);
    float *w = weights_of(p, node_at);
    data d = data_for(p, N, 1);
    for (int there = 1; there >= 0; there--) {
        for (int i = 0; i < WORKERS; i++)
            cpus[i] = there || i != 2 ? sched_getcpu() : 1 << 30;
        engine *e = engine_new(&(engine_parts){.p = p,
                                               .weights = w,
                                               .n_workers = WORKERS,
                                               .cpus = cpus,
                                               .batch = 3,
                                               .stripe_bytes = 256,
                                               .strategy = strategy_named("chaos"),
                                               .rule = rule_named(p->isa, "sgd"),
                                               .loss = loss_named(p->isa, CROSS_ENTROPY)});
        if (!e)
            abort();
        if (there) {
            run(e, TRAIN, &d.view, N, 0.01f, NULL);
            run(e, TEST, &d.view, N, 0, NULL);
        } else {
            const int status = engine_run(e, TRAIN, &d.view, 0, N, 0.01f, NULL);
            expect(status == NOT_PINNED && e->failed_at == 2, "status %d, worker %lld", status, (long long)e->failed_at);
        }
        engine_free(e);
    }
    only_parameters(w, node_at, p->weight_size, "weights");
    data_free(d);
    free(cpus);
    free(w);
    free(node_at);
    plan_free(p);
}

/* Strategies whose workers meet or take turns: the same bits twice, and for any number of workers where promised. */
static void check_meetings(plan *p, const char *net, const char *name, int n, int batch, int any_workers)
{
    describe(p, net);
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *first = NULL;
    data d = data_for(p, n, 0);
    for (int workers = 1; workers <= 5; workers += 2) {
        for (int twice = 0; twice < 2; twice++) {
            float *w = copy(w0, p->weight_size);
            engine *e = engine_for(p, w, workers, batch, 256, variant_named(name), CROSS_ENTROPY);
            run(e, TRAIN, &d.view, n, 0.01f, NULL);
            run(e, TRAIN, &d.view, n, 0.01f, NULL);
            engine_stop(e);
            expect(engine_run(e, TRAIN, &d.view, 0, n, 0.01f, NULL) == STOPPED && !e->total.images, "trains after a stop");
            engine_clear(e);
            only_parameters(w, node_at, p->weight_size, name);
            if (first)
                expect(!memcmp(w, first, p->weight_size * sizeof *w), "%s: other bits with %d workers, batch %d", name,
                       workers, batch);
            else
                first = copy(w, p->weight_size);
            float *pixel = (float *)d.view.input[0].floats, was = *pixel;
            *pixel = NAN;
            expect(engine_run(e, TRAIN, &d.view, 0, n, 0.01f, NULL) == DIVERGED, "%s: not a number is trained on", name);
            *pixel = was;
            engine_free(e);
            free(w);
        }
        if (!any_workers)
            free(first), first = NULL;
    }
    free(first);
    data_free(d);
    free(w0);
    free(node_at);
    plan_free(p);
}

/* Adds up each layer's gradient as soon as all lanes are said to have it, the last layer's first. */
typedef struct {
    const plan *p;
    int lanes;
    const int32_t *reached;
    const float *rows;
    float *sum;
} adding;

static void *adds(void *arg)
{
    adding *a = arg;
    for (int i = a->p->n_nodes - 1; i > 0; i--) {
        const plan_node *node = &a->p->node[i];
        if (!node->g.weight_size)
            continue;
        while (exchange_reached(a->reached, a->lanes) > i)
            sched_yield();
        exchange_add_rows(a->rows + node->weight_at, a->lanes, a->p->weight_size, node->g.weight_size,
                          a->sum + node->weight_at);
    }
    return NULL;
}

/* Lanes formed piece by piece and applied are the synchronous strategy's step; layer by layer they may be read before. */
static void check_lanes(const instruction_set *isa)
{
    enum { N = 21, LANES_HERE = 6 };
    plan *p = branches(isa);
    describe(p, "lanes");
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *want = copy(w0, p->weight_size), *w = copy(w0, p->weight_size);
    float *rows = aligned_alloc(64, LANES_HERE * p->weight_size * sizeof *rows);
    memset(rows, 0, LANES_HERE * p->weight_size * sizeof *rows);
    data d = data_for(p, N, 0);
    engine *e = engine_for(p, want, 2, N, 256, variant_named("synchronous"), CROSS_ENTROPY);
    run(e, TRAIN, &d.view, N, 0.01f, NULL);
    engine_free(e);
    e = engine_for(p, w, 3, N, 256, variant_named("synchronous"), CROSS_ENTROPY);
    for (int first = 0; first < LANES_HERE; first += 2)
        expect(engine_lanes(e, &d.view, 0, N, LANES_HERE, first, 2, rows + (size_t)first * p->weight_size, NULL) == DONE,
               "lane %d", first);
    float *sum = block(p->weight_size, sizeof *sum), *whole = block(p->weight_size, sizeof *whole);
    memset(sum, 0, p->weight_size * sizeof *sum);
    int32_t reached[LANES_HERE];
    for (int again = 0; again < 20; again++) {
        for (int j = 0; j < LANES_HERE; j++)
            reached[j] = p->n_nodes;
        pthread_t beside;
        adding of = {p, LANES_HERE, reached, rows, sum};
        if (pthread_create(&beside, NULL, adds, &of))
            abort();
        expect(engine_lanes(e, &d.view, 0, N, LANES_HERE, 0, LANES_HERE, rows, reached) == DONE, "lanes told about");
        pthread_join(beside, NULL);
        expect(exchange_reached(reached, LANES_HERE) == 0, "lanes do not tell that they are complete");
        exchange_add_rows(rows, LANES_HERE, p->weight_size, p->weight_size, whole);
        expect(!memcmp(whole, sum, p->weight_size * sizeof *sum), "layers that were said to be complete were not");
    }
    float *pixel = (float *)d.view.input[0].floats + (size_t)d.view.order[0] * shape_size(p->node[0].g.out), was = *pixel;
    *pixel = NAN;
    reached[0] = reached[1] = p->n_nodes;
    expect(engine_lanes(e, &d.view, 0, N, LANES_HERE, 0, 2, rows, reached) == DIVERGED, "lanes of what is not a number");
    expect(exchange_reached(reached, 2) == p->n_nodes, "a lane without gradient is said to be there");
    *pixel = was;
    expect(engine_lanes(e, &d.view, 0, N, LANES_HERE, 0, 2, rows, NULL) == DONE, "lanes after a failure");
    for (int j = 1; j < LANES_HERE; j++)
        isa->add(p->weight_size, rows, rows + (size_t)j * p->weight_size);
    expect(engine_apply(e, rows, 0.01f) == DONE, "not applied");
    expect(!memcmp(w, want, p->weight_size * sizeof *w), "the lanes' sum is another step");
    engine_free(e);
    data_free(d);
    free(whole);
    free(sum);
    free(rows);
    free(w);
    free(want);
    free(w0);
    free(node_at);
    plan_free(p);
}

/* A traced run of real threads, replayed by so many, has the same bits. */
static void check_traces(plan *p, const char *net, int v, int workers, int batch, int threads)
{
    enum { N = 60, PHASES = 2 };
    describe(p, net);
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *w = copy(w0, p->weight_size), *again = copy(w0, p->weight_size);
    data d = data_for(p, N, 0);
    engine *e = engine_for(p, w, workers, batch, 256, v, CROSS_ENTROPY);
    event *events[PHASES];
    int64_t n[PHASES], at;
    const char *reason;
    expect(trace_start(e) == 0, "no trace");
    for (int i = 0; i < PHASES; i++) {
        run(e, TRAIN, &d.view, N, 0.01f, NULL);
        n[i] = trace_count(e);
        trace_take(e, events[i] = block((size_t)n[i], sizeof *events[i]));
    }
    engine_free(e);
    e = engine_for(p, again, workers, batch, 256, v, CROSS_ENTROPY);
    for (int i = 0; i < PHASES; i++) {
        replay *r = replay_new(e, 0, threads);
        expect(!replay_begin(r, &d.view, 0, N, 0.01f), "no replay");
        expect(replay_run(r, events[i], n[i], &at, &reason) == DONE, "event %lld", (long long)at);
        expect(!replay_end(r), "something is missing");
        expect(e->total.images == N, "%lld images", (long long)e->total.images);
        replay_free(r);
        free(events[i]);
    }
    expect(!memcmp(w, again, p->weight_size * sizeof *w), "%d workers, batch %d: replayed by %d to other weights", workers,
           batch, threads);
    engine_free(e);
    data_free(d);
    free(again);
    free(w);
    free(w0);
    free(node_at);
    plan_free(p);
}

/* What the clock invents can be run, whatever the order, and by any number of threads to the same weights. The engine's
 * strategy is that of variant v: the order's own, or one that can do the same. */
static void check_clock(plan *p, const clock_order *order, int v, int workers, int batch)
{
    enum { N = 60, ROOM = 4096, LANES_HERE = 5, PERIOD = 3 };
    describe(p, "clock");
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *first = NULL;
    data d = data_for(p, N, 0);
    engine *e = engine_for(p, w0, workers, batch, 256, v, CROSS_ENTROPY);
    const stage_hooks *in_stages = e->strategy->stages;
    clock_parts parts = {.order = order,
                         .n_workers = workers,
                         .n_stripes = e->shared.n_stripes,
                         .n_stages = in_stages ? in_stages->count(e) : 0,
                         .line = 1e-8,
                         .jitter = 0.5,
                         .seed = 1,
                         .batch = batch,
                         .chunk = e->chunk,
                         .lanes = in_stages ? in_stages->lanes(e) : LANES_HERE,
                         .publishes_later = e->strategy->publishes_later};
    memcpy(parts.option, variants[v].option, sizeof parts.option);
    if (!strcmp(order->name, "averaging") || !strcmp(order->name, "elastic"))
        parts.option[0] = PERIOD;
    if (!strcmp(order->name, "replicated"))
        parts.option[1] = PERIOD;
    clock_layer *layer = block((size_t)p->n_nodes, sizeof *layer);
    clock_stripe *stripe = block((size_t)parts.n_stripes, sizeof *stripe);
    clock_stage *stage = block((size_t)parts.n_stages + 1, sizeof *stage);
    double *factor = block((size_t)workers, sizeof *factor);
    for (int i = 1; i < p->n_nodes; i++)
        if (p->node[i].g.weight_size) {
            clock_layer *l = &layer[parts.n_layers++];
            *l = (clock_layer){.node = i, .learns = pass_learns(e, i), .forward = 1e-6, .backward = 1e-6};
            stripes_of(e, i, &l->first, &l->end);
        }
    for (int k = 0; k < parts.n_stripes; k++)
        stripe[k] = (clock_stripe){.publish = 1e-6, .lines = 4};
    for (int i = 0; i < parts.n_stages; i++) {
        enum stage_kind kind;
        int node;
        const int pieces = in_stages->pieces(e, i, batch, &kind, &node);
        const int by_lane = kind == STAGE_BEFORE || kind == STAGE_BETWEEN || kind == STAGE_BACK_BETWEEN;
        stage[i] = (clock_stage){by_lane ? 0 : pieces, 1e-6, 1e-6, 1e-6, 1e-6, (enum clock_count)(i % CLOCK_COUNTS)};
    }
    for (int i = 0; i < workers; i++)
        factor[i] = 1 + i;
    parts.layer = layer, parts.stripe = stripe, parts.stage = stage, parts.factor = factor;
    event *events = block(ROOM, sizeof *events);
    engine_free(e);
    for (int threads = 1; threads < 5; threads++) {
        float *w = copy(w0, p->weight_size);
        e = engine_for(p, w, workers, batch, 256, v, CROSS_ENTROPY);
        vclock *c = vclock_new(&parts);
        replay *r = replay_new(e, vclock_lanes(c), threads);
        int64_t n, at;
        const char *reason = NULL;
        vclock_begin(c, N);
        expect(!replay_begin(r, &d.view, 0, N, 0.01f), "no replay");
        while ((n = vclock_next(c, ROOM, events, NULL, NULL)))
            if (!expect(replay_run(r, events, n, &at, &reason) == DONE, "order %s: %s", order->name, reason ? reason : ""))
                break;
        reason = replay_end(r);
        expect(!reason, "order %s: %s", order->name, reason ? reason : "");
        if (first)
            expect(!memcmp(w, first, p->weight_size * sizeof *w),
                   "order %s, %d workers, batch %d: other weights by %d threads", order->name, workers, batch, threads);
        else
            first = copy(w, p->weight_size);
        replay_free(r);
        vclock_free(c);
        engine_free(e);
        free(w);
    }
    data_free(d);
    free(events), free(factor), free(stage), free(stripe), free(layer);
    free(first);
    free(w0);
    free(node_at);
    plan_free(p);
}

/* For bench_time, which calls layers by itself. */
static void check_times(const instruction_set *isa)
{
    plan *p = digits(isa);
    describe(p, "times");
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w = weights_of(p, node_at);
    data d = data_for(p, 9, 1);
    for (int batch = 1; batch < 4; batch += 2) {
        engine *e = engine_for(p, w, 1, batch, 256, SEQUENTIAL, CROSS_ENTROPY);
        run(e, GRADIENTS, &d.view, d.n, 0, NULL);
        for (int i = 1; i < p->n_nodes; i++)
            for (int pass = PASS_FORWARD; pass <= PASS_UPDATE; pass++)
                if (pass == PASS_FORWARD || (!p->node[i].skipped && (p->node[i].g.weight_size || pass == PASS_BACKWARD)))
                    expect(bench_time(e, i, (enum pass)pass, 2) >= 0 || pass == PASS_WEIGHT_GRADIENT,
                           "node %d takes less than no time", i);
        engine_free(e);
    }
    only_parameters(w, node_at, p->weight_size, "weights");
    data_free(d);
    free(w);
    free(node_at);
    plan_free(p);
}

static void fault(void)
{
    plan *p = digits(supported_isa(0));
    float out[11 * 10], *w = aligned_alloc(64, p->weight_size * sizeof *w);
    memset(w, 0, p->weight_size * sizeof *w);
    const size_t size = shape_size(p->node[0].g.out);
    const images view = {.input = {{.bytes = block(10 * size, 1), .size = size}}};
    engine *e = engine_for(p, w, 1, 1, 4096, SEQUENTIAL, CROSS_ENTROPY);
    engine_run(e, FORWARD, &view, 0, 11, 0, out);
}

/* ---- the examples that kinds give of themselves ---- */

/* The next word of a line, as a number; *line moves behind it. */
static double next_number(char **line)
{
    char *end;
    const double number = strtod(*line, &end);
    if (end == *line)
        abort();
    *line = end;
    return number;
}

/* A network of one layer, described by a line of tests/c/layers.txt, behind layers with weights of their own, so that its
 * data gradients are used; NULL: `loops` asks for a loop that this kind does not have. */
static plan *example(const instruction_set *isa, const char *text, const char *loops, const layer_kind **kind)
{
    char line[1000], *at = line, *name = line;
    int input[MAX_INPUTS], whole[MAX_WHOLE];
    float real[MAX_REAL];
    const char *reason;
    snprintf(line, sizeof line, "%s", text);
    at += strcspn(line, " ");
    *at++ = 0;
    plan *p = plan_new(isa, 0, loops);
    plan_layer q = {.kind = name, .input = input, .whole = whole, .real = real, .shares = -1};
    q.channels = (int)next_number(&at);
    q.n_inputs = (int)next_number(&at);
    for (int i = 0; i < q.n_inputs; i++) {
        shape s;
        s.c = (int)next_number(&at), s.h = (int)next_number(&at), s.w = (int)next_number(&at);
        input[i] = plan_add_input(p, s, &reason);
    }
    q.n_whole = (int)next_number(&at);
    for (int i = 0; i < q.n_whole; i++)
        whole[i] = (int)next_number(&at);
    q.n_real = (int)next_number(&at);
    for (int i = 0; i < q.n_real; i++)
        real[i] = (float)next_number(&at);
    for (int i = 0; i < q.n_inputs; i++)
        input[i] = conv(p, input[i], p->node[input[i]].g.out.c, 1, 0);
    const int made = plan_add(p, &q, &reason);
    if (!expect(made >= 0, "%s: %s", text, reason))
        abort();
    *kind = p->node[made].kind;
    return finish(p, act(p, "flatten", made));
}

static void check_example(const instruction_set *isa, const char *text, const char *loops, const layer_kind **kind)
{
    plan *p = example(isa, text, loops, kind);
    snprintf(where, sizeof where, "%s, %s, %s", text, isa->name, loops ? loops : "fastest loops");
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w = weights_of(p, node_at);
    for (int batch = 1; batch <= 3; batch += 2) {
        data d = data_for(p, 5, 0);
        engine *e = engine_for(p, w, 1, batch, 4096, SEQUENTIAL, CROSS_ENTROPY);
        run(e, TRAIN, &d.view, d.n, 0.001f, NULL);
        run(e, TEST, &d.view, d.n, 0, NULL);
        engine_free(e);
        data_free(d);
    }
    only_parameters(w, node_at, p->weight_size, "weights");
    free(w);
    free(node_at);
    plan_free(p);
}

/* Every example, with the fastest loops and with each loop that its kind has. */
static void check_examples(const instruction_set *isa, const char *file)
{
    static const char *const passes[] = {"forward", "weight_gradient", "data_gradient"};
    char line[1000], loops[200];
    FILE *f = fopen(file, "r");
    if (!expect(f != NULL, "%s cannot be read", file))
        return;
    while (fgets(line, sizeof line, f)) {
        const layer_kind *kind;
        const char *name;
        line[strcspn(line, "\n")] = 0;
        check_example(isa, line, NULL, &kind);
        for (int pass = 0; kind->loop_at && pass < 3; pass++)
            for (int i = 0; (name = kind->loop_at(pass, i)); i++) {
                snprintf(loops, sizeof loops, "%s.%s=%s", kind->name, passes[pass], name);
                check_example(isa, line, loops, &kind);
            }
    }
    fclose(f);
}

int main(int n, char **argument)
{
    if (n > 1 && !strcmp(argument[1], "fault")) {
        fault();
        return 0;
    }
    const int networks = n > 1 ? atoi(argument[1]) : 20;
    check_distance();
    check_everywhere(digits, "digits", 1, 23);
    check_everywhere(branches, "branches", 2, 23);
    check_everywhere(separable, "separable", 3, 23);
    check_everywhere(wide, "wide", 5, 23);
    for (int i = 0; i < networks; i++) {
        char name[40];
        snprintf(name, sizeof name, "random network %d", i);
        check_everywhere(any, name, 1000 + (uint64_t)i, 11);
    }
    const instruction_set *isa;
    for (int i = 0; (isa = supported_isa(i)); i++) {
        check_examples(isa, "tests/c/layers.txt");
        seed = 4;
        for (int workers = 1; workers <= 8; workers *= 2) {
            check_exchange(isa, workers);
            for (int v = workers == 1 ? SEQUENTIAL : CHAOS; v < VARIANTS; v++) {
                for (int batch = 1; batch <= 16; batch *= 4)
                    check_conservation(isa, workers, batch, v);
                check_stop(isa, workers, v % 2 ? 1 : 3, v, TRAIN);
            }
            check_stop(isa, workers, 3, workers == 1 ? SEQUENTIAL : CHAOS, TRAIN);
            check_stop(isa, workers, 1, workers == 1 ? SEQUENTIAL : CHAOS, TEST);
            for (int s = 0; strategy_at(s); s++)
                if (workers < 8 && (workers == 1 || !strategy_at(s)->single)) {
                    check_rules(isa, strategy_at(s), workers, 1);
                    check_rules(isa, strategy_at(s), workers, 5);
                }
        }
        for (int v = CHAOS; v < VARIANTS; v++)
            check_divergence(isa, v, TRAIN);
        check_divergence(isa, CHAOS, TEST);
        check_engines_at_once(isa);
        check_pinning(isa);
        check_times(isa);
        static const char *const meeting[] = {"synchronous", "hybrid", "averaging", "delayed"};
        for (int k = 0; k < 4; k++)
            for (int batch = 1; batch <= 13; batch += 12) {
                check_meetings(digits(isa), "meetings, digits", meeting[k], 41, batch, k < 2);
                check_meetings(branches(isa), "meetings, branches", meeting[k], 41, batch, k < 2);
                check_meetings(wide(isa), "meetings, wide", meeting[k], 41, batch, k < 2);
            }
        check_lanes(isa);
        for (int workers = 1; workers <= 8; workers *= 2)
            for (int batch = 1; batch <= 13; batch += 12) {
                for (int v = CHAOS; v <= AT_PUBLICATION; v++) {
                    check_traces(digits(isa), "traces, digits", v, workers, batch, 1);
                    check_traces(branches(isa), "traces, branches", v, workers, batch, 3);
                }
                check_clock(branches(isa), &clock_order_chaos, AT_PUBLICATION, workers, batch);
                for (int i = 0; orders_at(i); i++) {
                    const clock_order *order = orders_at(i);
                    const int v = variant_of(order->name), one = order == &clock_order_sequential;
                    if (!one || workers == 1)
                        check_clock(branches(isa), order, v, workers, batch);
                    if (!one && !order->place && (!order->cuts || order->in_lanes)) /* CHAOS's engine can do these too */
                        check_clock(branches(isa), order, CHAOS, workers, batch);
                }
                for (int v = variant_of("replicated"); workers > 2 && !strcmp(variants[v].name, "replicated"); v++)
                    check_clock(branches(isa), &clock_order_replicated, v, workers, batch);
            }
    }
    for (int i = 0; (isa = supported_isa(i)); i++)
        printf("%s%s", i ? ", " : "", isa->name);
    printf(": %d networks, %d phases, %lld stripes found locked, %lld updates late (at most %lld behind): %s\n", n_networks,
           n_phases, (long long)lock_failures, (long long)late, (long long)latest, failures ? "WRONG" : "all right");
    return failures > 0;
}
