# The weights of a running engine, for who is not a worker.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from .engine cimport engine_t, stripe_state

cdef extern from "engine/exchange.h" nogil:
    enum: CHAOS_CAREFUL
    void exchange_read(engine_t *e, int first, int last, float *out)
    void exchange_add(engine_t *e, int first, int last, const float *delta, float scale, float *own)
    void *exchange_move_states(engine_t *e, void *place)
    size_t exchange_state_bytes(const engine_t *e)
    void exchange_rewind(engine_t *e)
    void exchange_add_rows(const float *row, int n_rows, size_t stride, size_t n, float *out)
    int exchange_reached(const int32_t *reached, int n)

cdef extern from "engine/shared.h" nogil:
    bint stripe_try_lock(stripe_state *t)
    void stripe_unlock(stripe_state *t)
