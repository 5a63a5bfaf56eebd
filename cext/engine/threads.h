/* The only place that starts threads, and the only one that spells OpenMP. Included by engine.c.
 * Workers run with denormals flushed to zero (they cost 100 cycles each); the caller's mode is restored. */
#ifndef CHAOS_THREADS_H
#define CHAOS_THREADS_H

#include <stdint.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if CHAOS_OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__)
typedef unsigned int float_mode;
static inline float_mode flush_denormals(void)
{
    float_mode old = _mm_getcsr();
    _mm_setcsr(old | 0x8040u); /* FTZ and DAZ */
    return old;
}
static inline void restore_denormals(float_mode old) { _mm_setcsr(old); }
#elif defined(__aarch64__)
typedef uint64_t float_mode;
static inline float_mode flush_denormals(void)
{
    float_mode old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" ::"r"(old | (1u << 24)));
    return old;
}
static inline void restore_denormals(float_mode old) { __asm__ volatile("msr fpcr, %0" ::"r"(old)); }
#else
typedef int float_mode;
static inline float_mode flush_denormals(void) { return 0; }
static inline void restore_denormals(float_mode old) { (void)old; }
#endif

/* Runs body(arg, id) for id = 0..n-1, each in a thread of its own, and returns n; where fewer threads are to be had it runs
 * nothing and returns their number. */
static inline int run_team(int n, void (*body)(void *, int), void *arg)
{
    int ran = 1;
    if (n == 1) {
        float_mode old = flush_denormals();
        body(arg, 0);
        restore_denormals(old);
        return 1;
    }
#if CHAOS_OPENMP
    int dynamic = omp_get_dynamic();
    omp_set_dynamic(0);
#pragma omp parallel num_threads(n)
    {
#pragma omp master
        ran = omp_get_num_threads();
        if (omp_get_num_threads() == n) {
            float_mode old = flush_denormals();
            body(arg, omp_get_thread_num());
            restore_denormals(old);
        }
    }
    omp_set_dynamic(dynamic);
#else
    (void)body, (void)arg;
    ran = 0;
#endif
    return ran;
}

#endif
