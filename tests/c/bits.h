/* What is known to the last bit: sums of updates, exchange, update rules. For driver.c. */
#ifndef DRIVER_BITS_H
#define DRIVER_BITS_H

#include "engines.h"

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
    const images view = {.input = {{.floats = x, .size = IN}}, .target = {{TARGET_CLASS, {.numbers = labels, .size = 1}}}};
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
    const images view = {.input = {{.floats = x, .size = IN}}, .target = {{TARGET_CLASS, {.numbers = labels, .size = 1}}}};
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
        const loss_term term = whole_output(p, CROSS_ENTROPY);
        engine_parts parts = {.p = p,
                              .weights = copy(w0, p->weight_size),
                              .n_workers = workers,
                              .batch = batch,
                              .stripe_bytes = 256,
                              .strategy = strategy,
                              .rule = *rule,
                              .rule_options = option,
                              .n_terms = 1,
                              .term = &term};
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

#endif
