/* Orders of events: traces that are replayed, and those that the clock invents. For driver.c. */
#ifndef DRIVER_ORDERS_H
#define DRIVER_ORDERS_H

#include "engines.h"

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
                         .group = p->group,
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
            *l = (clock_layer){.node = i, .learns = plan_trains(p, i), .forward = 1e-6, .backward = 1e-6};
            stripes_of(e, i, &l->first, &l->end);
        }
    for (int k = 0; k < parts.n_stripes; k++)
        stripe[k] = (clock_stripe){.publish = 1e-6, .lines = 4, .learns = plan_trains(p, e->stripe[k].node)};
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

#endif
