/* What starts threads and pins them; threads.c is the only file that spells OpenMP. Included by .c files of the engine, as
 * their first header. Workers run with denormals flushed to zero (they cost 100 cycles each), and on a CPU of
 * their own if asked; the threads' own mode and mask are restored, because one of them is the caller's. */
#ifndef CHAOS_THREADS_H
#define CHAOS_THREADS_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* for the affinity masks */
#endif
#include <sched.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
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

#if defined(__linux__)
#ifndef CPU_SETSIZE
#error "threads.h must be the first header, or the system does not declare affinity masks"
#endif
typedef struct {
    cpu_set_t cpus[8]; /* 8192 CPUs, the most that Linux can be built for */
    int changed;
} affinity;

/* Moves the calling thread to one CPU and keeps its mask in *old; 0 if the system refuses, all is as before then. */
static inline int pin_thread(int cpu, affinity *old)
{
    cpu_set_t wanted[8];
    if (cpu < 0 || cpu >= 8 * CPU_SETSIZE || sched_getaffinity(0, sizeof old->cpus, old->cpus))
        return 0;
    CPU_ZERO_S(sizeof wanted, wanted);
    CPU_SET_S((size_t)cpu, sizeof wanted, wanted);
    old->changed = !CPU_EQUAL_S(sizeof wanted, wanted, old->cpus);
    return !old->changed || !sched_setaffinity(0, sizeof wanted, wanted);
}
/* Undoes pin_thread. */
static inline void unpin_thread(const affinity *old)
{
    if (old->changed)
        sched_setaffinity(0, sizeof old->cpus, old->cpus);
}
#else
typedef int affinity;
static inline int pin_thread(int cpu, affinity *old) { return (void)cpu, (void)old, 0; }
static inline void unpin_thread(const affinity *old) { (void)old; }
#endif

/* Runs body(arg, id) for id = 0..n-1, each in a thread of its own, and returns n; where fewer threads are to be had it runs
 * nothing and returns their number, or 0. */
int threads_run(int n, void (*body)(void *, int), void *arg);

#endif
