/* Random numbers by counter: the j-th number of a sample in a layer is a hash of (seed, epoch, image, node, j), the same
 * whichever worker, chunk, order, rank or replay draws it. chaos/layers/random.py says the same in NumPy. Included by the
 * bodies in this folder and by the engine. */
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

/* The j-th number of a key: uniform in [0, 1), a multiple of 2^-24. */
static inline float random_uniform(uint64_t key, uint64_t j)
{
    return (float)(random_mix(key + (j + 1) * random_step) >> (64 - RANDOM_BITS)) * 0x1p-24f;
}

#endif
