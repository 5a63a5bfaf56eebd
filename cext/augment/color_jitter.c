/* Brightness, contrast and saturation, in this order: x -> f x, f x + (1 - f) mean grey, f x + (1 - f) grey, counted from
 * black; pixels are kept within their bounds after each. Body: included by cext/isa/ only. */
#include "draws.h"

enum { BRIGHTNESS_LOW = 1, BRIGHTNESS_HIGH, CONTRAST_LOW, CONTRAST_HIGH, SATURATION_LOW, SATURATION_HIGH };

static const float color_grey[3] = {0.299f, 0.587f, 0.114f}; /* of red, green, blue (ITU-R BT.601) */

/* n numbers, SLACK behind them: x -> f x + rest. */
KERNEL void color_line(const augment_picture *p, float *x, size_t n, float f, float rest)
{
    const vec low = vset(p->bounded ? p->black : -INFINITY), high = vset(p->bounded ? p->black + 255 * p->unit : INFINITY);
    for (size_t i = 0; i < n; i += VW)
        vstore(x + i, vmin(vmax(f * vload(x + i) + rest, low), high));
}

KERNEL double color_sum(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += VW) {
        const vec v = n - i < VW ? vload_n(x + i, (int)(n - i)) : vload(x + i);
        float part = 0;
        for (int k = 0; k < VW; k++)
            part += v[k];
        sum += (double)part;
    }
    return sum;
}

/* The mean grey of an image; of one that is not of three colours the mean of all its numbers. */
KERNEL double color_mean(const augment_picture *p)
{
    const size_t P = (size_t)p->s.h * (size_t)p->s.w;
    double sum = 0;
    if (p->s.c != 3)
        return color_sum(p->x, shape_size(p->s)) / (double)shape_size(p->s);
    for (size_t c = 0; c < 3; c++)
        sum += (double)color_grey[c] * color_sum(p->x + c * P, P);
    return sum / (double)P;
}

KERNEL void color_saturate(const augment_picture *p, float f)
{
    const size_t P = (size_t)p->s.h * (size_t)p->s.w;
    const float low = p->bounded ? p->black : -INFINITY, high = p->bounded ? p->black + 255 * p->unit : INFINITY;
    float *r = p->x, *g = r + P, *b = g + P;
    for (size_t i = 0; i < P; i++) {
        const float rest = (1 - f) * (color_grey[0] * r[i] + color_grey[1] * g[i] + color_grey[2] * b[i]);
        const float red = f * r[i] + rest, green = f * g[i] + rest, blue = f * b[i] + rest;
        r[i] = red < low ? low : red > high ? high : red;
        g[i] = green < low ? low : green > high ? high : green;
        b[i] = blue < low ? low : blue > high ? high : blue;
    }
}

KERNEL void color_jitter_paint(const augment_step *t, uint64_t key, const augment_picture *p)
{
    const double *o = t->option;
    const size_t n = shape_size(p->s);
    if (o[BRIGHTNESS_LOW] != 1 || o[BRIGHTNESS_HIGH] != 1) {
        const float f = (float)augment_between(key, 1, o[BRIGHTNESS_LOW], o[BRIGHTNESS_HIGH]);
        color_line(p, p->x, n, f, (1 - f) * p->black);
    }
    if (o[CONTRAST_LOW] != 1 || o[CONTRAST_HIGH] != 1) {
        const float f = (float)augment_between(key, 2, o[CONTRAST_LOW], o[CONTRAST_HIGH]);
        color_line(p, p->x, n, f, (float)((1 - (double)f) * color_mean(p)));
    }
    if (o[SATURATION_LOW] != 1 || o[SATURATION_HIGH] != 1)
        color_saturate(p, (float)augment_between(key, 3, o[SATURATION_LOW], o[SATURATION_HIGH]));
}

static const augment_kind augment_color_jitter = {.name = "color_jitter", .paint = color_jitter_paint};
