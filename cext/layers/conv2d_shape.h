/* Geometry of a convolution, and its memory. Included by conv2d.c only.
 *
 * A patch is read as K runs of R contiguous floats: whole rows (kw * C floats) in the ordinary case, single pixels when the
 * kernel is dilated or the channels are grouped. A group is a convolution of its own on some channels of the same pixels;
 * in the rest of these files "channel" is a channel of the group under way. */

enum { KH, KW, STRIDE_H, STRIDE_W, PAD_TOP, PAD_BOTTOM, PAD_LEFT, PAD_RIGHT, HAS_BIAS, DILATION_H, DILATION_W, GROUPS,
       PACKED_PART /* set by conv2d_set_up: s.part */ };

typedef struct {
    int kh, kw, sh, sw, dh, dw, groups;
    int H, W;               /* input, padding included */
    int OH, OW;
    int x_step, y_step;     /* floats from pixel to pixel: all channels of input and output */
    int C, O;               /* input and output channels of a group */
    int K, R;               /* runs of a patch, floats of a run */
    size_t o_pad, r_pad;    /* O and R rounded up to LANES */
    size_t block;           /* floats of a group's weights: [K * R][o_pad], then the biases */
    int part, packed;       /* see pack() in conv2d_forward.h; 0: other loops are faster */
    int padded;
} conv_shape;

/* Whether a run is a row of the kernel. */
INLINE int has_whole_rows(const conv_shape *s) { return s->dw == 1 && s->groups == 1; }

INLINE conv_shape conv_of(const geometry *g)
{
    const int *o = g->option;
    conv_shape s;
    s.kh = o[KH], s.kw = o[KW], s.sh = o[STRIDE_H], s.sw = o[STRIDE_W], s.dh = o[DILATION_H], s.dw = o[DILATION_W];
    s.groups = o[GROUPS], s.part = o[PACKED_PART], s.packed = s.part ? VW / s.part : 0;
    s.H = g->in[0].h + o[PAD_TOP] + o[PAD_BOTTOM], s.W = g->in[0].w + o[PAD_LEFT] + o[PAD_RIGHT];
    s.OH = g->out.h, s.OW = g->out.w;
    s.x_step = g->in[0].c, s.y_step = g->out.c;
    s.C = s.x_step / s.groups, s.O = s.y_step / s.groups;
    const int whole_rows = has_whole_rows(&s);
    s.K = whole_rows ? s.kh : s.kh * s.kw;
    s.R = whole_rows ? s.kw * s.C : s.C;
    s.o_pad = round_up((size_t)s.O, LANES), s.r_pad = round_up((size_t)s.R, LANES);
    s.block = ((size_t)s.K * s.R + 1) * s.o_pad;
    s.padded = o[PAD_TOP] || o[PAD_BOTTOM] || o[PAD_LEFT] || o[PAD_RIGHT];
    return s;
}

/* From the first float of a patch to its k-th run. */
INLINE ptrdiff_t run_at(const conv_shape *s, int k)
{
    if (s->R == s->kw * s->x_step) /* whole rows, or one column, or one channel */
        return (ptrdiff_t)k * s->dh * s->W * s->x_step;
    return ((ptrdiff_t)(k / s->kw) * s->dh * s->W + (ptrdiff_t)(k % s->kw) * s->dw) * s->x_step;
}

INLINE ptrdiff_t patch_at(const conv_shape *s, int i, int j)
{
    return ((ptrdiff_t)i * s->sh * s->W + (ptrdiff_t)j * s->sw) * s->x_step;
}

INLINE size_t conv_frame(const conv_shape *s) { return round_up((size_t)s->H * s->W * s->x_step, LANES) + SLACK; }

/* Every channel a group of its own, one output each: vectors run over the groups. */
INLINE int is_depthwise(const conv_shape *s) { return s->groups > 1 && s->C == 1 && s->O == 1; }

/* Channels of a pixel padded to vectors of SHORT floats: see conv2d_windows.h. */
enum { SHORT = VW == 16 ? 8 : VW };
INLINE size_t wide_pixel(const conv_shape *s) { return round_up((size_t)s->C, SHORT); }
INLINE int takes_wide_pixels(const conv_shape *s)
{
    return has_whole_rows(s) && (size_t)s->H * s->W * wide_pixel(s) <= INT32_MAX;
}
INLINE size_t wide_kernel(const conv_shape *s) { return round_up((size_t)s->kh * s->kw * wide_pixel(s), VW); }

/* Whether a kernel is 16 neighbours of the image woven in conv2d_windows.h. (The product because GCC 12 joins two comparisons
 * with 1 in an instruction of AVX-512VL.) */
INLINE int takes_woven_rows(const conv_shape *s)
{
    return VW == LANES && s->x_step == 1 && s->dh * s->dw == 1 && s->kh <= 4 && s->kw <= 4 &&
           (size_t)s->H * s->W <= INT32_MAX / 4;
}

enum { PACK = 3 }; /* vectors side by side */

