/* Convolution without shared weights: every pixel of the output has a kernel and biases of its own. Body: included by cext/isa/
 * only.
 *
 * Weight block, for each pixel of the output: [ky][kx][input channel][output channel padded to LANES], then a row of biases.
 * Options, frames and borders are those of conv2d.c. */

typedef struct {
    conv_shape s;
    size_t rows; /* of a pixel's kernel, */
    int run; /* and in a run of contiguous floats of the input: a row of the kernel */
} local_shape;

_Static_assert(sizeof(local_shape) <= MAX_DERIVED, "it fits into the geometry");
INLINE const local_shape *local_of(const geometry *g) { return (const local_shape *)g->derived; }

KERNEL const char *locally_connected2d_set_up(geometry *g)
{
    const char *reason = conv2d_refuse(g);
    if (reason)
        return reason;
    if (g->whole[GROUPS] != 1 || g->whole[DILATION_H] != 1 || g->whole[DILATION_W] != 1)
        return "there are neither groups nor dilation";
    conv_shape s = conv_asked(g);
    g->out.h = s.OH = (s.H - s.kh) / s.sh + 1;
    g->out.w = s.OW = (s.W - s.kw) / s.sw + 1;
    s.sh = s.OH == 1 ? 1 : s.sh, s.sw = s.OW == 1 ? 1 : s.sw;
    conv_settle(&s);
    const local_shape l = {s, (size_t)s.kh * (size_t)s.kw * (size_t)s.C, s.kw * s.C};
    if ((double)(l.rows + 1) * (double)s.o_pad * s.OH * s.OW > INT32_MAX)
        return "more than 2^31 - 1 weights";
    memcpy(g->derived, &l, sizeof l);
    g->rows = l.rows, g->columns = s.o_pad;
    g->weight_size = (l.rows + 1) * s.o_pad * (size_t)s.OH * (size_t)s.OW;
    g->keep_size = s.padded ? conv_frame(&s) : 0;
    g->scratch_size = conv_frame(&s) + s.o_pad;
    return NULL;
}

KERNEL ptrdiff_t locally_connected2d_locate(const geometry *g, int k, ptrdiff_t i)
{
    const local_shape *l = local_of(g);
    const conv_shape *s = &l->s;
    const ptrdiff_t pixels = (ptrdiff_t)s->OH * s->OW, taps = (ptrdiff_t)s->kh * s->kw;
    const ptrdiff_t pixel = k == 1 ? i % pixels : i / taps % pixels, channels = k == 1 ? i / pixels : i / taps / pixels;
    const ptrdiff_t o = k == 1 ? channels : channels / s->C;
    const ptrdiff_t row = k == 1 ? (ptrdiff_t)l->rows : i % taps * s->C + channels % s->C;
    if (o >= s->O || (k == 1 && !s->has_bias))
        return -1;
    return (pixel * (ptrdiff_t)(l->rows + 1) + row) * (ptrdiff_t)s->o_pad + o;
}

KERNEL void locally_connected2d_forward(const geometry *g, const call *c)
{
    const local_shape l = *local_of(g);
    const conv_shape *s = &l.s;
    const ptrdiff_t down = (ptrdiff_t)s->W * s->C;
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride, *w = c->w;
        float *y = c->y.p + (size_t)n * c->y.stride;
        if (s->padded) {
            float *frame = c->keep.p + (size_t)n * c->keep.stride;
            frame_in(g, s, x, frame);
            x = frame;
        }
        for (int i = 0; i < s->OH; i++)
            for (int j = 0; j < s->OW; j++, y += s->O, w += (l.rows + 1) * s->o_pad)
                for (int o = 0; o < s->O; o += VW) { /* ascending: what spills over is written again */
                    const float *patch = x + patch_at(s, i, j), *from = w + o;
                    vec sum = vload(w + l.rows * s->o_pad + o);
                    for (int a = 0; a < s->kh; a++, patch += down) {
                        vec part = vset(0);
                        for (int r = 0; r < l.run; r++, from += s->o_pad)
                            part += patch[r] * vload(from);
                        sum += part;
                    }
                    vstore(y + o, sum);
                }
    }
}

