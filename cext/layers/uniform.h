/* Whole vectors of the numbers of random.h. Included by the bodies in this folder. */
#ifndef CHAOS_UNIFORM_H
#define CHAOS_UNIFORM_H

#include "random.h"

typedef uint32_t uvec __attribute__((vector_size(4 * VW), may_alias));

/* first, first + 1, ... */
INLINE uvec uniform_numbers(uint32_t first)
{
    uvec j;
    for (uint32_t l = 0; l < VW; l++)
        j[l] = l;
    return j + first;
}

/* Numbers j < 2^32 of a key, of 24 bits. */
INLINE ivec uniform_bits(uint64_t key, uvec j)
{
    key = random_mix(key); /* out of the loop, where there is one */
    uvec x = j + (uint32_t)key;
    x = (x ^ x >> 17) * RANDOM_FIRST;
    x = ((x ^ x >> 11) + (uint32_t)(key >> 32)) * RANDOM_SECOND;
    x = (x ^ x >> 15) * RANDOM_THIRD;
    return (ivec)((x ^ x >> 14) >> (32 - RANDOM_BITS));
}

/* The same as numbers in [0, 1). */
INLINE vec uniform_vector(uint64_t key, uvec j) { return __builtin_convertvector(uniform_bits(key, j), vec) * 0x1p-24f; }

/* What numbers of 24 bits are below when uniform ones are below p. */
INLINE ivec uniform_limit(float p) { return iset((int32_t)ceilf(p * 0x1p24f)); }

#endif
