/* y = x + sigma * z while it trains, with z normal, of the numbers 2j and 2j + 1 of the image for its j-th value (Box, Muller
 * 1958); y = x otherwise. Body: included by cext/isa/ only. */
#include "layer.h"
#include "normal.h"
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
            const vec z = vsqrt(-2.f * normal_log(1.f - vload(radius + i))) * normal_cosine(vload(angle + i));
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
