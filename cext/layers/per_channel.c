/* y = f(x, weight, bias), entry by entry, with a weight and a bias for each channel or one for all: a row for each function,
 * with its derivatives times dy.
 *
 * Weight block: weights, then the biases if there are any, each padded to LANES. So that vectors are full whatever the channels,
 * weights are repeated until a row of whole vectors ends with a channel's end; channels that would need a long row for that
 * are walked through pixel by pixel. Body: included by cext/isa/ only. */
#include "layer.h"

enum { CHANNEL_WEIGHTS, CHANNEL_BIAS }; /* how many weights there are; whether there are biases */
enum { LONG_ROW = 64 }; /* channels from which on a row is a pixel */
enum { CHANNEL_BLOCK = 4, CHANNEL_ROWS = 32 }; /* vectors side by side, and rows one after the other, that are summed up */

typedef struct {
    size_t row, room, pad; /* floats of a row, of its copy in scratch, from weights to biases */
} channel_rows;

KERNEL const char *per_channel_set_up(geometry *g)
{
    const size_t C = (size_t)g->in[0].c, W = (size_t)g->whole[CHANNEL_WEIGHTS];
    if (W != 1 && W != C)
        return "there must be one weight, or one for each channel";
    size_t row = C;
    while (C < LONG_ROW && row % VW)
        row += C;
    channel_rows *r = (channel_rows *)g->derived;
    *r = (channel_rows){row, round_up(row, LANES), round_up(W, LANES)};
    g->out = g->in[0];
    g->weight_size = r->pad * (g->whole[CHANNEL_BIAS] ? 2 : 1);
    g->scratch_size = 4 * r->room;
    return NULL;
}

KERNEL ptrdiff_t per_channel_locate(const geometry *g, int k, ptrdiff_t i)
{
    if (i >= g->whole[CHANNEL_WEIGHTS] || (k == 1 && !g->whole[CHANNEL_BIAS]))
        return -1;
    return k * (ptrdiff_t)((const channel_rows *)g->derived)->pad + i;
}

/* Weights and biases, repeated for a row. */
INLINE void channel_repeat(const geometry *g, const call *c, float *weight, float *bias)
{
    const channel_rows *r = (const channel_rows *)g->derived;
    const size_t n = (size_t)g->whole[CHANNEL_WEIGHTS];
    for (size_t i = 0, at = 0; i < r->row; i++, at = at + 1 == n ? 0 : at + 1) {
        weight[i] = c->w[at];
        bias[i] = g->whole[CHANNEL_BIAS] ? c->w[r->pad + at] : 0;
    }
}

/* Adds the sums of a row's places to the gradient. */
INLINE void channel_gather(const geometry *g, const call *c, const float *sum, float *gradient)
{
    const size_t n = (size_t)g->whole[CHANNEL_WEIGHTS], row = ((const channel_rows *)g->derived)->row;
    for (size_t at = 0; at < n; at++) {
        float total = 0;
        for (size_t i = at; i < row; i += n)
            total += sum[i];
        gradient[at] = c->first ? total : gradient[at] + total;
    }
}

static const part prelu_parts[] = {{"weight", 0}};
static const part channel_scale_parts[] = {{"weight", 0}, {"bias", 0}};

