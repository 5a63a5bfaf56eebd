/* The examples that kinds give of themselves (layers.txt), with every loop. For driver.c. */
#ifndef DRIVER_EXAMPLES_H
#define DRIVER_EXAMPLES_H

#include "engines.h"

#include "engine/pass.h"
#include "engine/threads.h"

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
    plan *p = plan_new(isa, 0, loops, loops && strstr(loops, "=bf16") ? &bf16_plain : NULL);
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

/* Backward once more, with NaN wherever the layer says that it does not look. */
static void check_forgotten(const plan *p, float *w, const data *d, const layer_kind *kind, int n)
{
    engine *e = engine_for(p, w, 1, n, 4096, SEQUENTIAL, CROSS_ENTROPY);
    expect(!bench_open(e), "an engine that is new has workers");
    run(e, GRADIENTS, &d->view, n, 0, NULL);
    expect(bench_open(e) == -1, "an engine with workers is made one for benchmarks");
    worker *v = e->worker[0];
    float *gradient = copy(v->dw, p->weight_size);
    const int at = p->n_nodes - 2; /* where example() has put it */
    const plan_node *node = &p->node[at];
    for (int k = 0; k < node->g.n_inputs && kind->forgets & FORGETS_X; k++)
        memset(v->value[node->input[k]], 0xff, p->node[node->input[k]].value_stride * (size_t)n * sizeof(float));
    if (kind->forgets & FORGETS_Y)
        memset(v->value[at], 0xff, node->value_stride * (size_t)n * sizeof(float));
    const float_mode old = flush_denormals(); /* as in a phase */
    for (int i = p->n_nodes - 1; i >= p->n_inputs; i--) {
        call c;
        if (pass_learns(e, i))
            pass_backward_node(v, i, n, 1, 1, &c);
    }
    restore_denormals(old);
    expect(!memcmp(gradient, v->dw, p->weight_size * sizeof *gradient), "%s looks at what it says that it forgets",
           kind->name);
    free(gradient);
    engine_free(e);
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
        check_forgotten(p, w, &d, *kind, batch);
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

#endif
