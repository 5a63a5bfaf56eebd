/* x + sigma * z with z normal, from the two halves of a hash each (Box, Muller 1958); pixels are kept within their bounds.
 * Body: included by cext/isa/ only. */
#include "draws.h"
#include "layers/normal.h"

enum { NOISE_STD = 1 };

KERNEL void noise_paint(const augment_step *t, uint64_t key, const augment_picture *p)
{
    enum { BLOCK = 256 };
    const vec sigma = vset((float)t->option[NOISE_STD] * p->unit);
    const vec low = vset(p->bounded ? p->black : -INFINITY), high = vset(p->bounded ? p->black + 255 * p->unit : INFINITY);
    int32_t a[BLOCK], b[BLOCK];
    for (size_t from = 0, n = shape_size(p->s); from < n; from += BLOCK) {
        augment_draws(key, 1 + (uint64_t)from, BLOCK, a, b);
        for (size_t i = 0; i < BLOCK && from + i < n; i += VW) {
            const vec radius = __builtin_convertvector(iload(a + i), vec) * 0x1p-24f;
            const vec angle = __builtin_convertvector(iload(b + i), vec) * 0x1p-24f;
            const vec z = vsqrt(-2.f * normal_log(1.f - radius)) * normal_cosine(angle);
            vstore(p->x + from + i, vmin(vmax(vload(p->x + from + i) + sigma * z, low), high));
        }
    }
}

static const augment_kind augment_gaussian_noise = {.name = "gaussian_noise", .paint = noise_paint};