/* Into parts of how many output channels pack() cuts this convolution; 0: other loops are faster. Counted in vectors per
 * pixel. */
INLINE int packed_part(const conv_shape *s)
{
    int best = 0, rest = s->O % LANES, least = s->O / LANES * 64 + (!rest ? 0 : rest <= LANES / 2 ? 48 : 64);
    if (VW < LANES || s->groups > 1 || s->sh > 1 || s->sw > 1 || s->dh > 1 || s->dw > 1)
        return 0;
    least = least * 9 / 10;
    for (int parts = 1; parts <= 2; parts++) {
        const int part = s->O / parts;
        if (s->O % parts || part > LANES / 2)
            continue;
        const int pixels = LANES / part, cost = parts * 64 / pixels;
        if (pixels * s->C <= LANES && PACK * pixels <= s->OW && cost < least) {
            best = part;
            least = cost;
        }
    }
    return best;
}

/* The scratch memory of one call. */
typedef struct {
    ptrdiff_t *run;     /* run_at of every run */
    float *weights;     /* of some runs of a group, transposed: [k][o][r padded] */
    float *gradient;    /* of the weights, likewise */
    float *frame;       /* dx with its padding; or the same with wide pixels */
    float *woven;       /* see weave() */
    float *value;       /* the non-zero entries of one sample's dy, pixel by pixel, */
    int32_t *channel;   /* their output channels, */
    int32_t *start;     /* [pixel + 1] and the first entry of each pixel */
    float *by_channel;  /* the same entries channel by channel, [o][room]: values */
    int32_t *patch;     /* and where in x their patches start */
    int32_t *count;     /* per o */
    int32_t *lane;      /* for pack(): see conv2d_spread(), */
    float *spread;      /* and the weights */
    int32_t *window;    /* per entry of a pooling window: how far its patch is from the first one's */
    int32_t *place;     /* the same in another form of the image */
    int room;
} conv_scratch;

/* Lays the parts out from `memory` (NULL: only counts) and returns the floats they take. */
INLINE size_t conv_scratch_at(const conv_shape *s, float *memory, conv_scratch *c)
{
    const size_t pixels = (size_t)s->OH * s->OW, block = (size_t)s->K * s->o_pad * s->r_pad;
    const size_t entries = round_up(pixels * s->O, LANES) + SLACK;
    const size_t wide = takes_wide_pixels(s) ? wide_pixel(s) : 0, wide_frame = (size_t)s->H * s->W * wide + SLACK;
    const size_t wide_block = wide ? wide_kernel(s) * s->O : 0;
    size_t used = 0;
#define PART(type, name, n) (c->name = memory ? (type *)(memory + used) : NULL, used += (n))
    PART(ptrdiff_t, run, round_up((size_t)s->K * sizeof(ptrdiff_t) / sizeof(float), LANES));
    PART(float, weights, block > wide_block ? block : wide_block);
    PART(float, gradient, block);
    PART(float, frame, round_up(conv_frame(s) > wide_frame ? conv_frame(s) : wide_frame, LANES));
    PART(float, woven, takes_woven_rows(s) ? 4 * (round_up((size_t)s->H * s->W, VW) + VW) : 0);
    PART(float, value, entries);
    PART(int32_t, channel, entries);
    PART(int32_t, start, round_up(pixels + 1, LANES));
    PART(float, by_channel, entries);
    PART(int32_t, patch, entries);
    PART(int32_t, count, s->o_pad);
    PART(int32_t, lane, s->part ? 3 * VW : 0);
    PART(float, spread, s->part ? ((size_t)s->K * s->R + 1) * (s->O / s->part) * VW : 0);
    PART(int32_t, window, round_up(pixels, LANES)); /* a window has no more entries than the image */
    PART(int32_t, place, round_up(pixels, LANES));
#undef PART
    c->room = 0;
    for (int k = 0; memory && k < s->K; k++)
        c->run[k] = run_at(s, k);
    return used;
}

/* Copies between an image and its zero-padded frame. */
INLINE void frame_in(const geometry *g, const conv_shape *s, const float *x, float *to)
{
    const size_t row = (size_t)g->in[0].w * s->x_step, wide = (size_t)s->W * s->x_step;
    memset(to, 0, conv_frame(s) * sizeof(float));
    for (int i = 0; i < g->in[0].h; i++)
        memcpy(to + (size_t)(i + g->option[PAD_TOP]) * wide + (size_t)g->option[PAD_LEFT] * s->x_step, x + i * row,
               row * sizeof(float));
}

INLINE void frame_out(const geometry *g, const conv_shape *s, const float *from, float *dx)
{
    const size_t row = (size_t)g->in[0].w * s->x_step, wide = (size_t)s->W * s->x_step;
    for (int i = 0; i < g->in[0].h; i++)
        memcpy(dx + i * row, from + (size_t)(i + g->option[PAD_TOP]) * wide + (size_t)g->option[PAD_LEFT] * s->x_step,
               row * sizeof(float));
}
