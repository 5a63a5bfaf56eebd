/* xoshiro256++ (Blackman, Vigna 2018), seeded by splitmix64; see random.h. */
#include "random.h"

#include <math.h>

static uint64_t turn_left(uint64_t x, int k) { return x << k | x >> (64 - k); }

static uint64_t bits(generator *g)
{
    uint64_t *s = g->state;
    const uint64_t result = turn_left(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = turn_left(s[3], 45);
    return result;
}

void random_seed(generator *g, uint64_t seed)
{
    *g = (generator){.has_spare = 0};
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        g->state[i] = z ^ z >> 31;
    }
}

double random_uniform(generator *g) { return (double)(bits(g) >> 11) * 0x1p-53; }

/* Marsaglia's polar method, which makes two at a time. */
double random_factor(generator *g, double sigma)
{
    if (sigma <= 0)
        return 1;
    double x = g->spare;
    if ((g->has_spare = !g->has_spare)) {
        double a, b, r;
        do {
            a = (double)(bits(g) >> 11) * 0x1p-52 - 1;
            b = (double)(bits(g) >> 11) * 0x1p-52 - 1;
            r = a * a + b * b;
        } while (r >= 1 || r == 0);
        const double q = sqrt(-2 * log(r) / r);
        x = a * q;
        g->spare = b * q;
    }
    return exp(sigma * x - sigma * sigma / 2);
}
