/* Single layers for benchmarks. For the door. */
#ifndef CHAOS_BENCH_H
#define CHAOS_BENCH_H

#include "engine.h"

/* Name of enum pass; NULL past the last. */
const char *bench_pass_name(int pass);
/* The loop that the pass takes, in words; NULL: it has only one. */
const char *bench_loop(const engine *e, int node, enum pass pass);
/* The engine is for bench_time from now on: what a pass leaves behind stays; -1: it has workers already. */
int bench_open(engine *e);
/* Seconds per sample of one pass of one layer, on what the last phase with worker 0 left in its buffers (run GRADIENTS
 * first); the mean of `rounds` calls; -1 where training has no such pass. For benchmarks. */
double bench_time(engine *e, int node, enum pass pass, long rounds);

#endif
