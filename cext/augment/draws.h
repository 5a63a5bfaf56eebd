/* The random numbers of steps. Included by the bodies in this folder and by the engine. */
#ifndef CHAOS_AUGMENT_DRAWS_H
#define CHAOS_AUGMENT_DRAWS_H

#include "augment.h"
#include "layers/random.h"

static inline uint64_t augment_image_key(uint64_t key, int64_t image) { return random_key(key, (uint64_t)image); }
/* Layers are numbered from 0, steps from 2^32; the other image of a mixture has numbers of its own. */
static inline uint64_t augment_step_key(uint64_t key, int step)
{
    return random_key(key, ((uint64_t)1 << 32) + (uint64_t)step);
}
static inline uint64_t augment_partner_key(uint64_t key) { return random_key(key, (uint64_t)1 << 33); }

/* The first number of a step says whether it is done. */
static inline int augment_applies(const augment_step *t, uint64_t key)
{
    return (double)random_uniform(key, 0) < t->option[0];
}

static inline double augment_between(uint64_t key, uint64_t j, double low, double high)
{
    return low + (high - low) * (double)random_uniform(key, j);
}

/* One of -most, ..., most. */
static inline double augment_whole(uint64_t key, uint64_t j, double most)
{
    return (double)(int64_t)((double)random_uniform(key, j) * (2 * most + 1)) - most;
}

/* Numbers first, first + 1, ..., n of them, as 24-bit integers: the upper bits of each hash to a, those below them to b. */
static inline void augment_draws(uint64_t key, uint64_t first, size_t n, int32_t *restrict a, int32_t *restrict b)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t hash = random_mix(key + (first + (uint64_t)i + 1) * random_step);
        a[i] = (int32_t)(hash >> 40);
        b[i] = (int32_t)(hash >> 16 & 0xffffff);
    }
}

#endif
