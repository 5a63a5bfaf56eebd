/* Other threads: who stops, diverges, is pinned, meets, or exchanges beside workers. For driver.c. */
#ifndef DRIVER_TEAMS_H
#define DRIVER_TEAMS_H

#include "engines.h"

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

/* What is frozen keeps its bits, whatever the strategy. */
static void check_frozen(const instruction_set *isa, int workers, int batch, int v)
{
    plan *p = partly(isa);
    describe(p, "frozen");
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w0 = weights_of(p, node_at), *w = copy(w0, p->weight_size);
    data d = data_for(p, 40, 1);
    engine *e = engine_for(p, w, workers, batch, 256, v, CROSS_ENTROPY);
    for (int i = 0; i < 2; i++)
        run(e, TRAIN, &d.view, d.n, 0.01f, NULL);
    int changed[2] = {0};
    for (int k = 0; k < e->shared.n_stripes; k++) {
        const stripe *s = &e->stripe[k];
        changed[s->frozen] += memcmp(w + s->at, w0 + s->at, s->size * sizeof *w) != 0;
    }
    expect(changed[0] && !changed[1], "%s, %d workers: %d trained and %d frozen stripes have changed", variants[v].name,
           workers, changed[0], changed[1]);
    only_parameters(w, node_at, p->weight_size, "weights");
    engine_free(e);
    data_free(d);
    free(w);
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
        const loss_term term = whole_output(p, CROSS_ENTROPY);
        engine *e = engine_new(&(engine_parts){.p = p,
                                               .weights = w,
                                               .n_workers = WORKERS,
                                               .cpus = cpus,
                                               .batch = 3,
                                               .stripe_bytes = 256,
                                               .strategy = strategy_named("chaos"),
                                               .rule = rule_named(p->isa, "sgd"),
                                               .n_terms = 1,
                                               .term = &term});
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

#endif
