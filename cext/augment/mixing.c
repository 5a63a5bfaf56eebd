/* Kinds that mix an image, and its target, with another: all pixels (Zhang, Cisse, Dauphin, Lopez-Paz 2018), or a box (Yun et
 * al. 2019). The share of the image itself is drawn from a beta distribution with both parameters alpha.
 * Body: included by cext/isa/ only. */
#include "draws.h"

enum { MIXING_ALPHA = 1 };
enum { MIXING_PARTNER = 1, MIXING_Y, MIXING_X, MIXING_BETA }; /* numbers of the key; the last one begins a row of pairs */

/* Within 0..1, neither 0 nor 1. */
static inline double mixing_open(uint64_t key, uint64_t j) { return (double)random_uniform(key, j) + 0x1p-25; }

/* alpha <= 1: the first of pairs whose powers 1 / alpha add up to at most 1 (Joehnk 1964), by their logarithms. */
static inline double mixing_joehnk(double alpha, uint64_t key)
{
    for (uint64_t j = MIXING_BETA;; j += 2) {
        const double a = log(mixing_open(key, j)) / alpha, b = log(mixing_open(key, j + 1)) / alpha;
        const double top = a > b ? a : b, sum = top + log(exp(a - top) + exp(b - top));
        if (sum <= 0)
            return exp(a - sum);
    }
}

/* alpha > 1: algorithm BB of Cheng (1978). */
static inline double mixing_cheng(double alpha, uint64_t key)
{
    const double all = 2 * alpha, beta = sqrt((all - 2) / (2 * alpha * alpha - all)), gamma = alpha + 1 / beta;
    for (uint64_t j = MIXING_BETA;; j += 2) {
        const double u = mixing_open(key, j), z = u * u * mixing_open(key, j + 1);
        const double v = beta * log(u / (1 - u)), w = alpha * exp(v), r = gamma * v - log(4.), s = alpha + r - w;
        if (s + 1 + log(5.) >= 5 * z || s >= log(z) || r + all * log(all / (alpha + w)) >= log(z))
            return w / (alpha + w);
    }
}

static inline double mixing_beta(double alpha, uint64_t key)
{
    return alpha > 1 ? mixing_cheng(alpha, key) : mixing_joehnk(alpha, key);
}

/* Any of the images, also the image itself. */
static inline int64_t mixing_partner(uint64_t key, int64_t images)
{
    return (int64_t)((unsigned __int128)random_mix(key + (MIXING_PARTNER + 1) * random_step) * (uint64_t)images >> 64);
}

KERNEL augment_mix mixup_mix(const augment_step *t, uint64_t key, shape s, int64_t images)
{
    return (augment_mix){.partner = mixing_partner(key, images), .share = (float)mixing_beta(t->option[MIXING_ALPHA], key)};
}

/* The box has a part 1 - share of the area; as much of it as lies within the image counts. */
KERNEL augment_mix cutmix_mix(const augment_step *t, uint64_t key, shape s, int64_t images)
{
    augment_mix m = {.partner = mixing_partner(key, images)};
    const double half = 0.5 * sqrt(1 - mixing_beta(t->option[MIXING_ALPHA], key));
    const int y = (int)((double)random_uniform(key, MIXING_Y) * s.h), dy = (int)(half * s.h);
    const int x = (int)((double)random_uniform(key, MIXING_X) * s.w), dx = (int)(half * s.w);
    m.y0 = y > dy ? y - dy : 0;
    m.y1 = y + dy < s.h ? y + dy : s.h;
    m.x0 = x > dx ? x - dx : 0;
    m.x1 = x + dx < s.w ? x + dx : s.w;
    const double area = (double)(m.y1 - m.y0) * (m.x1 - m.x0);
    if (area == 0)
        m.partner = -1;
    m.share = (float)(1 - area / ((double)s.h * s.w));
    return m;
}

#define MIXING_ROW(NAME) static const augment_kind augment_##NAME = {.name = #NAME, .mix = NAME##_mix};
MIXING_ROW(mixup)
MIXING_ROW(cutmix)
#undef MIXING_ROW
