/* y = x + sigma * z while it trains, with z normal, of the numbers 2j and 2j + 1 of the image for its j-th value, as it lies in
 * memory (Box, Muller 1958); y = x otherwise. Body: included by cext/isa/ only. */
#include "layer.h"
#include "normal.h"
#include "uniform.h"

enum { NOISE_SIGMA }; /* real option */

KERNEL const char *gaussian_noise_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = RANDOM;
    return NULL;
}

KERNEL void gaussian_noise_forward(const geometry *g, const call *c)
{
    const size_t size = shape_size(g->out);
    const vec sigma = vset(g->real[NOISE_SIGMA]);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        if (!c->training) {
            memcpy(y, x, size * sizeof *y);
            continue;
        }
        const uint64_t key = c->key[n];
        uvec j = 2 * uniform_numbers(0);
        for (size_t i = 0; i < size; i += VW, j += 2 * VW) {
            const vec u = 1.f - uniform_vector(key, j), z = vsqrt(-2.f * normal_log(u));
            vstore(y + i, vload(x + i) + sigma * (z * normal_cosine(uniform_vector(key, j + 1))));
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
                                                .backward = gaussian_noise_backward,
                                                .forgets = FORGETS_X | FORGETS_Y};
