/* Geometry of a convolution, and its memory. Included by conv2d.c only.
 *
 * A patch is read as K runs of R contiguous floats: whole rows (kw * C floats) in the ordinary case, single pixels when the
 * kernel is dilated or the channels are grouped. A group is a convolution of its own on some channels of the same pixels;
 * in the rest of these files "channel" is a channel of the group under way. */

#include "borders.h"
#include "conv2d_phases.h"

/* The options, geometry.whole. */
enum { KH, KW, STRIDE_H, STRIDE_W, PAD_TOP, PAD_BOTTOM, PAD_LEFT, PAD_RIGHT, HAS_BIAS, DILATION_H, DILATION_W, GROUPS };
enum {
    PADDING_MODE = GROUPS + 1, /* what lies in the padding, see borders.h: the constant is 0 */
    OUT_H,                     /* rows and columns of the output; 0: as many as fit */
    OUT_W,
    CONNECTIONS /* 1: not all channels are connected; the bits that follow say which of [output][input] are */
};
enum { CONNECTION_BITS = 31, MOST_CONNECTIONS = (MAX_WHOLE - CONNECTIONS - 2) * CONNECTION_BITS }; /* so many in a word */

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
    int padded, top, left;  /* whether there is padding, and how much before the image */
    int mode;               /* what lies in the padding */
    int has_bias;
    /* Of conv2d_winograd.h: side of its tiles (0: not used), tiles and output channels under way together; floats from tile to
     * tile of the input, from frequency to frequency of weights, inputs, sums (odd numbers of cache lines, so that these are
     * not all in one set of a cache) */
    int wino, wino_tiles, wino_lanes;
    size_t v_pad, u_step, v_step, m_step;
    int phases; /* whether conv2d_panels.h can form the data gradient (1), and soon (2) */
    int halves; /* whether there is room for conv2d_bf16.h */
} conv_shape;

/* Together what fits into a second-level cache: weights of WINOGRAD_WEIGHTS floats, inputs and sums of WINOGRAD_TILES. */
enum { WINOGRAD_WEIGHTS = 152 * 1024, WINOGRAD_TILES = 64 * 1024 };
/* With more floats of weights for a vector of outputs, and few tiles to use them, moving them costs more than the products
 * (512 channels, 7 x 7 and 14 x 14, AVX2: 0.4 and 0.7 of the FMA peak, where direct sums have 0.8). */
enum { WINOGRAD_MOST = 256 * 1024 };

INLINE size_t larger(size_t a, size_t b) { return a > b ? a : b; }
INLINE size_t odd_lines(size_t floats) { return (floats / LANES | 1) * LANES; }

INLINE void winograd_steps(conv_shape *s)
{
    if (!s->wino)
        return;
    const size_t frequencies = (size_t)s->wino * s->wino, most = WINOGRAD_WEIGHTS / (frequencies * s->C) / LANES;
    const size_t blocks = most ? (s->o_pad / LANES + most - 1) / most : s->o_pad / LANES;
    s->wino_lanes = (int)((s->o_pad / LANES + blocks - 1) / blocks * LANES);
    s->v_pad = round_up((size_t)s->C, LANES);
    s->wino_tiles = (int)(WINOGRAD_TILES / (s->v_pad + s->wino_lanes) / frequencies);
    if (s->wino_tiles < MAX_P)
        s->wino_tiles = MAX_P;
    s->u_step = odd_lines(s->C * (size_t)s->wino_lanes);
    s->v_step = odd_lines(s->wino_tiles * s->v_pad);
    s->m_step = odd_lines(s->wino_tiles * (size_t)s->wino_lanes);
}
/* Whether a run is a row of the kernel. */
INLINE int has_whole_rows(const conv_shape *s) { return s->dw == 1 && s->groups == 1; }

/* Whether the i-th of [output][input] channels are connected. */
INLINE int is_connected(const geometry *g, int i)
{
    return g->whole[CONNECTIONS + 1 + i / CONNECTION_BITS] >> (i % CONNECTION_BITS) & 1;
}

