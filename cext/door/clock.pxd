# The clock of virtual workers.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "virtual/order.h" nogil:
    ctypedef struct clock_order:
        const char *name
        bint cuts

cdef extern from "virtual/orders.h" nogil:
    const clock_order *orders_at(int i)

cdef extern from "virtual/clock.h" nogil:
    enum: MAX_STRATEGY_OPTIONS, CLOCK_COUNTS
    enum clock_count:
        COUNT_FORWARD, COUNT_BACKWARD, COUNT_PUBLISHING
    ctypedef struct clock_layer:
        int node, first, end, learns
        double forward, backward
    ctypedef struct clock_stripe:
        double publish
        int lines, learns
    ctypedef struct clock_stage:
        int pieces
        double seconds, lines, image_seconds, image_lines
        clock_count counted
    ctypedef struct clock_parts:
        const clock_order *order
        double option[MAX_STRATEGY_OPTIONS]
        int n_workers, n_layers, n_stripes, n_stages
        const clock_layer *layer
        const clock_stripe *stripe
        const clock_stage *stage
        const double *factor
        double begin, line, jitter, near, across, far
        int cores, domain, socket
        uint64_t seed
        int batch, chunk, lanes, group, publishes_later
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
    int vclock_workers(const vclock *c)
    int vclock_lanes(const vclock *c)
