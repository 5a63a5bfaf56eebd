/* Normalises each channel by mean and variance of the step's images while it trains, and by running ones otherwise:
 * y = weight * (x - mean) / sqrt(var + eps) + bias. A kind for tests/test_registration.py. Body: included by cext/isa/.
 * Weight block: weight, bias; state block: running mean, running variance; each padded to LANES. Keeps the normalised input,
 * and behind that of the first sample 1 / sqrt(var + eps), the mean and the unbiased variance. */
#include "layer.h"

enum { RUNNING_EPS, RUNNING_MOMENTUM }; /* real options */

INLINE size_t running_pad(const geometry *g) { return round_up((size_t)g->out.c, LANES); }
INLINE size_t running_room(const geometry *g) { return round_up(shape_size(g->out), LANES) + SLACK; }

KERNEL const char *running_norm_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = WHOLE_BATCH;
    g->weight_size = g->state_size = 2 * running_pad(g);
    g->state_rate = g->real[RUNNING_MOMENTUM];
    g->keep_size = running_room(g) + 3 * running_pad(g);
    g->scratch_size = 2 * running_pad(g);
    return NULL;
}

KERNEL ptrdiff_t running_norm_locate(const geometry *g, int k, ptrdiff_t i)
{
    return i < g->out.c ? k * (ptrdiff_t)running_pad(g) + i : -1;
}

/* Statistics and normalised inputs of the step's images, in double precision until they are stored. */
KERNEL void running_norm_observe(const geometry *g, const call *c, float *statistics)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = running_pad(g);
    const double m = (double)c->n * (double)P;
    for (size_t k = 0; k < C; k++) {
        double sum = 0, square = 0;
        for (int n = 0; n < c->n; n++)
            for (size_t i = 0; i < P; i++)
                sum += (double)c->x[0].p[(size_t)n * c->x[0].stride + i * C + k];
        for (int n = 0; n < c->n; n++)
            for (size_t i = 0; i < P; i++) {
                const double d = (double)c->x[0].p[(size_t)n * c->x[0].stride + i * C + k] - sum / m;
                square += d * d;
            }
        const double inverse = 1 / sqrt(square / m + (double)g->real[RUNNING_EPS]);
        for (int n = 0; n < c->n; n++)
            for (size_t i = 0; i < P; i++)
                c->keep.p[(size_t)n * c->keep.stride + i * C + k] =
                    (float)(((double)c->x[0].p[(size_t)n * c->x[0].stride + i * C + k] - sum / m) * inverse);
        statistics[k] = (float)inverse;
        statistics[pad + k] = (float)(sum / m);
        statistics[2 * pad + k] = (float)(square / (m > 1 ? m - 1 : 1));
    }
}

KERNEL void running_norm_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = running_pad(g);
    float *statistics = c->keep.p + running_room(g);
    if (c->training)
        running_norm_observe(g, c, statistics);
    else
        for (size_t k = 0; k < C; k++) {
            statistics[k] = 1 / sqrtf(c->state[pad + k] + g->real[RUNNING_EPS]);
            statistics[pad + k] = c->state[k];
        }
    for (int n = 0; n < c->n; n++)
        for (size_t i = 0; i < P; i++)
            for (size_t k = 0; k < C; k++) {
                const float x = c->x[0].p[(size_t)n * c->x[0].stride + i * C + k];
                const float kept = c->keep.p[(size_t)n * c->keep.stride + i * C + k];
                const float normal = c->training ? kept : (x - statistics[pad + k]) * statistics[k];
                c->y.p[(size_t)n * c->y.stride + i * C + k] = c->w[k] * normal + c->w[pad + k];
            }
}

KERNEL void running_norm_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = running_pad(g);
    const float *statistics = c->keep.p + running_room(g);
    const double m = (double)c->n * (double)P;
    const float share = c->share * (float)c->n;
    for (size_t k = 0; k < C; k++) {
        double sum = 0, product = 0;
        for (int n = 0; n < c->n; n++)
            for (size_t i = 0; i < P; i++) {
                const double dy = (double)c->dy.p[(size_t)n * c->dy.stride + i * C + k];
                sum += dy;
                product += dy * (double)c->keep.p[(size_t)n * c->keep.stride + i * C + k];
            }
        for (int n = 0; c->dx[0].p && n < c->n; n++) /* before dw, which may be the weights themselves */
            for (size_t i = 0; i < P; i++) {
                const double dy = (double)c->dy.p[(size_t)n * c->dy.stride + i * C + k];
                const double normal = (double)c->keep.p[(size_t)n * c->keep.stride + i * C + k];
                c->dx[0].p[(size_t)n * c->dx[0].stride + i * C + k] = (float)((double)(c->w[k] * statistics[k]) *
                                                                              (dy - (sum + normal * product) / m));
            }
        c->dw[k] = (float)product + (c->first ? 0 : c->dw[k]);
        c->dw[pad + k] = (float)sum + (c->first ? 0 : c->dw[pad + k]);
        for (int s = 0; s < 2; s++) {
            const float observed = share * statistics[(size_t)(1 + s) * pad + k];
            c->dstate[(size_t)s * pad + k] = observed + (c->first ? 0 : c->dstate[(size_t)s * pad + k]);
        }
    }
}

static const part running_norm_parts[] = {{"weight", 0}, {"bias", 0}, {"running_mean", 1}, {"running_var", 1}};
static const layer_kind layer_running_norm = {.name = "running_norm",
                                              .n_parts = 4,
                                              .parts = running_norm_parts,
                                              .set_up = running_norm_set_up,
                                              .locate = running_norm_locate,
                                              .forward = running_norm_forward,
                                              .backward = running_norm_backward};