/* What was asked, without what depends on the output's size or on the loops. */
INLINE conv_shape conv_asked(const geometry *g)
{
    const int *o = g->whole;
    conv_shape s = {0};
    s.kh = o[KH], s.kw = o[KW], s.sh = o[STRIDE_H], s.sw = o[STRIDE_W], s.dh = o[DILATION_H], s.dw = o[DILATION_W];
    s.groups = o[GROUPS];
    s.H = g->in[0].h + o[PAD_TOP] + o[PAD_BOTTOM], s.W = g->in[0].w + o[PAD_LEFT] + o[PAD_RIGHT];
    s.x_step = g->in[0].c, s.y_step = g->out.c;
    s.C = s.x_step / s.groups, s.O = s.y_step / s.groups;
    s.padded = o[PAD_TOP] || o[PAD_BOTTOM] || o[PAD_LEFT] || o[PAD_RIGHT];
    s.top = o[PAD_TOP], s.left = o[PAD_LEFT], s.has_bias = o[HAS_BIAS], s.mode = o[PADDING_MODE];
    return s;
}

/* The rest, when kernel, strides and dilations are settled. */
INLINE void conv_settle(conv_shape *s)
{
    const int whole_rows = has_whole_rows(s);
    s->K = whole_rows ? s->kh : s->kh * s->kw;
    s->R = whole_rows ? s->kw * s->C : s->C;
    s->o_pad = round_up((size_t)s->O, LANES), s->r_pad = round_up((size_t)s->R, LANES);
    s->block = ((size_t)s->K * s->R + 1) * s->o_pad;
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
enum { SHORT = NARROW };
INLINE size_t wide_pixel(const conv_shape *s) { return round_up((size_t)s->C, SHORT); }
INLINE int takes_wide_pixels(const conv_shape *s)
{
    return has_whole_rows(s) && (size_t)s->H * s->W * wide_pixel(s) <= INT32_MAX;
}
INLINE size_t wide_kernel(const conv_shape *s) { return round_up((size_t)s->kh * s->kw * wide_pixel(s), VW); }

/* Whether a kernel is 16 neighbours of the image woven in conv2d_windows.h. (Joined because GCC 12 makes an
 * instruction of AVX-512VL of two comparisons with 1.) */
INLINE int takes_woven_rows(const conv_shape *s)
{
    return VW == LANES && s->x_step == 1 && (s->dh | s->dw) == 1 && s->kh <= 4 && s->kw <= 4 &&
           (size_t)s->H * s->W <= INT32_MAX / 4;
}

/* How the loops over non-zero entries read the input and form its gradient. */
typedef struct {
    int copies;    /* of the input; 0: it is read where it is */
    int pixel;     /* floats from pixel to pixel */
    ptrdiff_t row; /* from row to row */
    size_t shift;  /* from the first copy to the second */
    int pieces;    /* of a run, */
    int floats;    /* floats of a piece, */
    int step;      /* the same with padding: whole vectors */
    int lanes;     /* of this width */
    size_t size;   /* floats of the copies */
} conv_view;

/* Fewer than two entries per pixel, on average, behind this pooling, and room for a frame of wide pixels. */
INLINE int has_few(const conv_shape *s, const geometry *pool)
{
    return pool && takes_wide_pixels(s) && (size_t)pool->out.h * pool->out.w * s->O < (size_t)2 * s->OH * s->OW;
}

/* A load that crosses a cache line costs two, and pixels of C floats begin anywhere. Behind pooling, where loads are most of
 * the work, channels are padded to whole vectors if that adds little. Otherwise narrow vectors cross fewer lines, and none with a
 * second copy that begins 4 floats later: every pixel is aligned in one of the two. */
INLINE conv_view view_of(const conv_shape *s, int winners)
{
    conv_view v = {0, s->x_step, (ptrdiff_t)s->W * s->x_step, 0, 1, s->R, (int)round_up((size_t)s->R, VW), VW, 0};
    const size_t padded = round_up((size_t)s->C, LANES), most = INT32_MAX / 4;
    if (VW < LANES / 2 || !winners || s->R < 3 * LANES || s->R != s->kw * s->x_step || s->dw > 1 ||
        (size_t)s->H * s->W * padded > most)
        return v;
    if (padded * 8 <= (size_t)s->C * 9) {
        v.copies = padded != (size_t)s->C;
        v.pixel = v.step = (int)padded, v.floats = s->C, v.pieces = s->kw;
        v.row = (ptrdiff_t)s->W * v.pixel;
        v.size = (size_t)s->H * (size_t)v.row;
        return v;
    }
    v.lanes = LANES / 2;
    v.step = (int)round_up((size_t)s->R, LANES / 2);
    if (s->C % 8 == 4) {
        v.copies = 2;
        v.row = (ptrdiff_t)round_up((size_t)v.row, LANES / 2);
        v.shift = round_up((size_t)s->H * (size_t)v.row + SLACK, LANES) + 4;
        v.size = 2 * v.shift;
    }
    return v;
}

/* As patch_at and run_at. */
INLINE ptrdiff_t view_patch(const conv_shape *s, const conv_view *v, int i, int j)
{
    return (ptrdiff_t)i * s->sh * v->row + (ptrdiff_t)j * s->sw * v->pixel;
}

INLINE ptrdiff_t view_run(const conv_shape *s, const conv_view *v, int k)
{
    return s->K == s->kh ? (ptrdiff_t)k * s->dh * v->row : run_at(s, k);
}

enum { PACK = 3 }; /* vectors side by side */

/* Into parts of how many output channels pack() cuts this convolution; 0: other loops are faster, or with `always` it cannot.
 * Counted in vectors per pixel. */
INLINE int packed_part(const conv_shape *s, int always)
{
    int best = 0, rest = s->O % LANES, least = s->O / LANES * 64 + (!rest ? 0 : rest <= LANES / 2 ? 48 : 64);
    if (VW < LANES || s->groups > 1 || s->sh > 1 || s->sw > 1 || s->dh > 1 || s->dw > 1)
        return 0;
    least = always ? INT32_MAX : least * 9 / 10;
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

/* The side of the tiles of conv2d_winograd.h that are fastest here, 0 if direct sums are (or nearly, as they are more
 * accurate), or with `always` if there are none: with few input channels transforming their tiles takes longest, in vectors
 * most of which is idle. Counted in vector operations of one image, those on weights included; within 15 % of what was
 * measured for kernels of 3 and 5, 20 to 64 channels, outputs of 9 x 9 to 22 x 22. */
INLINE int winograd_tile(const conv_shape *s, int always)
{
    const int k = s->kh, rest = s->O % LANES;
    const double in = (s->C + LANES - 1) / LANES, out = s->o_pad / (double)LANES;
    const double multiplied = rest && rest <= LANES / 2 ? out - 0.5 : out; /* see multiply_half_tile */
    double least = always ? HUGE_VAL : 0.85 * (1.1 * s->OH * s->OW * s->K * s->R * multiplied);
    int best = 0;
    if ((s->C < LANES / 2 && !always) || k != s->kw || k < 3 || k > 6 || s->sh > 1 || s->sw > 1 || s->dh > 1 || s->dw > 1 ||
        s->groups > 1)
        return 0;
    for (int T = 6; T <= 8; T += 2) {
        const int m = T + 1 - k, pairs = T / 2 - 1;
        if (m < 2 || s->OH < m || s->OW < m)
            continue;
        const double tiles = (double)((s->OH + m - 1) / m) * ((s->OW + m - 1) / m);
        if (!always && (size_t)T * T * s->C * LANES > WINOGRAD_MOST && tiles < 20)
            continue;
        const double cost = 1.1 * tiles * T * T * s->C * multiplied + tiles * in * (T == 6 ? 240 : 420) +
                            s->C * out * ((T + k) * (1 + pairs * (k + 2)) + 2 * T * T) +
                            tiles * out * ((T + m) * (T + m * (pairs - 1)) + T * T + m * m);
        if (cost < least)
            best = T, least = cost;
    }
    return best;
}

/* The convolution that takes dy, in a frame of zeros, to dx: for conv2d_winograd.h. */
INLINE conv_shape adjoint_of(const geometry *g, const conv_shape *s)
{
    conv_shape a = {.kh = s->kh, .kw = s->kw, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .groups = 1};
    a.OH = g->in[0].h, a.OW = g->in[0].w;
    a.H = a.OH + s->kh - 1, a.W = a.OW + s->kw - 1;
    a.C = a.x_step = s->O, a.O = a.y_step = s->C;
    conv_settle(&a);
    return a;
}

/* The dimensions of dx. Borders that repeat the image have gradients of their own. */
INLINE panel_axis panel_rows_of(const conv_shape *s, int h)
{
    return s->mode ? panel_axis_of(0, s->H, s->kh, s->sh, s->dh, s->OH)
                   : panel_axis_of(s->top, h, s->kh, s->sh, s->dh, s->OH);
}
INLINE panel_axis panel_columns_of(const conv_shape *s, int w)
{
    return s->mode ? panel_axis_of(0, s->W, s->kw, s->sw, s->dw, s->OW)
                   : panel_axis_of(s->left, w, s->kw, s->sw, s->dw, s->OW);
}

/* Images whose dy is framed together. */
enum { BACK_FLOATS = 128 * 1024, BACK_IMAGES = 8 };
INLINE size_t panel_frame(const conv_shape *s, const panel_axis *rows, const panel_axis *columns)
{
    return round_up((size_t)rows->frame * columns->frame * s->y_step, LANES) + SLACK;
}
INLINE int panel_images(size_t frame)
{
    const size_t fit = BACK_FLOATS / frame;
    return fit < 1 ? 1 : fit > BACK_IMAGES ? BACK_IMAGES : (int)fit;
}

/* Whether the data gradient can be formed phase by phase (1), and few enough of the products are with zeros around dy (2). */
INLINE int panel_phases_of(const conv_shape *s, int h, int w)
{
    if (is_depthwise(s))
        return 0;
    const panel_axis rows = panel_rows_of(s, h), columns = panel_columns_of(s, w);
    const double waste = panel_waste(&rows) * panel_waste(&columns);
    return waste > 4 ? 0 : waste > 1.7 ? 1 : 2;
}

/* geometry.derived of a convolution. */
typedef struct {
    conv_shape s, adjoint;
} conv_plan;

_Static_assert(sizeof(conv_plan) <= MAX_DERIVED, "a convolution's plan fits into its geometry");
INLINE const conv_plan *conv_of(const geometry *g) { return (const conv_plan *)g->derived; }

/* Of conv2d_panels.h. */
enum {
    CONV_PANEL_FLOATS = 4608, /* 18 KiB of a first cache of at least 32 */
    BAND_FLOATS = 64 * 1024,
    BAND_PIXELS = 256, /* at least, so that packing a panel takes some 2 % */
    BLOCK_FLOATS = 5120, /* of dy and input */
    BLOCK_COLUMNS = 16, /* of the input: a cache line, rounded to tiles */
    BLOCK_PIXELS = BLOCK_FLOATS / (MAX_V * VW + BLOCK_COLUMNS),
    CONV_PANEL_SLACK = 4 * MAX_V * VW
};

/* What is rounded to bfloat16: see conv2d_bf16.h. */
typedef struct {
    const bf16_unit *unit;
    ptrdiff_t *run; /* where the blocks of a patch begin */
    uint16_t *weights, *image, *turned, *pairs, *room;
    float *dense; /* dy behind pooling, of panel_images */
} conv_halves;

enum { HALF_PIXELS = 2048 }; /* summed up together for the gradient of the weights, what lies between rows included */
INLINE size_t half_up(size_t n) { return round_up(n, BF16_DEPTH); }
/* Pixels of the input that a band of HALF_PIXELS pixels sees. */
INLINE size_t half_reach(const conv_shape *s)
{
    return half_up(HALF_PIXELS + (size_t)(s->kh - 1) * s->dh * s->W + (size_t)(s->kw - 1) * s->dw) + BF16_DEPTH;
}

/* The scratch memory of one call. */
typedef struct {
    ptrdiff_t *run; /* run_at of every run */
    float *weights; /* of some runs of a group, transposed: [k][o][r padded] */
    float *gradient; /* of the weights, likewise */
    float *frame; /* dx with its padding; or the same with wide pixels */
    float *image; /* the copies of a conv_view */
    float *woven; /* see weave() */
    float *value; /* the non-zero entries of one sample's dy, pixel by pixel, */
    int32_t *channel; /* their output channels, */
    int32_t *start; /* [pixel + 1] and the first entry of each pixel */
    float *by_channel; /* the same entries channel by channel, [o][room]: values */
    int32_t *patch; /* and where in x their patches start */
    int32_t *count; /* per o */
    int32_t *lane; /* for pack(): see conv2d_spread(), */
    float *spread; /* and the weights */
    int32_t *window; /* per entry of a pooling window: how far its patch is from the first one's */
    int32_t *place; /* the same in another form of the image */
    float *wino_weights, *wino_input, *wino_sums, *wino_zeros; /* see conv2d_winograd.h */
    float *back_frame; /* dy in a frame of zeros, of both files */
    float *panel, *block_dy, *block_x; /* see conv2d_panels.h */
    conv_halves half; /* see conv2d_bf16.h */
    ptrdiff_t *back_run;
    int32_t *back_tap;
    int room;
} conv_scratch;

/* Floats of dy of an image. */
INLINE size_t half_dense(const conv_shape *s) { return round_up((size_t)s->OH * s->OW * s->y_step, LANES) + SLACK; }

/* Lays the parts out from `memory` (NULL: only counts) and returns the floats they take. */
INLINE size_t conv_scratch_at(const conv_shape *s, const conv_shape *adjoint, float *memory, conv_scratch *c)
{
    const size_t pixels = (size_t)s->OH * s->OW, block = (size_t)s->K * s->o_pad * s->r_pad;
    const size_t entries = round_up(pixels * s->O, LANES) + SLACK;
    const conv_view v = view_of(s, 1);
    const size_t rows = s->o_pad * (size_t)v.pieces * v.step, wide = takes_wide_pixels(s) ? wide_pixel(s) : 0;
    size_t used = 0;
#define PART(type, name, n) (c->name = memory ? (type *)(memory + used) : NULL, used += (n))
    PART(ptrdiff_t, run, round_up((size_t)s->K * sizeof(ptrdiff_t) / sizeof(float), LANES));
    PART(float, weights, larger(larger(block, rows), wide ? wide_kernel(s) * s->O : 0));
    PART(float, gradient, larger(block, rows));
    PART(float, frame, round_up(larger((size_t)s->H * v.row, (size_t)s->H * s->W * wide), LANES) + SLACK);
    PART(float, image, v.copies ? round_up(v.size, LANES) + SLACK : 0);
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
    const size_t forth = (size_t)s->wino * s->wino, back = (size_t)adjoint->wino * adjoint->wino;
    PART(float, wino_weights, larger(forth * s->u_step, back * adjoint->u_step));
    PART(float, wino_input, larger(forth * s->v_step, back * adjoint->v_step));
    PART(float, wino_sums, larger(forth * s->m_step, back * adjoint->m_step));
    PART(float, wino_zeros, larger((size_t)s->wino_lanes, (size_t)adjoint->wino_lanes));
    const size_t taps = (size_t)s->kh * s->kw, wide_block = is_depthwise(s) ? 0 : BLOCK_PIXELS;
    size_t framed = adjoint->wino ? conv_frame(adjoint) * (size_t)panel_images(conv_frame(adjoint)) : 0;
    if (s->phases) {
        const panel_axis down = panel_rows_of(s, adjoint->OH), across = panel_columns_of(s, adjoint->OW);
        const size_t one = panel_frame(s, &down, &across);
        framed = larger(framed, one * (size_t)panel_images(one));
    }
    PART(float, back_frame, framed);
    PART(ptrdiff_t, back_run, round_up(taps * sizeof(ptrdiff_t) / sizeof(float), LANES));
    PART(int32_t, back_tap, round_up(taps, LANES));
    PART(float, panel, CONV_PANEL_FLOATS + CONV_PANEL_SLACK);
    PART(float, block_dy, wide_block * s->o_pad);
    PART(float, block_x, wide_block *BLOCK_COLUMNS);
#undef PART
#define PART(type, name, n)                                                                                                 \
    (c->half.name = memory ? (type *)(memory + used) : NULL,                                                                \
     used += s->halves ? round_up((n) * sizeof(type) / sizeof(float), LANES) : 0)
    const size_t forth_depth = s->K * half_up((size_t)s->R), back_depth = taps * half_up((size_t)s->O);
    const size_t depth = larger(forth_depth, larger(back_depth, HALF_PIXELS));
    PART(ptrdiff_t, run, depth / BF16_DEPTH);
    PART(uint16_t, weights, larger(forth_depth * s->o_pad, back_depth * round_up((size_t)s->C, LANES)));
    PART(uint16_t, image, round_up(larger(conv_frame(s), framed), LANES) + 2 * SLACK);
    PART(uint16_t, turned, s->C *half_reach(s));
    PART(uint16_t, pairs, HALF_PIXELS * s->o_pad);
    PART(uint16_t, room, 2 * BF16_LINES * depth);
    PART(float, dense, half_dense(s) * (size_t)panel_images(half_dense(s)));
#undef PART
    c->room = 0;
    for (int k = 0; memory && k < s->K; k++)
        c->run[k] = run_at(s, k);
    return used;
}

/* For each pixel of a border that repeats the image: copies there what it repeats, or adds what is there to that. */
INLINE void frame_border(const geometry *g, const conv_shape *s, float *frame, ptrdiff_t row, int pixel, int add)
{
    const int h = g->in[0].h, w = g->in[0].w;
    for (int i = 0; i < s->H; i++) {
        const int beside = i >= s->top && i < s->top + h; /* the image itself */
        float *const image = frame + (border_source(s->mode, h, i - s->top) + s->top) * row;
        for (int j = beside && !s->left ? w : 0; j < s->W; j += beside && j + 1 == s->left ? w + 1 : 1) {
            float *const border = frame + i * row + (ptrdiff_t)j * pixel;
            float *const source = image + (ptrdiff_t)(border_source(s->mode, w, j - s->left) + s->left) * pixel;
            if (!add)
                memcpy(border, source, (size_t)s->x_step * sizeof(float));
            for (int c = 0; add && c < s->x_step; c++)
                source[c] += border[c];
        }
    }
}

/* Copies between an image and its padded frame. */
INLINE void frame_in(const geometry *g, const conv_shape *s, const float *x, float *to)
{
    const size_t row = (size_t)g->in[0].w * s->x_step, wide = (size_t)s->W * s->x_step;
    memset(to, 0, conv_frame(s) * sizeof(float));
    for (int i = 0; i < g->in[0].h; i++)
        memcpy(to + (size_t)(i + s->top) * wide + (size_t)s->left * s->x_step, x + i * row, row * sizeof(float));
    if (s->mode)
        frame_border(g, s, to, (ptrdiff_t)wide, s->x_step, 0);
}

INLINE void frame_out(const geometry *g, const conv_shape *s, const conv_view *v, float *from, float *dx)
{
    const int whole = v->pixel == s->x_step, pixels = whole ? 1 : g->in[0].w, n = whole ? g->in[0].w * s->x_step : s->x_step;
    const ptrdiff_t row = (ptrdiff_t)s->W * v->pixel;
    if (s->mode)
        frame_border(g, s, from, row, v->pixel, 1);
    from += s->top * row + (ptrdiff_t)s->left * v->pixel;
    for (int i = 0; i < g->in[0].h; i++, from += row)
        for (int j = 0; j < pixels; j++, dx += n)
            for (int c = 0; c < n; c += VW) /* addresses ascend: what spills over is written again */
                vstore(dx + c, vload(from + (ptrdiff_t)j * v->pixel + c));
}

/* The input as the view has it. */
INLINE const float *view_in(const conv_shape *s, const conv_view *v, const float *x, float *to)
{
    if (!v->copies)
        return x;
    const int row = s->W * s->x_step, n = v->copies == 2 ? row : s->x_step, to_n = v->copies == 2 ? (int)v->row : v->pixel;
    float *at = to;
    for (size_t rest = (size_t)s->H * row; rest; rest -= (size_t)n, x += n, at += to_n)
        for (int c = 0; c < n; c += VW) {
            vstore(at + c, vload(x + c));
            if (v->copies == 2)
                vstore(at + v->shift + c, vload(x + c));
        }
    return to;
}

/* Weights that are not there are 0, have no gradient, and stay 0. */
INLINE void disconnect(const geometry *g, float *dw)
{
    const conv_shape *s = &conv_of(g)->s;
    for (int o = 0; o < s->O; o++)
        for (int i = 0; i < s->C; i++)
            for (int tap = 0; !is_connected(g, o * s->C + i) && tap < s->kh * s->kw; tap++)
                dw[((size_t)tap * s->C + i) * s->o_pad + o] = 0;
}
