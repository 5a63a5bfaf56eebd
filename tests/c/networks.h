/* The networks of the driver, their weights and data. For driver.c. */
#ifndef DRIVER_NETWORKS_H
#define DRIVER_NETWORKS_H

#include "chance.h"

/* ---- networks ---- */

static const int nothing[1];
static const float no_number[1];

/* Parts that training leaves as they are, of the layers that are made from now on; see plan_layer. */
static unsigned frozen;

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
                                  .frozen = frozen,
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
    return layer(p, "max_pool2d", input, 0, 11, (const int[]){kh, kw, sh, sw, 0, 0, 1, 1, 0, 0, 0});
}

static int conv(plan *p, int input, int channels, int k, int padding)
{
    const int q = padding;
    return layer(p, "conv2d", input, channels, 12, (const int[]){k, k, 1, 1, q, q, q, q, 1, 1, 1, 1});
}

static plan *begin(const instruction_set *isa, int c, int h, int w)
{
    const char *reason;
    plan *p = plan_new(isa, 0, NULL, NULL);
    if (!p || plan_add_input(p, (shape){c, h, w}, &reason) < 0)
        abort();
    return p;
}

static plan *finish(plan *p, int output)
{
    if (output < 0 || plan_finish(p, output, 1) < 0)
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

/* As digits: of the first layer the weights are frozen, of the second everything, of the third the biases. */
static plan *partly(const instruction_set *isa)
{
    plan *p = begin(isa, 1, 18, 19);
    frozen = 1;
    int x = act(p, "tanh", pool(p, conv(p, 0, 5, 4, 0), 2, 2, 2, 2));
    frozen = 3;
    x = act(p, "scaled_tanh", pool(p, conv(p, x, 20, 3, 1), 3, 3, 3, 3));
    frozen = 2;
    x = act(p, "relu", linear(p, act(p, "flatten", x), 33, 1));
    frozen = 0;
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
    const int x = act(p, "relu", linear(p, 0, 130, 1)), y = act(p, "relu", linear(p, x, 64, 1));
    return finish(p, linear(p, act(p, "tanh", linear(p, y, 65, 0)), 10, 1));
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
                int option[11] = {0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0};
                for (int i = 0; i < 4; i++)
                    option[i] = i && below(3) ? option[0] : 1 + below(3);
                made = layer(p, "max_pool2d", from, 0, 11, option);
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

/* Random weights and state at the places of parameters, which are marked with their node; the rest stays zero and 0. */
static float *weights_of(const plan *p, int *node_at)
{
    float *w = aligned_alloc(64, p->weight_size * sizeof *w);
    if (!w)
        abort();
    memset(w, 0, p->weight_size * sizeof *w);
    memset(node_at, 0, p->weight_size * sizeof *node_at);
    for (int i = 1; i < p->n_nodes; i++) {
        const plan_node *n = &p->node[i];
        if (!n->g.weight_size && !n->g.state_size)
            continue;
        ptrdiff_t at, size = 0;
        while (n->kind->locate(&n->g, 0, size) >= 0)
            size++;
        const float most = size ? sqrtf(3.f * (float)n->g.out.c / (float)size) : 0;
        for (int k = 0; k < n_parts(n); k++)
            for (ptrdiff_t j = 0; (at = n->kind->locate(&n->g, k, j)) >= 0; j++) {
                expect((size_t)at < n->g.weight_size + n->g.state_size && !node_at[n->weight_at + (size_t)at],
                       "node %d: place %td is taken", i, at);
                /* what is observed may be a variance */
                w[n->weight_at + (size_t)at] = n->kind->parts[k].state ? between(0.5f, 2) : between(-most, most);
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
    data d = {{.target = {{TARGET_CLASS, {.numbers = labels, .size = 1}}}, .order = order}, n};
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
    free((void *)d.view.target[0].numbers.numbers);
    free((void *)d.view.order);
}

#endif
