/* Linear layers with factors rounded to bfloat16, by the units of cext/bf16. Included by linear.c only. Samples pass in blocks,
 * and so do outputs or inputs, so that what is packed stays small however large the layer is. */
#ifndef CHAOS_LINEAR_BF16_H
#define CHAOS_LINEAR_BF16_H

enum { HALF_SAMPLES = 64, HALF_WIDE = 64 }; /* multiples of BF16_DEPTH and BF16_LINES */

typedef struct {
    ptrdiff_t *run; /* block after block */
    uint16_t *left, *right, *room;
} linear_halves;

INLINE size_t whole_blocks(size_t n) { return round_up(n, BF16_DEPTH); }

/* Lays the parts out from `memory` (NULL: only counts) and returns the floats they take. */
INLINE size_t linear_halves_at(size_t in, size_t pad, float *memory, linear_halves *h)
{
    size_t deep = in > pad ? in : pad, used = 0;
    deep = whole_blocks(deep > HALF_SAMPLES ? deep : HALF_SAMPLES);
#define PART(type, name, n)                                                                                                 \
    (h->name = memory ? (type *)(memory + used) : NULL, used += round_up((n) * sizeof(type) / sizeof(float), LANES))
    PART(ptrdiff_t, run, deep / BF16_DEPTH);
    PART(uint16_t, left, HALF_SAMPLES *deep);
    PART(uint16_t, right, HALF_WIDE *deep);
    PART(uint16_t, room, 2 * BF16_LINES * deep);
#undef PART
    for (size_t k = 0; memory && k < deep / BF16_DEPTH; k++)
        h->run[k] = (ptrdiff_t)(k * BF16_DEPTH);
    return used;
}

INLINE int half_part(size_t left, int most) { return left < (size_t)most ? (int)left : most; }

/* Rows of `left`, so many samples of n numbers from sample `first` on. */
INLINE void halves_round(const geometry *g, const linear_halves *h, const source *x, int first, int samples, size_t n)
{
    for (int s = 0; s < samples; s++)
        g->bf16->round(n, x->p + (size_t)(first + s) * x->stride, h->left + (size_t)s * whole_blocks(n));
}

/* to (+)= from + left right, of so many rows and columns, with sums of `deep` terms; `from` may be NULL. */
INLINE void halves_product(const geometry *g, const linear_halves *h, size_t deep, int rows, int columns, const float *from,
                           int adds, float *to, size_t step)
{
    const bf16_product p = {.rows = rows,
                            .depth = (int)(deep / BF16_DEPTH),
                            .columns = columns,
                            .wide = rows,
                            .a = h->left,
                            .a_step = (ptrdiff_t)deep,
                            .run = h->run,
                            .b = h->right,
                            .from = from,
                            .adds = adds,
                            .to = to,
                            .to_step = (ptrdiff_t)step,
                            .room = h->room};
    g->bf16->product(&p);
}

/* The bias is a row of padded outputs. */
KERNEL void linear_forward_halves(const geometry *g, const call *c, void *bias_row)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g), out = (size_t)g->out.c, deep = whole_blocks(in);
    const bf16_unit *unit = g->bf16;
    const float *row[BF16_DEPTH];
    linear_halves h;
    linear_halves_at(in, pad, c->scratch + pad, &h);
    for (int n = 0, samples; n < c->n; n += samples) {
        samples = half_part((size_t)(c->n - n), HALF_SAMPLES);
        halves_round(g, &h, &c->x[0], n, samples, in);
        for (size_t o = 0; o < out; o += HALF_WIDE) {
            const int wide = half_part(out - o, HALF_WIDE);
            for (size_t i = 0; i < in; i += BF16_DEPTH) {
                for (size_t k = 0; k < BF16_DEPTH; k++)
                    row[k] = i + k < in ? c->w + (i + k) * pad + o : NULL;
                unit->pairs(row, (size_t)wide, h.right + i * BF16_LINES, deep * BF16_LINES);
            }
            halves_product(g, &h, deep, samples, wide, (const float *)bias_row + o, 0, c->y.p + (size_t)n * c->y.stride + o,
                           c->y.stride);
        }
    }
}

KERNEL void linear_dw_halves(const geometry *g, const call *c, void *work)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    const bf16_unit *unit = g->bf16;
    const float *row[BF16_DEPTH];
    linear_halves h;
    linear_halves_at(in, pad, c->scratch + pad, &h);
    for (int n = 0, samples; n < c->n; n += samples) {
        samples = half_part((size_t)(c->n - n), HALF_SAMPLES);
        const size_t deep = whole_blocks((size_t)samples);
        for (size_t s = 0; s < deep; s += BF16_DEPTH) {
            for (size_t k = 0; k < BF16_DEPTH; k++)
                row[k] = s + k < (size_t)samples ? c->dy.p + ((size_t)n + s + k) * c->dy.stride : NULL;
            unit->pairs(row, (size_t)g->out.c, h.right + s * BF16_LINES, deep * BF16_LINES);
        }
        for (size_t i = 0; i < in; i += HALF_WIDE) {
            const int rows = half_part(in - i, HALF_WIDE);
            for (size_t s = 0; s < deep; s += BF16_DEPTH) {
                for (size_t k = 0; k < BF16_DEPTH; k++)
                    row[k] = s + k < (size_t)samples ? c->x[0].p + ((size_t)n + s + k) * c->x[0].stride + i : NULL;
                unit->turned(row, (size_t)rows, h.left + s, deep);
            }
            /* columns of the padding are 0 */
            halves_product(g, &h, deep, rows, (int)pad, NULL, !c->first || n, c->dw + i * pad, pad);
        }
    }
}

KERNEL void linear_dx_halves(const geometry *g, const call *c, void *work)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g), out = (size_t)g->out.c, deep = whole_blocks(out);
    const bf16_unit *unit = g->bf16;
    const float *row[BF16_LINES];
    linear_halves h;
    linear_halves_at(in, pad, c->scratch + pad, &h);
    for (int n = 0, samples; n < c->n; n += samples) {
        samples = half_part((size_t)(c->n - n), HALF_SAMPLES);
        halves_round(g, &h, &c->dy, n, samples, out);
        for (size_t i = 0; i < in; i += HALF_WIDE) {
            const int wide = half_part(in - i, HALF_WIDE);
            for (size_t j = 0; j < (size_t)wide; j += BF16_LINES) {
                for (size_t k = 0; k < BF16_LINES; k++)
                    row[k] = i + j + k < in ? c->w + (i + j + k) * pad : NULL;
                unit->turned_pairs(row, out, h.right + j * deep);
            }
            halves_product(g, &h, deep, samples, wide, NULL, 0, c->dx[0].p + (size_t)n * c->dx[0].stride + i,
                           c->dx[0].stride);
        }
    }
}

/* Packing weights takes a time that so many samples have to share; of few inputs or outputs most of a tile is idle. By what
 * scripts/bench_bf16.py has measured. */
INLINE int halves_pay(const geometry *g, int n, int least)
{
    return n >= least && g->out.c >= BF16_DEPTH && linear_inputs(g) >= BF16_DEPTH;
}
KERNEL int linear_has_halves(const geometry *g, const call *c, int sparse) { return g->bf16 != NULL; }
KERNEL int linear_halves_pay(const geometry *g, const call *c, int sparse) { return halves_pay(g, c->n, BF16_LINES); }
KERNEL int linear_halves_pay_dw(const geometry *g, const call *c, int sparse) { return halves_pay(g, c->n, BF16_DEPTH); }

#endif
