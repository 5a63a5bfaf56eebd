/* Fully connected layer that loses connections while it trains: y = (M * W) x + m * b, with 0 for what an image loses, with
 * probability p, and `factor` for the rest; y = W x + b otherwise. Body: included by cext/isa/ only.
 *
 * Weight block as in linear.c: [input][output padded to LANES], then a row of biases. Number i * outputs + o of an image says
 * of a weight whether it is there, number inputs * outputs + o of a bias. Masks are drawn again in back-propagation: there are
 * as many numbers for each image as weights. */
#include "layer.h"
#include "uniform.h"

enum { CONNECT_BIAS };          /* whole option */
enum { CONNECT_P, CONNECT_FACTOR }; /* real ones */

INLINE size_t connect_inputs(const geometry *g) { return shape_size(g->in[0]); }
INLINE size_t connect_pad(const geometry *g) { return round_up((size_t)g->out.c, LANES); }

KERNEL const char *drop_connect_set_up(geometry *g)
{
    if (g->out.c < 1)
        return "the number of outputs must be positive";
    if (g->in[0].h != 1 || g->in[0].w != 1)
        return "the input must be a vector: put Flatten() before it";
    g->out.h = g->out.w = 1;
    g->properties = RANDOM;
    g->rows = connect_inputs(g);
    g->columns = connect_pad(g);
    g->weight_size = (g->rows + 1) * g->columns;
    g->scratch_size = 2 * connect_pad(g);
    return NULL;
}

KERNEL ptrdiff_t drop_connect_locate(const geometry *g, int k, ptrdiff_t i)
{
    const ptrdiff_t in = (ptrdiff_t)connect_inputs(g), out = g->out.c, pad = (ptrdiff_t)connect_pad(g);
    if (k == 1)
        return i < out ? in * pad + i : -1;
    return i < in * out ? i % in * pad + i / in : -1;
}

/* Factors of the weights of one input, or of the biases, behind the last input; 0 behind them. There are fewer
 * than 2^32 of them. */
KERNEL const float *connect_mask(const geometry *g, const call *c, int n, size_t input)
{
    const size_t out = (size_t)g->out.c, first = input * out;
    const ivec limit = uniform_limit(g->real[CONNECT_P]);
    float *mask = c->scratch;
    const vec factor = vset(c->training ? g->real[CONNECT_FACTOR] : 1);
    for (size_t o = 0; o < out; o += VW) {
        ivec there = iset(-1);
        if (c->training)
            there = uniform_bits(c->key[n], uniform_numbers((uint32_t)(first + o))) >= limit;
        vstore(mask + o, (vec)((ivec)factor & there));
    }
    for (size_t o = out; o < connect_pad(g); o++)
        mask[o] = 0;
    return mask;
}

KERNEL void drop_connect_forward(const geometry *g, const call *c)
{
    const size_t in = connect_inputs(g), pad = connect_pad(g);
    float *sum = c->scratch + pad;
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride, *mask = connect_mask(g, c, n, in);
        for (size_t o = 0; o < pad; o += VW)
            vstore(sum + o, vload(mask + o) * vload(c->w + in * pad + o));
        for (size_t i = 0; i < in; i++) {
            const vec a = vset(x[i]);
            mask = c->training || !i ? connect_mask(g, c, n, i) : mask;
            for (size_t o = 0; o < pad; o += VW)
                vstore(sum + o, vload(sum + o) + a * (vload(mask + o) * vload(c->w + i * pad + o)));
        }
        memcpy(c->y.p + (size_t)n * c->y.stride, sum, (size_t)g->out.c * sizeof *sum);
    }
}

/* dw = mask * dy * a, or that much more. */
INLINE void connect_gradient(size_t pad, const float *mask, const float *dy, float a, int first, float *dw)
{
    const vec keep = vset(first ? 0 : 1), by = vset(a);
    for (size_t o = 0; o < pad; o += VW)
        vstore(dw + o, by * (vload(mask + o) * vload(dy + o)) + keep * vload(dw + o));
}

KERNEL void drop_connect_backward(const geometry *g, const call *c)
{
    const size_t in = connect_inputs(g), pad = connect_pad(g), out = (size_t)g->out.c;
    float *dy = c->scratch + pad;
    for (int n = 0; n < c->n; n++) {
        const int first = c->first && n == 0;
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        memcpy(dy, c->dy.p + (size_t)n * c->dy.stride, out * sizeof *dy);
        memset(dy + out, 0, (pad - out) * sizeof *dy);
        for (size_t i = 0; i < in; i++) {
            const float *mask = connect_mask(g, c, n, i), *w = c->w + i * pad;
            vec sum = vset(0);
            for (size_t o = 0; o < pad; o += VW)
                sum += vload(dy + o) * (vload(mask + o) * vload(w + o));
            float total = 0;
            for (int k = 0; k < VW; k++)
                total += sum[k];
            if (c->dx[0].p) /* before dw, which may be the weights themselves */
                c->dx[0].p[(size_t)n * c->dx[0].stride + i] = total;
            connect_gradient(pad, mask, dy, x[i], first, c->dw + i * pad);
        }
        if (g->whole[CONNECT_BIAS])
            connect_gradient(pad, connect_mask(g, c, n, in), dy, 1, first, c->dw + in * pad);
    }
}

static const part drop_connect_parts[] = {{"weight", 0}, {"bias", 0}};
static const layer_kind layer_drop_connect = {.name = "drop_connect",
                                              .n_parts = 2,
                                              .parts = drop_connect_parts,
                                              .set_up = drop_connect_set_up,
                                              .locate = drop_connect_locate,
                                              .forward = drop_connect_forward,
                                              .backward = drop_connect_backward,
                                              .forgets = FORGETS_Y};
