/* While it trains: y = factor * (x, or with probability p `there`) + offset, for entries or for whole channels; y = x
 * otherwise. What is dropped is drawn again in back-propagation, which takes no longer than to keep it. Number j of an image
 * is of its j-th value as it lies in memory, or of channel j. Body: included by cext/isa/ only. */
#include "columns.h"
#include "uniform.h"

enum { DROPOUT_CHANNELS };                                              /* whole option */
enum { DROPOUT_P, DROPOUT_THERE, DROPOUT_FACTOR, DROPOUT_OFFSET }; /* real ones */

KERNEL const char *dropout_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = RANDOM;
    g->scratch_size = g->whole[DROPOUT_CHANNELS] ? columns_padded((size_t)g->out.c, shape_size(g->out)) : 0;
    return NULL;
}

/* The options as vectors: what is read through g would be read again after every store. */
typedef struct {
    ivec limit;
    vec factor, there, offset;
} dropout_options;

INLINE dropout_options dropout_options_of(const geometry *g)
{
    const float *o = g->real;
    return (dropout_options){uniform_limit(o[DROPOUT_P]), vset(o[DROPOUT_FACTOR]),
                             vset(o[DROPOUT_THERE] * o[DROPOUT_FACTOR]), vset(o[DROPOUT_OFFSET])};
}

/* Factors of values [j, j + VW), 0 where they are dropped. */
INLINE vec dropout_draw(const dropout_options *o, uint64_t key, uvec j)
{
    return (vec)((ivec)o->factor & (uniform_bits(key, j) >= o->limit));
}

/* Those of the channels of an image, repeated for a row of columns.h. */
INLINE void dropout_channels(const dropout_options *o, uint64_t key, size_t C, size_t row, float *factor)
{
    for (size_t k = 0; k < C; k += VW)
        vstore(factor + k, dropout_draw(o, key, uniform_numbers((uint32_t)k)));
    for (size_t k = C; k < row; k++)
        factor[k] = factor[k - C];
}

/* What is dropped is not multiplied: it may be infinite. Gradients have nothing in its place. */
INLINE vec dropout_of(const int back, const dropout_options *o, vec x, vec f)
{
    return back ? (vec)(x * f) : (vec)(vselect(f == 0.f, o->there, x * f) + o->offset);
}

/* Images, or their gradients. */
INLINE void dropout_images(const int back, const geometry *g, const call *c, source from, sink to)
{
    const dropout_options o = dropout_options_of(g);
    const size_t C = (size_t)g->out.c, size = shape_size(g->out), row = columns_row(C, size);
    for (int n = 0; n < c->n; n++) {
        const float *x = from.p + (size_t)n * from.stride;
        float *y = to.p + (size_t)n * to.stride;
        if (!c->training) {
            memcpy(y, x, size * sizeof *y);
        } else if (g->whole
                       [DROPOUT_CHANNELS]) { /* addresses ascend: what spills over is written again, or lies in the slack */
            dropout_channels(&o, c->key[n], C, row, c->scratch);
            for (size_t base = 0; base < size; base += row)
                for (size_t k = 0; k < row && base + k < size; k += VW)
                    vstore(y + base + k, dropout_of(back, &o, vload(x + base + k), vload(c->scratch + k)));
        } else {
            const uint64_t key = c->key[n];
            uvec j = uniform_numbers(0);
            for (size_t i = 0; i < size; i += VW, j += VW)
                vstore(y + i, dropout_of(back, &o, vload(x + i), dropout_draw(&o, key, j)));
        }
    }
}

KERNEL void dropout_forward(const geometry *g, const call *c) { dropout_images(0, g, c, c->x[0], c->y); }

KERNEL void dropout_backward(const geometry *g, const call *c)
{
    if (c->dx[0].p)
        dropout_images(1, g, c, c->dy, c->dx[0]);
}

static const layer_kind layer_dropout = {.name = "dropout",
                                         .set_up = dropout_set_up,
                                         .forward = dropout_forward,
                                         .backward = dropout_backward,
                                         .forgets = FORGETS_X | FORGETS_Y};
