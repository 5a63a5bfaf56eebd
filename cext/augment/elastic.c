/* Displacements that are random from pixel to pixel and then smoothed: uniform in -1..1, 0 outside of the image, summed with
 * the weights of a Gaussian that ends at three standard deviations, times alpha (Simard, Steinkraus, Platt 2003).
 * Body: included by cext/isa/ only. */
#include "draws.h"

enum { ELASTIC_ALPHA = 1, ELASTIC_SIGMA };
enum { ELASTIC_MIDDLE = MAX_AUGMENT_RADIUS + AUGMENT_ROWS - 1 }; /* of the taps */

/* The weights of one direction add up to 1. */
KERNEL void elastic_set_up(augment_step *t)
{
    const double sigma = t->option[ELASTIC_SIGMA], radius = ceil(3 * sigma);
    t->radius = radius < MAX_AUGMENT_RADIUS ? (int)radius : MAX_AUGMENT_RADIUS;
    double sum = 1;
    for (int k = 1; k <= t->radius; k++)
        sum += 2 * exp(-0.5 * k * k / (sigma * sigma));
    memset(t->tap, 0, sizeof t->tap);
    for (int k = -t->radius; k <= t->radius; k++)
        t->tap[ELASTIC_MIDDLE + k] = (float)(exp(-0.5 * k * k / (sigma * sigma)) / sum);
}

/* Numbers of -1..1, in rows with 0 behind them. */
KERNEL void elastic_rows(const int32_t *from, shape s, size_t stride, float *to)
{
    const size_t W = (size_t)s.w;
    for (size_t y = 0; y < (size_t)s.h; y++) {
        for (size_t x = 0; x < W; x++)
            to[y * stride + x] = (float)from[y * W + x] * 0x1p-23f - 1.f;
        for (size_t x = W; x < stride; x++)
            to[y * stride + x] = 0;
    }
}

/* Down the columns, into rows that have `margin` floats before them and as many behind. */
KERNEL void elastic_down(const augment_step *t, const float *from, shape s, size_t stride, float *to, size_t wide,
                         size_t margin)
{
    enum { ROWS = AUGMENT_ROWS, VECTORS = VW < LANES ? 2 : 1 };
    const int r = t->radius, H = s.h;
    for (int y = 0; y < H; y += ROWS) {
        const int first = y - r > 0 ? y - r : 0, last = y + ROWS - 1 + r < H - 1 ? y + ROWS - 1 + r : H - 1;
        for (size_t x = 0; x < stride; x += VECTORS * VW) {
            vec sum[ROWS][VECTORS] = {{{0}}};
            for (int k = first; k <= last; k++) {
                const float *tap = t->tap + ELASTIC_MIDDLE + (k - y);
#pragma GCC unroll 2
                for (int j = 0; j < VECTORS; j++) {
                    const vec v = vload(from + (size_t)k * stride + x + (size_t)j * VW);
#pragma GCC unroll 4
                    for (int i = 0; i < ROWS; i++)
                        sum[i][j] += vset(tap[-i]) * v;
                }
            }
            for (int i = 0; i < ROWS && y + i < H; i++)
                for (int j = 0; j < VECTORS; j++)
                    vstore(to + (size_t)(y + i) * wide + margin + x + (size_t)j * VW, sum[i][j]);
        }
    }
}

/* Along rows that have zeros around them. `add`: to what is there. */
KERNEL void elastic_along(const augment_step *t, const float *from, shape s, size_t wide, size_t margin, int add, float *to,
                          size_t stride)
{
    enum { ROWS = AUGMENT_ROWS };
    const int r = t->radius, H = s.h;
    const float *taps = t->tap + ELASTIC_MIDDLE;
    const vec alpha = vset((float)t->option[ELASTIC_ALPHA]);
    for (int y = 0; y < H; y += ROWS) {
        const float *row[ROWS];
        for (int i = 0; i < ROWS; i++)
            row[i] = from + (size_t)(y + i < H ? y + i : H - 1) * wide + margin;
        for (size_t x = 0; x < (size_t)s.w; x += VW) {
            vec sum[ROWS];
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++)
                sum[i] = vset(taps[0]) * vload(row[i] + x);
            for (int k = 1; k <= r; k++) {
                const vec tap = vset(taps[k]);
#pragma GCC unroll 4
                for (int i = 0; i < ROWS; i++)
                    sum[i] += tap * (vload(row[i] + x - k) + vload(row[i] + x + k));
            }
            for (int i = 0; i < ROWS && y + i < H; i++) {
                float *at = to + (size_t)(y + i) * stride + x;
                vstore(at, add ? vload(at) + alpha * sum[i] : alpha * sum[i]);
            }
        }
    }
}

KERNEL void elastic_displace(const augment_step *t, uint64_t key, shape s, int first, const augment_field *f)
{
    const size_t room = augment_field_room(s), n = (size_t)s.h * (size_t)s.w, margin = round_up((size_t)t->radius, LANES);
    const size_t wide = f->stride + 2 * margin;
    float *noise = f->scratch, *smooth = f->scratch + 2 * room;
    int32_t *drawn = (int32_t *)smooth; /* both kinds of numbers fit there: see augment_margin_room */
    augment_draws(key, 1, n, drawn, drawn + n);
    elastic_rows(drawn, s, f->stride, noise);
    elastic_rows(drawn + n, s, f->stride, noise + room);
    memset(smooth, 0, ((size_t)s.h * wide + SLACK) * sizeof *smooth);
    for (int i = 0; i < 2; i++) {
        elastic_down(t, noise + (size_t)i * room, s, f->stride, smooth, wide, margin);
        elastic_along(t, smooth, s, wide, margin, !first, i ? f->dx : f->dy, f->stride);
    }
}

static const augment_kind augment_elastic = {.name = "elastic", .set_up = elastic_set_up, .displace = elastic_displace};