/* A pixel's gradient with zeros behind its channels. */
INLINE void local_gradient(const conv_shape *s, const float *dy, float *to)
{
    for (int o = 0; o < s->O; o += VW)
        vstore(to + o, s->O - o < VW ? vload_n(dy + o, s->O - o) : vload(dy + o));
}

KERNEL void locally_connected2d_data_gradient(const geometry *g, const call *c)
{
    const local_shape l = *local_of(g);
    const conv_shape *s = &l.s;
    const conv_view v = {.pixel = s->x_step};
    const ptrdiff_t down = (ptrdiff_t)s->W * s->C;
    float *const frame = c->scratch, *const gradient = frame + conv_frame(s);
    memset(gradient, 0, s->o_pad * sizeof(float));
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride, *w = c->w;
        memset(frame, 0, conv_frame(s) * sizeof(float));
        for (int i = 0; i < s->OH; i++)
            for (int j = 0; j < s->OW; j++, dy += s->O, w += s->o_pad) { /* over the biases */
                float *patch = frame + patch_at(s, i, j);
                local_gradient(s, dy, gradient);
                for (int a = 0; a < s->kh; a++, patch += down)
                    for (int r = 0; r < l.run; r += VW) {
                        const int rows = l.run - r < VW ? l.run - r : VW;
                        vec m[VW];
                        for (int q = 0; q < VW; q++)
                            m[q] = vset(0);
                        for (int q = 0; q < rows; q++, w += s->o_pad)
                            for (int o = 0; o < s->O; o += VW)
                                m[q] += vload(w + o) * vload(gradient + o);
                        vstore(patch + r, vload(patch + r) + vsum_rows(m)); /* 0 is added past the end */
                    }
            }
        frame_out(g, s, &v, frame, c->dx[0].p + (size_t)n * c->dx[0].stride);
    }
}

KERNEL void locally_connected2d_weight_gradient(const geometry *g, const call *c)
{
    const local_shape l = *local_of(g);
    const conv_shape *s = &l.s;
    const ptrdiff_t down = (ptrdiff_t)s->W * s->C;
    const source x = s->padded ? (source){c->keep.p, c->keep.stride} : c->x[0];
    float *const gradient = c->scratch, *dw = c->dw;
    memset(gradient, 0, s->o_pad * sizeof(float));
    for (int p = 0; p < s->OH * s->OW; p++, dw += (l.rows + 1) * s->o_pad)
        for (int n = 0; n < c->n; n++) {
            const float *patch = x.p + (size_t)n * x.stride + patch_at(s, p / s->OW, p % s->OW);
            const int adds = !c->first || n;
            float *to = dw;
            local_gradient(s, c->dy.p + (size_t)n * c->dy.stride + (size_t)p * (size_t)s->O, gradient);
            for (int a = 0; a < s->kh; a++, patch += down)
                for (int r = 0; r < l.run; r++, to += s->o_pad)
                    for (size_t o = 0; o < s->o_pad; o += VW) {
                        vec sum = patch[r] * vload(gradient + o);
                        if (adds)
                            sum += vload(to + o);
                        vstore(to + o, sum);
                    }
            for (size_t o = 0; s->has_bias && o < s->o_pad; o += VW) {
                vec sum = vload(gradient + o);
                if (adds)
                    sum += vload(to + o);
                vstore(to + o, sum);
            }
        }
}

KERNEL void locally_connected2d_backward(const geometry *g, const call *c)
{
    if (c->dx[0].p) /* first, because dw may be the weights themselves */
        locally_connected2d_data_gradient(g, c);
    if (c->dw)
        locally_connected2d_weight_gradient(g, c);
}

static const part locally_connected2d_parts[] = {{"weight", 0}, {"bias", 0}};
static const layer_kind layer_locally_connected2d = {.name = "locally_connected2d",
                                                     .n_parts = 2,
                                                     .parts = locally_connected2d_parts,
                                                     .set_up = locally_connected2d_set_up,
                                                     .locate = locally_connected2d_locate,
                                                     .forward = locally_connected2d_forward,
                                                     .backward = locally_connected2d_backward,
                                                     .forgets = FORGETS_Y};
