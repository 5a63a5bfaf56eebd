/* One engine and one phase: strategies in variants, and what every run must satisfy. For driver.c. */
#ifndef DRIVER_ENGINES_H
#define DRIVER_ENGINES_H

#include "networks.h"

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
    {"domains", 0, 1, 0, 0, {0}},
    {"domains", 1, 1, 1, 1, {1, 2, 1}},
    {"domains", 1, 1, 0, 0, {2, 3, 1}},
    {"domains", 0, 1, 0, 0, {2, 3, 0.5}},
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

/* The loss of all outputs, as the only term. */
static loss_term whole_output(const plan *p, const char *name)
{
    return (loss_term){
        .kind = loss_named(p->isa, name), .k = (int)shape_size(p->node[p->output].g.out), .pixels = p->pixels, .factor = 1};
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
    const loss_term term = whole_output(p, loss);
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
                                           .n_terms = 1,
                                           .term = &term});
    if (!e)
        abort();
    return e;
}

/* Stripes that one step publishes. */
static int64_t live_stripes(const engine *e)
{
    int64_t n = 0;
    for (int k = 0; k < e->shared.n_stripes; k++)
        n += e->p->node[e->stripe[k].node].n_deltas > 0 && !e->stripe[k].frozen;
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
    for (int s = SHARED_FORWARD; s <= SHARED_LEARNING; s++)
        for (int i = 0; i < p->n_nodes; i++) {
            memset(v->values[s][i], 0xff, p->node[i].value_stride * chunk);
            memset(v->keeps[s][i], 0xff, p->node[i].g.keep_size * chunk);
        }
    for (int i = 0; i < p->n_edges; i++)
        if (p->node[p->edge[i].node].pool < 0)
            memset(v->delta[i], 0xff, p->node[p->edge[i].node].value_stride * chunk);
    memset(v->scratch, 0xff, p->scratch_size * sizeof(float));
}

/* The loss in two terms has the gradient of the loss. */
static void check_terms(const plan *p, float *w, const float *gradient, const data *d)
{
    const engine_parts parts = {.p = p,
                                .weights = w,
                                .n_workers = 1,
                                .batch = 3,
                                .stripe_bytes = 4096,
                                .strategy = strategy_named(variants[SEQUENTIAL].name),
                                .rule = rule_named(p->isa, "sgd"),
                                .n_terms = 2,
                                .term = (loss_term[]){whole_output(p, CROSS_ENTROPY), whole_output(p, CROSS_ENTROPY)}};
    ((loss_term *)parts.term)[0].factor = 0.25f;
    ((loss_term *)parts.term)[1].factor = 0.75f;
    engine *e = engine_new(&parts);
    if (!e)
        abort();
    images view = d->view;
    view.target[1] = view.target[0];
    run(e, GRADIENTS, &view, d->n, 0, NULL);
    same(e->worker[0]->dw, gradient, p->weight_size, 1e-4, "the gradient of two terms");
    engine_free(e);
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
        unlabelled.target[0].numbers = (feed){.size = 0};
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
    check_terms(p, w0, gradient[1], &d);

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

#endif