#define CHANNEL_ROW(id, of_x, times_dy, of_weight)                                                                          \
    enum { id##_biased = sizeof id##_parts / sizeof *id##_parts == 2 };                                                     \
    KERNEL void id##_forward(const geometry *g, const call *c)                                                              \
    {                                                                                                                       \
        const channel_rows r = *(const channel_rows *)g->derived;                                                           \
        const size_t size = shape_size(g->out);                                                                             \
        float *const weights = c->scratch, *const biases = c->scratch + r.room;                                             \
        channel_repeat(g, c, weights, biases);                                                                              \
        for (int n = 0; n < c->n; n++) {                                                                                    \
            const float *from = c->x[0].p + (size_t)n * c->x[0].stride;                                                     \
            float *to = c->y.p + (size_t)n * c->y.stride;                                                                   \
            for (size_t base = 0; base < size; base += r.row)                                                               \
                for (size_t k = 0; k < r.row && base + k < size; k += VW) {                                                 \
                    const vec x = vload(from + base + k), w = vload(weights + k), b = vload(biases + k);                    \
                    (void)b;                                                                                                \
                    vstore(to + base + k, of_x);                                                                            \
                }                                                                                                           \
        }                                                                                                                   \
    }                                                                                                                       \
    INLINE void id##_back(const int V, const float *from, const float *back, float *to, size_t rows, size_t step,           \
                          const float *weights, float *sums, float *bias_sums)                                              \
    {                                                                                                                       \
        vec s[CHANNEL_BLOCK], b[CHANNEL_BLOCK];                                                                             \
        _Pragma("GCC unroll 4") for (int v = 0; v < V; v++) s[v] = vload(sums + v * VW), b[v] = vload(bias_sums + v * VW);  \
        for (size_t i = 0; i < rows; i++, from += step, back += step, to = to ? to + step : NULL)                           \
            _Pragma("GCC unroll 4") for (int v = 0; v < V; v++)                                                             \
            {                                                                                                               \
                const vec x = vload(from + v * VW), dy = vload(back + v * VW), w = vload(weights + v * VW);                 \
                if (to)                                                                                                     \
                    vstore(to + v * VW, times_dy);                                                                          \
                s[v] += of_weight;                                                                                          \
                b[v] += dy;                                                                                                 \
            }                                                                                                               \
        _Pragma("GCC unroll 4") for (int v = 0; v < V; v++)                                                                 \
        {                                                                                                                   \
            vstore(sums + v * VW, s[v]);                                                                                    \
            if (id##_biased)                                                                                                \
                vstore(bias_sums + v * VW, b[v]);                                                                           \
        }                                                                                                                   \
    }                                                                                                                       \
    KERNEL void id##_backward(const geometry *g, const call *c)                                                             \
    {                                                                                                                       \
        const channel_rows r = *(const channel_rows *)g->derived;                                                           \
        const size_t size = shape_size(g->out);                                                                             \
        float *const weights = c->scratch, *const biases = weights + r.room, *const sums = biases + r.room;                 \
        float *const bias_sums = sums + r.room;                                                                             \
        channel_repeat(g, c, weights, biases);                                                                              \
        memset(sums, 0, 2 * r.room * sizeof(float));                                                                        \
        for (int n = 0; n < c->n; n++) {                                                                                    \
            const float *from = c->x[0].p + (size_t)n * c->x[0].stride, *back = c->dy.p + (size_t)n * c->dy.stride;         \
            float *to = c->dx[0].p ? c->dx[0].p + (size_t)n * c->dx[0].stride : NULL;                                       \
            for (size_t base = 0; base < size; base += CHANNEL_ROWS * r.row) {                                              \
                const size_t here = size - base < CHANNEL_ROWS * r.row ? size - base : CHANNEL_ROWS * r.row;                \
                size_t k = 0;                                                                                               \
                for (; here >= r.row && k + CHANNEL_BLOCK * VW <= r.row; k += CHANNEL_BLOCK * VW)                           \
                    id##_back(CHANNEL_BLOCK, from + base + k, back + base + k, to ? to + base + k : NULL, here / r.row,     \
                              r.row, weights + k, sums + k, bias_sums + k);                                                 \
                for (size_t first = 0; first < here; first += r.row) /* what fills no block */                              \
                    for (size_t j = here - first < r.row ? 0 : k; j < r.row && first + j < here; j += VW) {                 \
                        const size_t at = base + first + j, left = (here - first < r.row ? here - first : r.row) - j;       \
                        const int lanes = left < VW ? (int)left : VW;                                                       \
                        const vec x = vload_n(from + at, lanes), dy = vload_n(back + at, lanes), w = vload(weights + j);    \
                        if (to)                                                                                             \
                            vstore_n(to + at, times_dy, lanes);                                                             \
                        vstore(sums + j, vload(sums + j) + (of_weight));                                                    \
                        vstore(bias_sums + j, vload(bias_sums + j) + dy);                                                   \
                    }                                                                                                       \
            }                                                                                                               \
        }                                                                                                                   \
        if (c->dw)                                                                                                          \
            channel_gather(g, c, sums, c->dw);                                                                              \
        if (c->dw && g->whole[CHANNEL_BIAS])                                                                                \
            channel_gather(g, c, bias_sums, c->dw + r.pad);                                                                 \
    }                                                                                                                       \
    static const layer_kind layer_##id = {.name = #id,                                                                      \
                                          .n_parts = sizeof id##_parts / sizeof *id##_parts,                                \
                                          .parts = id##_parts,                                                              \
                                          .set_up = per_channel_set_up,                                                     \
                                          .locate = per_channel_locate,                                                     \
                                          .forward = id##_forward,                                                          \
                                          .backward = id##_backward,                                                        \
                                          .forgets = FORGETS_Y};

/* clang-format off */
/*        name           what it is                  dx                             the weight's */
CHANNEL_ROW(prelu,         vselect(x > 0.f, x, w * x), vselect(x > 0.f, dy, w * dy),  vselect(x > 0.f, vset(0), x * dy))
CHANNEL_ROW(channel_scale, x * w + b,                  dy * w,                        x * dy)
/* clang-format on */
