/* What all checks use: expectations, chance, memory. For driver.c. */
#ifndef DRIVER_CHANCE_H
#define DRIVER_CHANCE_H

#include "engine/bench.h"
#include "engine/distance.h"
#include "engine/finish.h"
#include "engine/exchange.h"
#include "engine/phase.h"
#include "replay/replay.h"
#include "engine/trace.h"
#include "registry.h"
#include "virtual/clock.h"
#include "virtual/orders.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures, n_networks, n_phases;
static int64_t lock_failures, late, latest; /* what contention there was: proof that the checks met some */
static char where[300];

__attribute__((format(printf, 2, 3))) static int expect(int right, const char *what, ...)
{
    if (!right) {
        va_list list;
        va_start(list, what);
        fprintf(stderr, "driver: %s: ", where);
        vfprintf(stderr, what, list);
        fputc('\n', stderr);
        va_end(list);
        failures++;
    }
    return right;
}

/* ---- chance ---- */

static uint64_t seed;

static int below(int n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static float between(float low, float high) { return low + (high - low) * (float)below(1 << 20) / (float)(1 << 20); }

static void *block(size_t n, size_t size)
{
    void *p = malloc(n * size);
    if (!p)
        abort();
    return p;
}

#endif
