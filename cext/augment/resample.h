/* One pass over an image that is moved: by a matrix and perhaps a field of displacements, with bilinear interpolation; where
 * pixels only change places, they are copied. Body: included by run.h. */
#ifndef CHAOS_AUGMENT_RESAMPLE_H
#define CHAOS_AUGMENT_RESAMPLE_H

#include "augment.h"

/* One image, channel by channel. */
typedef struct {
    const uint8_t *bytes; /* or */
    const float *floats;
} augment_pixels;

INLINE augment_pixels pixels_from(augment_pixels p, size_t at)
{
    return (augment_pixels){p.bytes ? p.bytes + at : NULL, p.floats ? p.floats + at : NULL};
}

/* n of them, one after the other. */
INLINE void pixels_load(augment_pixels from, size_t n, float *restrict to)
{
    if (from.bytes)
        for (size_t i = 0; i < n; i++)
            to[i] = pixel_value(from.bytes[i]);
    else
        memcpy(to, from.floats, n * sizeof *to);
}

/* The same backwards: the last one first. */
INLINE void pixels_load_back(augment_pixels from, size_t n, float *restrict to)
{
    if (from.bytes)
        for (size_t i = 0; i < n; i++)
            to[i] = pixel_value(from.bytes[n - 1 - i]);
    else
        for (size_t i = 0; i < n; i++)
            to[i] = from.floats[n - 1 - i];
}

/* Where coordinate i of a row of n pixels is, by the mode; -1: nowhere. */
INLINE int64_t resample_inside(int64_t i, int64_t n, enum augment_mode mode)
{
    if (i >= 0 && i < n)
        return i;
    if (mode == AUGMENT_CONSTANT)
        return -1;
    if (mode == AUGMENT_EDGE)
        return i < 0 ? 0 : n - 1;
    if (n == 1)
        return 0;
    const int64_t period = 2 * (n - 1), far = (i < 0 ? -i : i) % period;
    return far < n ? far : period - far;
}

/* ---- copies ---- */

/* Pixel i of one direction comes from pixel at + step * i. */
typedef struct {
    int64_t at;
    int step; /* 1 or -1; 0: it is no such copy */
} copied;

KERNEL copied copied_along(double m, double other, double t, int n)
{
    const double centre = 0.5 * (n - 1), at = centre - m * centre + t;
    if ((m != 1 && m != -1) || other != 0 || fabs(at) > 1e9 || at != (double)(int64_t)at)
        return (copied){0, 0};
    return (copied){(int64_t)at, (int)m};
}

KERNEL void copied_row(augment_pixels row, copied by, int w, float fill, enum augment_mode mode, float *restrict to)
{
    /* pixels low, ..., high - 1 lie within the row */
    int64_t low = by.step > 0 ? -by.at : by.at - w + 1, high = by.step > 0 ? w - by.at : by.at + 1;
    low = low < 0 ? 0 : low > w ? w : low;
    high = high < low ? low : high > w ? w : high;
    if (by.step > 0)
        pixels_load(pixels_from(row, (size_t)(low < high ? by.at + low : 0)), (size_t)(high - low), to + low);
    else
        pixels_load_back(pixels_from(row, (size_t)(low < high ? by.at - high + 1 : 0)), (size_t)(high - low), to + low);
    for (int side = 0; side < 2; side++)
        for (int64_t x = side ? high : 0; x < (side ? w : low); x++) {
            const int64_t i = resample_inside(by.at + by.step * x, w, mode);
            if (i < 0)
                to[x] = fill;
            else
                pixels_load(pixels_from(row, (size_t)i), 1, to + x);
        }
}

KERNEL void resample_copy(augment_pixels from, shape s, copied y, copied x, float fill, enum augment_mode mode, float *to)
{
    const size_t W = (size_t)s.w, P = (size_t)s.h * W;
    for (int c = 0; c < s.c; c++)
        for (int i = 0; i < s.h; i++) {
            const int64_t row = resample_inside(y.at + y.step * i, s.h, mode);
            float *at = to + (size_t)c * P + (size_t)i * W;
            if (row >= 0)
                copied_row(pixels_from(from, (size_t)c * P + (size_t)row * W), x, s.w, fill, mode, at);
            else
                for (size_t k = 0; k < W; k++)
                    at[k] = fill;
        }
}

/* ---- interpolation ---- */

