/* y = x + sigma * z while it trains, with z normal, of the numbers 2j and 2j + 1 of the image for its j-th value (Box, Muller
 * 1958); y = x otherwise. Body: included by cext/isa/ only. */
#include "layer.h"
#include "random.h"

enum { NOISE_SIGMA }; /* real option */

INLINE size_t noise_room(const geometry *g) { return round_up(shape_size(g->out), LANES); }

KERNEL const char *gaussian_noise_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = RANDOM;
    g->scratch_size = 2 * noise_room(g);
    return NULL;
}

/* log(u) for normal u > 0: u = 2^e m with m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716,
 * by its series up to s^9, the rest is below 2^-28 of it. */
INLINE vec noise_log(vec u)
{
    const ivec e = ((ivec)u - 0x3f3504f3) >> 23;
    const vec m = (vec)((ivec)u - (e << 23)), s = (m - 1.f) / (m + 1.f), q = s * s;
    vec p = vset(1.f / 9);
    p = p * q + 1.f / 7;
    p = p * q + 1.f / 5;
    p = p * q + 1.f / 3;
    return __builtin_convertvector(e, vec) * 0.693147181f + (s + s + 2.f * s * q * p);
}

/* cos(2 pi u) for u in [0, 1]: sin(2 pi t) with t = |u - 1/2| - 1/4 in [-1/4, 1/4], by its series up to t^13, the rest is
 * below 2^-30. */
INLINE vec noise_cosine(vec u)
{
    const vec from = u - 0.5f, t = (vec)((ivec)from & iset(INT32_MAX)) - 0.25f, a = t * 6.28318531f, q = a * a;
    vec p = vset(1.f / 6227020800.f);
    p = p * q - 1.f / 39916800;
    p = p * q + 1.f / 362880;
    p = p * q - 1.f / 5040;
    p = p * q + 1.f / 120;
    p = p * q - 1.f / 6;
    return a + a * q * p;
}

KERNEL void gaussian_noise_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, size = shape_size(g->out);
    const vec sigma = vset(g->real[NOISE_SIGMA]);
    float *radius = c->scratch, *angle = c->scratch + noise_room(g);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        if (!c->training) {
            memcpy(y, x, size * sizeof *y);
            continue;
        }
        for (size_t i = 0; i < P; i++)
            for (size_t k = 0; k < C; k++) {
                radius[i * C + k] = random_uniform(c->key[n], 2 * (k * P + i));
                angle[i * C + k] = random_uniform(c->key[n], 2 * (k * P + i) + 1);
            }
        for (size_t i = 0; i < size; i += VW) {
            const vec z = vsqrt(-2.f * noise_log(1.f - vload(radius + i))) * noise_cosine(vload(angle + i));
            vstore(y + i, vload(x + i) + sigma * z);
        }
    }
}

KERNEL void gaussian_noise_backward(const geometry *g, const call *c)
{
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        memcpy(c->dx[0].p + (size_t)n * c->dx[0].stride, c->dy.p + (size_t)n * c->dy.stride,
               shape_size(g->out) * sizeof(float));
}

static const layer_kind layer_gaussian_noise = {.name = "gaussian_noise",
                                                .set_up = gaussian_noise_set_up,
                                                .forward = gaussian_noise_forward,
                                                .backward = gaussian_noise_backward};
