/* What a convolution asks for, whether it can be, and where its weights lie. Included by conv2d.c only. */

static const char *const conv2d_name = "conv2d";

KERNEL const char *conv2d_refuse(const geometry *g)
{
    const int *o = g->whole;
    if (o[KH] < 1 || o[KW] < 1 || o[STRIDE_H] < 1 || o[STRIDE_W] < 1 || o[DILATION_H] < 1 || o[DILATION_W] < 1 ||
        g->out.c < 1)
        return "kernel, stride, dilation and channels must be positive";
    if (o[PAD_TOP] < 0 || o[PAD_BOTTOM] < 0 || o[PAD_LEFT] < 0 || o[PAD_RIGHT] < 0)
        return "padding must not be negative";
    if (o[PADDING_MODE] < 0 || o[PADDING_MODE] > BORDER_CIRCULAR)
        return "no such padding mode";
    const int64_t most_h = border_most(o[PADDING_MODE], g->in[0].h), most_w = border_most(o[PADDING_MODE], g->in[0].w);
    if (o[PAD_TOP] > most_h || o[PAD_BOTTOM] > most_h || o[PAD_LEFT] > most_w || o[PAD_RIGHT] > most_w)
        return "the padding is wider than what the image gives";
    if (o[GROUPS] < 1 || g->in[0].c % o[GROUPS] || g->out.c % o[GROUPS])
        return "input and output channels must be multiples of groups";
    const int64_t H = (int64_t)g->in[0].h + o[PAD_TOP] + o[PAD_BOTTOM], W = (int64_t)g->in[0].w + o[PAD_LEFT] + o[PAD_RIGHT];
    const int64_t reach_h = (int64_t)(o[KH] - 1) * o[DILATION_H], reach_w = (int64_t)(o[KW] - 1) * o[DILATION_W];
    const int64_t most = INT32_MAX; /* offsets within a sample or a kernel are 32-bit numbers */
    if (H > most || W > most || reach_h > most || reach_w > most || H * W > most / g->in[0].c ||
        (int64_t)o[KH] * o[KW] > most / g->in[0].c / (g->out.c + LANES))
        return "the padded input or the kernel is too large: more than 2^31 - 1 numbers";
    if (H <= reach_h || W <= reach_w)
        return "the kernel is larger than the padded input";
    if (o[OUT_H] < 0 || o[OUT_W] < 0 || o[OUT_H] > (H - reach_h - 1) / o[STRIDE_H] + 1 ||
        o[OUT_W] > (W - reach_w - 1) / o[STRIDE_W] + 1)
        return "the output is larger than what fits";
    if (o[CONNECTIONS] && (o[GROUPS] != 1 || (int64_t)g->in[0].c * g->out.c > MOST_CONNECTIONS))
        return "the table of connections is too large, or there are groups";
    return NULL;
}

/* Sides of Winograd's tiles and parts of packed vectors: what is fastest, or what geometry.loops asks for. */
KERNEL void conv2d_choose_tiles(const geometry *g, conv_shape *s, conv_shape *adjoint)
{
    const int packed = loop_is_wanted(g, conv2d_name, PASS_FORWARD, "several pixels a vector");
    const int forth = loop_is_wanted(g, conv2d_name, PASS_FORWARD, "Winograd") ||
                      loop_is_wanted(g, conv2d_name, PASS_WEIGHT_GRADIENT, "Winograd");
    const int back = loop_is_wanted(g, conv2d_name, PASS_BACKWARD, "Winograd");
    s->part = packed_part(s, packed), s->packed = s->part ? VW / s->part : 0;
    if (g->direct_only)
        return;
    s->wino = s->part && !forth ? 0 : winograd_tile(s, forth);
    const int *o = g->whole; /* dy in a frame must reach all of the padded input */
    if (o[PAD_TOP] < s->kh && o[PAD_BOTTOM] < s->kh && o[PAD_LEFT] < s->kw && o[PAD_RIGHT] < s->kw && s->sh == 1 &&
        s->sw == 1 && s->dh == 1 && s->dw == 1 && s->groups == 1 && !s->mode)
        adjoint->wino = winograd_tile(adjoint, back);
    winograd_steps(s);
    winograd_steps(adjoint);
}

KERNEL const char *conv2d_set_up(geometry *g)
{
    const char *reason = conv2d_refuse(g);
    if (reason)
        return reason;
    conv_shape s = conv_asked(g);
    g->out.h = s.OH = g->whole[OUT_H] ? g->whole[OUT_H] : (s.H - (s.kh - 1) * s.dh - 1) / s.sh + 1;
    g->out.w = s.OW = g->whole[OUT_W] ? g->whole[OUT_W] : (s.W - (s.kw - 1) * s.dw - 1) / s.sw + 1;
    /* strides and dilations of a single step have no effect, however large: products of them need not be feared below */
    s.sh = s.OH == 1 ? 1 : s.sh, s.sw = s.OW == 1 ? 1 : s.sw;
    s.dh = s.kh == 1 ? 1 : s.dh, s.dw = s.kw == 1 ? 1 : s.dw;
    conv_settle(&s);
    s.padded = s.padded && (s.mode || !is_depthwise(&s)); /* zeros beside single channels are left out */
    conv_shape adjoint = adjoint_of(g, &s);
    s.phases = panel_phases_of(&s, adjoint.OH, adjoint.OW);
    conv2d_choose_tiles(g, &s, &adjoint);
    s.halves = g->bf16 && s.groups == 1;
    conv_scratch parts;
    g->rows = (size_t)s.K * s.R;
    g->columns = is_depthwise(&s) ? round_up((size_t)s.groups, LANES) : s.o_pad;
    g->weight_size = (g->rows + 1) * g->columns * (is_depthwise(&s) ? 1 : (size_t)s.groups);
    g->keep_size = s.padded ? conv_frame(&s) : 0;
    g->scratch_size = conv_scratch_at(&s, &adjoint, NULL, &parts);
    *(conv_plan *)g->derived = (conv_plan){s, adjoint};
    return NULL;
}

KERNEL ptrdiff_t conv2d_locate(const geometry *g, int k, ptrdiff_t i)
{
    const conv_shape *s = &conv_of(g)->s;
    const ptrdiff_t taps = (ptrdiff_t)s->kh * s->kw;
    if (k == 0 && g->whole[CONNECTIONS]) { /* only kernels that are there are counted */
        const int all = s->O * s->C;
        int kernel = 0;
        for (ptrdiff_t left = i / taps; kernel < all && (left || !is_connected(g, kernel)); kernel++)
            left -= is_connected(g, kernel);
        i = kernel * taps + i % taps;
    }
    const ptrdiff_t o = k == 1 ? i : i / taps / s->C;
    if (o >= s->y_step)
        return -1;
    const ptrdiff_t c = i / taps % s->C, row = k == 1 ? taps * s->C : i % taps * s->C + c;
    if (is_depthwise(s))
        return row * (ptrdiff_t)round_up((size_t)s->groups, LANES) + o;
    return o / s->O * (ptrdiff_t)s->block + row * (ptrdiff_t)s->o_pad + o % s->O;
}
