/* The sums of conv2d_panels.h with factors rounded to bfloat16, by the units of cext/bf16, and the gradient of the weights
 * likewise. Included by conv2d_panels.h only. One group.
 *
 *   forward, data gradient  pixels times weights: the image is rounded as it lies, and a patch read from it run by run
 *   weight gradient         patches, turned, times dy, of some rows of an image. At stride 1 the image is turned once, channel
 *                           by channel, all taps being the same rows from another pixel on; dy has zeros where pixels of the
 *                           image lie between its rows. At other strides each tap's pixels are turned anew. */

/* Weights to tiles, one run after the other (of transposed weights a run is cut into its taps); returns the blocks of a patch. */
INLINE int half_weights(const panel_sum *s)
{
    const conv_halves *h = s->half;
    const int inner = s->tap ? s->inner : s->R, blocks = (inner + BF16_DEPTH - 1) / BF16_DEPTH;
    const int runs = s->K * s->R / inner, depth = runs * blocks;
    const float *row[BF16_DEPTH];
    for (int k = 0; k < runs; k++) {
        for (int b = 0; b < blocks; b++)
            h->run[k * blocks + b] = s->run[k * inner / s->R] + k * inner % s->R + b * BF16_DEPTH;
        for (int b = 0; b < blocks && !s->tap; b++) {
            for (int i = 0; i < BF16_DEPTH; i++)
                row[i] = b * BF16_DEPTH + i < inner ? s->w + (size_t)(k * inner + b * BF16_DEPTH + i) * s->w_row : NULL;
            h->unit->pairs(row, (size_t)s->O, h->weights + ((size_t)k * blocks + b) * BF16_TILE, (size_t)depth * BF16_TILE);
        }
        for (int o = 0; o < s->O && s->tap; o += BF16_LINES) {
            for (int i = 0; i < BF16_LINES; i++)
                row[i] = o + i < s->O ? s->w + (size_t)(s->tap[k] + o + i) * s->w_row : NULL;
            h->unit->turned_pairs(row, (size_t)inner,
                                  h->weights + ((size_t)(o / BF16_LINES) * depth + (size_t)k * blocks) * BF16_TILE);
        }
    }
    return depth;
}

KERNEL void half_run(const panel_sum *s, int n, source x, sink y)
{
    const conv_halves *h = s->half;
    const int depth = half_weights(s);
    ptrdiff_t low = PTRDIFF_MAX, high = 0;
    for (int k = 0; k < s->K; k++) {
        low = s->run[k] < low ? s->run[k] : low;
        high = s->run[k] + s->R > high ? s->run[k] + s->R : high;
    }
    const size_t seen = (size_t)((s->H - 1) * s->x_row + (s->W - 1) * s->x_step + high - low);
    for (int k = 0; k < depth; k++)
        h->run[k] -= low;
    for (int i = 0; i < n; i++) {
        h->unit->round(seen, x.p + (size_t)i * x.stride + low, h->image);
        memset(h->image + half_up(seen), 0, BF16_DEPTH * sizeof *h->image); /* a run's last block may end there */
        const bf16_product p = {.rows = s->H * s->W,
                                .depth = depth,
                                .columns = s->O,
                                .wide = s->W,
                                .a = h->image,
                                .a_row = s->x_row,
                                .a_step = s->x_step,
                                .run = h->run,
                                .b = h->weights,
                                .from = s->bias,
                                .to = y.p + (size_t)i * y.stride,
                                .to_row = s->y_row,
                                .to_step = s->y_step,
                                .room = h->room};
        h->unit->product(&p);
    }
}

/* dy of `images` images from n on: as it is, or of pooling with all that is 0. */
INLINE source half_dy(const conv_shape *s, const conv_halves *h, const geometry *pool, const call *c, int n, int images)
{
    const source dy = {c->dy.p + (size_t)n * c->dy.stride, c->dy.stride}, all = {h->dense, half_dense(s)};
    if (!pool)
        return dy;
    const int kh = pool->window.kh, kw = pool->window.kw, line = s->OW * s->O;
    memset(h->dense, 0, (size_t)images * all.stride * sizeof(float));
    for (int k = 0; k < images; k++) {
        const float *d = dy.p + (size_t)k * dy.stride;
        const int32_t *won = c->won.p + (size_t)(n + k) * c->won.stride;
        for (int i = 0; i < pool->out.h; i++)
            for (int j = 0; j < pool->out.w; j++, d += s->O, won += s->O) {
                float *to = h->dense + (size_t)k * all.stride + (size_t)i * pool->window.sh * line +
                            j * pool->window.sw * s->O;
                for (int o = 0; o < s->O; o += VW) {
                    const int live = s->O - o < VW ? s->O - o : VW;
                    const vec value = vload(d + o);
                    const ivec which = iload(won + o);
                    for (int a = 0; a < kh; a++)
                        for (int b = 0; b < kw; b++)
                            vstore_n(to + a * line + b * s->O + o, vselect(which == a * kw + b, value, vset(0)), live);
                }
            }
    }
    return all;
}

