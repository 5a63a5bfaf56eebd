/* Losses of the differences d between outputs and targets, averaged over the k outputs: a row for each, with `size` = |d| and
 * `a` the option. Body: included by cext/isa/ only. */
#include "loss.h"

typedef double difference_sum __attribute__((vector_size(8 * VW)));

INLINE vec difference_sign(vec d) { return vselect(d > 0.f, vset(1), vselect(d < 0.f, vset(-1), vset(0))); }

/* Lanes past the last output have d = 0, of which every loss is 0. */
#define LOSS_ROW(id, loss, slope)                                                                                           \
    KERNEL double id##_value(const loss_call *c, const float *y, float *dy)                                                 \
    {                                                                                                                       \
        const vec a = vset((float)loss_number(c, 0)), scale = vset(c->scale / (float)c->k);                                 \
        (void)a;                                                                                                            \
        difference_sum sums = {0};                                                                                          \
        for (int j = 0; j < c->k; j += VW) {                                                                                \
            const int n = c->k - j < VW ? c->k - j : VW;                                                                    \
            const vec d = n == VW ? vload(y + j) - vload(c->values + j) : vload_n(y + j, n) - vload_n(c->values + j, n);    \
            const vec size = vmax(d, -d);                                                                                   \
            sums += __builtin_convertvector(loss, difference_sum);                                                          \
            if (dy)                                                                                                         \
                vstore_n(dy + j, scale * (slope), n);                                                                       \
        }                                                                                                                   \
        double sum = 0;                                                                                                     \
        for (int i = 0; i < VW; i++)                                                                                        \
            sum += sums[i];                                                                                                 \
        return sum / c->k;                                                                                                  \
    }                                                                                                                       \
    static const loss_kind loss_##id = {.name = #id, .targets = TARGET_VALUES, .value = id##_value};

/* clang-format off */
/*       name       loss                                                            its slope */
LOSS_ROW(l1,        size,                                                           difference_sign(d))
LOSS_ROW(huber,     vselect(size < a, 0.5f * d * d, a * (size - 0.5f * a)),         vmax(vmin(d, a), -a))
LOSS_ROW(smooth_l1, vselect(size < a, d * d * (0.5f / a), size - 0.5f * a),         vselect(size < a, d * (1.f / a), difference_sign(d)))
/* clang-format on */
