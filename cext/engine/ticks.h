/* A clock that costs some ten nanoseconds and no system call, for counting where time goes. Its unit is found out per phase,
 * by the system's clock. Built with CHAOS_TELEMETRY=0 it stands still, and nothing is counted but images and updates: that
 * build exists to measure what counting costs (scripts/telemetry_cost.py). Included by the engine. */
#ifndef CHAOS_TICKS_H
#define CHAOS_TICKS_H

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#ifndef CHAOS_TELEMETRY
#define CHAOS_TELEMETRY 1
#endif

static inline int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t ticks(void)
{
#if !CHAOS_TELEMETRY
    return 0;
#elif defined(__x86_64__)
    return (int64_t)__rdtsc();
#elif defined(__aarch64__)
    int64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return nanoseconds();
#endif
}

#endif