/* Pixels from row to row of dy, those of the image between included. */
INLINE int half_width(const conv_shape *s) { return s->sh == 1 && s->sw == 1 ? s->W : s->OW; }

/* A pixel after the other, row by row: `live` of `wide` are there, the others are zeros. */
typedef struct {
    const float *row, *at;
    ptrdiff_t down, step;
    int wide, live, j, left;
} half_walk;

INLINE void half_block(half_walk *w, const float *pixel[BF16_DEPTH])
{
    for (int i = 0; i < BF16_DEPTH; i++) {
        pixel[i] = w->left > 0 && w->j < w->live ? w->at : NULL;
        w->at += w->step, w->left--;
        if (++w->j == w->wide)
            w->j = 0, w->at = w->row += w->down;
    }
}

/* `n` pixels of the image, `wide` of them in a row, as blocks of every channel. */
INLINE void half_turn(const conv_shape *s, const conv_halves *h, const float *x, int n, int wide, size_t deep, ptrdiff_t row,
                      ptrdiff_t step)
{
    half_walk walk = {x, x, row, step, wide, wide, 0, n};
    const float *pixel[BF16_DEPTH];
    for (size_t q = 0; q < deep; q += BF16_DEPTH) {
        half_block(&walk, pixel);
        h->unit->turned(pixel, (size_t)s->C, h->turned + q, deep);
    }
}

/* Of one image; the frame around it, where there is padding, is part of it. */
KERNEL void half_weight_gradient(const conv_shape *s, const conv_halves *h, const float *x, const float *dy, int first,
                                 float *dw)
{
    const int once = s->sh == 1 && s->sw == 1, wide = half_width(s), most = HALF_PIXELS / wide;
    const float *pixel[BF16_DEPTH];
    for (int q = 0; q < HALF_PIXELS / BF16_DEPTH; q++)
        h->run[q] = q * BF16_DEPTH;
    for (int from = 0, lines; from < s->OH; from += lines) {
        lines = even_block(s->OH - from, most);
        const int pixels = (lines - 1) * wide + s->OW;
        const size_t blocks = half_up((size_t)pixels) / BF16_DEPTH;
        const ptrdiff_t line = (ptrdiff_t)s->OW * s->O;
        half_walk walk = {dy + from * line, dy + from * line, line, s->O, wide, s->OW, 0, pixels};
        for (size_t q = 0; q < blocks; q++) {
            half_block(&walk, pixel);
            h->unit->pairs(pixel, (size_t)s->O, h->pairs + q * BF16_TILE, blocks * BF16_TILE);
        }
        const int last = (s->kh - 1) * s->dh * s->W + (s->kw - 1) * s->dw, seen = pixels + last;
        const size_t deep = once ? half_up(blocks * BF16_DEPTH + (size_t)last) : blocks * BF16_DEPTH;
        if (once)
            half_turn(s, h, x + patch_at(s, from, 0), seen, seen, deep, 0, s->x_step);
        for (int tap = 0; tap < s->kh * s->kw; tap++) {
            const int at = tap / s->kw * s->dh * s->W + tap % s->kw * s->dw;
            if (!once)
                half_turn(s, h, x + patch_at(s, from, 0) + (ptrdiff_t)at * s->x_step, pixels, wide, deep, patch_at(s, 1, 0),
                          patch_at(s, 0, 1));
            const bf16_product p = {.rows = s->C,
                                    .depth = (int)blocks,
                                    .columns = s->O,
                                    .wide = s->C,
                                    .a = h->turned + (once ? at : 0),
                                    .a_step = (ptrdiff_t)deep,
                                    .run = h->run,
                                    .b = h->pairs,
                                    .adds = !first,
                                    .to = dw + (size_t)tap * s->C * s->o_pad,
                                    .to_step = (ptrdiff_t)s->o_pad,
                                    .room = h->room};
            h->unit->product(&p);
        }
        first = 0;
    }
}

/* Whether sums of `terms` products, `run` of them neighbours, for `wide` channels of the result take less time so than
 * otherwise, by what scripts/bench_bf16.py has measured. With short runs or few channels most of a tile is idle, and with few
 * terms of images that do not stay in the second cache memory takes the time. */
INLINE int half_pays(const conv_shape *s, int wide, int run, int terms)
{
    const size_t floats = (size_t)s->H * s->W * s->x_step + (size_t)s->OH * s->OW * s->y_step;
    return s->OH * s->OW >= LANES && wide >= LANES / 2 && run >= LANES / 2 &&
           terms >= (floats > BAND_FLOATS ? 4 * LANES : LANES);
}
