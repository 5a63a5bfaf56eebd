# Single layers, and how far cores are from each other.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from .kinds cimport engine_t, pass_t

cdef extern from "engine/bench.h" nogil:
    const char *bench_pass_name(int p)
    int bench_open(engine_t *e)
    double bench_time(engine_t *e, int node, pass_t p, long rounds)
    const char *bench_loop(const engine_t *e, int node, pass_t p)

cdef extern from "engine/distance.h" nogil:
    int distance_measure(int32_t *room, int n, int side, int turns, double seconds, float *ns, int most)
