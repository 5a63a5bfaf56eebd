# The clock of virtual workers.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "virtual/clock.h" nogil:
    enum clock_order:
        pass
    const char *clock_order_name(int order)
    ctypedef struct clock_parts:
        clock_order order
        int n_workers, n_layers, n_stripes
        const int32_t *node
        const int32_t *first "from"
        const int32_t *to
        const double *forward
        const double *backward
        const uint8_t *learns
        const double *publish
        const int32_t *lines
        double begin, line
        const double *factor
        double jitter
        uint64_t seed
        int batch, chunk, lanes, max_pending, late, keeps
        int64_t period
        int group, mix, n_stages
        const int32_t *pieces
        const double *piece_seconds
        const double *image_seconds
        const double *piece_lines
        const double *image_lines
        const uint8_t *counted
    ctypedef struct clock_counts:
        double forward, backward, publishing, waiting
        int64_t published, failures
    ctypedef struct vclock:
        pass
    vclock *vclock_new(const clock_parts *parts)
    void vclock_free(vclock *c)
    void vclock_begin(vclock *c, int64_t n_images)
    int64_t vclock_next(vclock *c, int64_t room, uint64_t *events, double *since, double *when)
    int64_t vclock_room(const vclock *c)
    double vclock_now(const vclock *c)
    const clock_counts *vclock_counted(const vclock *c)
