/* Transposed convolution: the data gradient of a convolution (see conv2d.c), which is called the inner one here, from the
 * output to the input. Its forward pass, then, is the inner one's way back, and the other way round; weights are the inner
 * one's block, and behind it lies a row of biases. Body: included by cext/isa/ only. */

enum {
    TRANSPOSED_OUT_H = CONNECTIONS + 1,
    TRANSPOSED_OUT_W
}; /* behind the inner one's options; its HAS_BIAS is of the bias here */

/* The inner convolution, without what set_up derives. By memset and memcpy, never by assignment: `derived` is read as what it
 * holds, of which assignments to a geometry know nothing. */
INLINE void transposed_asked(const geometry *g, geometry *inner)
{
    memset(inner, 0, sizeof *inner);
    memcpy(inner->whole, g->whole, sizeof inner->whole);
    inner->n_inputs = 1, inner->direct_only = g->direct_only, inner->loops = g->loops;
    inner->in[0] = (shape){g->out.c, g->whole[TRANSPOSED_OUT_H], g->whole[TRANSPOSED_OUT_W]};
    inner->out = g->in[0];
    inner->whole[HAS_BIAS] = 0;
    inner->whole[OUT_H] = g->in[0].h, inner->whole[OUT_W] = g->in[0].w;
}

INLINE void transposed_inner(const geometry *g, geometry *inner)
{
    transposed_asked(g, inner);
    memcpy(inner->derived, g->derived, sizeof(conv_plan));
}

KERNEL const char *conv_transpose2d_set_up(geometry *g)
{
    if (g->whole[TRANSPOSED_OUT_H] < 1 || g->whole[TRANSPOSED_OUT_W] < 1)
        return "the output must have at least one pixel";
    if (g->whole[PADDING_MODE])
        return "only zeros can be beside the image";
    geometry inner;
    transposed_asked(g, &inner);
    const char *reason = conv2d_set_up(&inner);
    if (reason)
        return reason;
    g->out.h = inner.in[0].h, g->out.w = inner.in[0].w;
    g->weight_size = inner.weight_size + (g->whole[HAS_BIAS] ? round_up((size_t)g->out.c, LANES) : 0);
    g->keep_size = inner.keep_size; /* of the way back: the gradient of the output in a frame */
    g->scratch_size = inner.scratch_size;
    memcpy(g->derived, inner.derived, sizeof(conv_plan));
    return NULL;
}

/* Floats before the biases. */
INLINE size_t transposed_biases(const geometry *g)
{
    return g->weight_size - (g->whole[HAS_BIAS] ? round_up((size_t)g->out.c, LANES) : 0);
}

KERNEL ptrdiff_t conv_transpose2d_locate(const geometry *g, int k, ptrdiff_t i)
{
    if (k == 1)
        return g->whole[HAS_BIAS] && i < g->out.c ? (ptrdiff_t)transposed_biases(g) + i : -1;
    return conv2d_locate(g, 0, i); /* of what the inner one has derived */
}

KERNEL void conv_transpose2d_forward(const geometry *g, const call *c)
{
    geometry inner;
    transposed_inner(g, &inner);
    call back = *c;
    back.dy = c->x[0], back.dx[0] = c->y;
    back.x[0] = (source){c->y.p, c->y.stride}; /* not read: no weight gradient is wanted */
    back.pool = NULL, back.dw = NULL;
    conv2d_backward(&inner, &back);
    if (!g->whole[HAS_BIAS])
        return;
    const size_t C = (size_t)g->out.c, pixels = shape_size(g->out) / C;
    const float *bias = c->w + transposed_biases(g);
    for (int n = 0; n < c->n; n++) {
        float *y = c->y.p + (size_t)n * c->y.stride;
        for (size_t p = 0; p < pixels; p++, y += C)
            for (size_t k = 0; k < C; k += VW) /* what spills over a pixel has 0 added */
                vstore(y + k, vload(y + k) + vload(bias + k));
    }
}

KERNEL void conv_transpose2d_bias_gradient(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, H = (size_t)g->out.h, W = (size_t)g->out.w;
    float *bias = c->dw + transposed_biases(g);
    for (size_t k = 0; k < C; k += VW) {
        vec sum = vset(0);
        for (int n = 0; n < c->n; n++)
            for (size_t i = 0; i < H; i++) {
                const float *dy = c->dy.p + (size_t)n * c->dy.stride + i * W * C + k;
                vec row = vset(0);
                for (size_t j = 0; j < W; j++)
                    row += vload(dy + j * C);
                sum += row;
            }
        const int lanes = C - k < VW ? (int)(C - k) : VW;
        if (!c->first)
            sum += vload(bias + k);
        vstore_n(bias + k, sum, lanes);
    }
}

KERNEL void conv_transpose2d_backward(const geometry *g, const call *c)
{
    geometry inner;
    transposed_inner(g, &inner);
    call forth = *c, weights = *c;
    forth.x[0] = c->dy, forth.y = c->dx[0];
    conv_work k;
    conv2d_prepare(&inner, &forth, &k);
    if (c->dx[0].p) /* first, because dw may be the weights themselves */
        conv2d_forward(&inner, &forth);
    else
        for (int n = 0; n < c->n; n++) /* the frame that the weight gradient reads */
            conv2d_image(&inner, &forth, &k, n);
    weights.x[0] = c->dy, weights.dy = c->x[0], weights.dx[0].p = NULL, weights.pool = NULL;
    conv2d_backward(&inner, &weights);
    if (g->whole[HAS_BIAS])
        conv_transpose2d_bias_gradient(g, c);
}

static const part conv_transpose2d_parts[] = {{"weight", 0}, {"bias", 0}};
static const layer_kind layer_conv_transpose2d = {.name = "conv_transpose2d",
                                                  .n_parts = 2,
                                                  .parts = conv_transpose2d_parts,
                                                  .set_up = conv_transpose2d_set_up,
                                                  .locate = conv_transpose2d_locate,
                                                  .forward = conv_transpose2d_forward,
                                                  .backward = conv_transpose2d_backward,
                                                  .forgets = FORGETS_Y};