/* The image with a border of one pixel: of `fill`, or of the image's own. */
KERNEL void resample_pad(augment_pixels from, shape s, float fill, enum augment_mode mode, float *to)
{
    const size_t W = (size_t)s.w, H = (size_t)s.h, wide = W + 2;
    for (size_t c = 0; c < (size_t)s.c; c++, to += (H + 2) * wide) {
        for (size_t y = 0; y < H; y++) {
            float *row = to + (y + 1) * wide;
            pixels_load(pixels_from(from, (c * H + y) * W), W, row + 1);
            row[0] = mode == AUGMENT_CONSTANT ? fill : row[1];
            row[W + 1] = mode == AUGMENT_CONSTANT ? fill : row[W];
        }
        for (size_t x = 0; x < wide; x++) {
            to[x] = mode == AUGMENT_CONSTANT ? fill : to[wide + x];
            to[(H + 1) * wide + x] = mode == AUGMENT_CONSTANT ? fill : to[H * wide + x];
        }
    }
}

INLINE vec resample_gather(const float *from, ivec at)
{
#if VW == 16
    return (vec)_mm512_i32gather_ps((__m512i)at, from, 4);
#elif VW == 8
    return (vec)_mm256_i32gather_ps(from, (__m256i)at, 4);
#else
    vec v = {0};
    for (int i = 0; i < VW; i++)
        v[i] = from[at[i]];
    return v;
#endif
}

/* Coordinates within 0..n - 1 of a row that is repeated as its mirror image. */
INLINE vec resample_reflect(vec x, int n)
{
    if (n == 1)
        return vset(0);
    const vec period = vset((float)(2 * (n - 1))), far = vmin((vec)((ivec)x & iset(INT32_MAX)), vset(1e6f));
    const vec rest = far - period * __builtin_convertvector(__builtin_convertvector(far / period, ivec), vec);
    return vmin(rest, period - rest);
}

/* Coordinates, counted from the border, become a whole part and the rest. */
INLINE ivec resample_split(vec *x, int n, enum augment_mode mode)
{
    if (mode == AUGMENT_REFLECT)
        *x = resample_reflect(*x - 1.f, n) + 1.f;
    *x = vmin(vmax(*x, vset(0)), vset((float)(n + 1))); /* what is no number becomes 0 */
    const ivec at = __builtin_convertvector(vmin(*x, vset((float)n)), ivec);
    *x -= __builtin_convertvector(at, vec);
    return at;
}

/* `padded` to `to`; f is NULL, or says what is added to where pixels come from. */
KERNEL void resample_image(const float *padded, shape s, const augment_move *m, const augment_field *f,
                           enum augment_mode mode, float *to)
{
    const int wide = s.w + 2;
    const size_t W = (size_t)s.w, P = (size_t)s.h * W, plane = (size_t)(s.h + 2) * (size_t)wide;
    const double cy = 0.5 * (s.h - 1), cx = 0.5 * (s.w - 1);
    const vec my = vset((float)m->m[0][1]), mx = vset((float)m->m[1][1]);
    vec lanes;
    for (int i = 0; i < VW; i++)
        lanes[i] = (float)i;
    for (int row = 0; row < s.h; row++) {
        const vec by = vset((float)(m->m[0][0] * (row - cy) - m->m[0][1] * cx + m->t[0] + cy + 1));
        const vec bx = vset((float)(m->m[1][0] * (row - cy) - m->m[1][1] * cx + m->t[1] + cx + 1));
        for (int first = 0; first < s.w; first += VW) {
            const vec along = lanes + (float)first;
            vec y = by + my * along, x = bx + mx * along;
            if (f) {
                y += vload(f->dy + (size_t)row * f->stride + first);
                x += vload(f->dx + (size_t)row * f->stride + first);
            }
            const ivec iy = resample_split(&y, s.h, mode), ix = resample_split(&x, s.w, mode), at = iy * wide + ix;
            for (int c = 0; c < s.c; c++) {
                const float *from = padded + (size_t)c * plane;
                const vec a = resample_gather(from, at), b = resample_gather(from + 1, at);
                const vec under = resample_gather(from + wide, at), last = resample_gather(from + wide + 1, at);
                const vec upper = a + x * (b - a), lower = under + x * (last - under);
                vstore_n(to + (size_t)c * P + (size_t)row * W + first, upper + y * (lower - upper),
                         s.w - first < VW ? s.w - first : VW);
            }
        }
    }
}

#endif
