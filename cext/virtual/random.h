/* The random numbers of a clock. For this room. */
#ifndef CHAOS_VIRTUAL_RANDOM_H
#define CHAOS_VIRTUAL_RANDOM_H

#include <stdint.h>

typedef struct {
    uint64_t state[4];
    double spare;
    int has_spare;
} generator;

void random_seed(generator *g, uint64_t seed);
/* In [0, 1). */
double random_uniform(generator *g);
/* exp(sigma x - sigma^2 / 2) for a standard normal x: its mean is 1. */
double random_factor(generator *g, double sigma);

#endif
