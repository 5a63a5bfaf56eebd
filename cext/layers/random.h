/* Random numbers by counter: the j-th number of a sample in a layer is a hash of (seed, epoch, image, node, j), the same
 * whichever worker, chunk, order, rank or replay draws it. chaos/layers/random.py says the same in NumPy. Included by the
 * bodies in this folder and by the engine; whole vectors of them: uniform.h. */
#ifndef CHAOS_RANDOM_H
#define CHAOS_RANDOM_H

#include <stdint.h>

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection whose output bits all depend on all input bits. */
static inline uint64_t random_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

enum { RANDOM_BITS = 24 };
static const uint64_t random_step = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */

/* The key of what comes next after `key`: random_key(random_key(random_key(seed, epoch), image), node). */
static inline uint64_t random_key(uint64_t key, uint64_t next) { return random_mix(key + (next + 1) * random_step); }

/* The j-th number of a key, 32 bits, in arithmetic that vectors have: the hash triple32 (Wellons 2018) of j and one half of the
 * key's own hash, with the other half added on the way. tests/test_draws.py asks how random they are. */
#define RANDOM_FIRST 0xed5ad4bbu
#define RANDOM_SECOND 0xac4c1b51u
#define RANDOM_THIRD 0x31848babu
#define RANDOM_HIGH 0x9e3779b9u
static inline uint32_t random_bits(uint64_t key, uint64_t j)
{
    key = random_mix(key);
    uint32_t x = (uint32_t)j + (uint32_t)key;
    const uint32_t other = (uint32_t)(key >> 32) + (uint32_t)(j >> 32) * RANDOM_HIGH;
    x = (x ^ x >> 17) * RANDOM_FIRST;
    x = ((x ^ x >> 11) + other) * RANDOM_SECOND;
    x = (x ^ x >> 15) * RANDOM_THIRD;
    return x ^ x >> 14;
}

/* The j-th number of a key: uniform in [0, 1), a multiple of 2^-24. */
static inline float random_uniform(uint64_t key, uint64_t j)
{
    return (float)(random_bits(key, j) >> (32 - RANDOM_BITS)) * 0x1p-24f;
}

#endif
