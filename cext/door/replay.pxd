# Events: recorded, and run again.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from .engine cimport engine_t, images_t

cdef extern from "engine/event.h" nogil:
    enum: EVENT_KINDS
    const char *event_name(int kind)

cdef extern from "replay/replay.h" nogil:
    ctypedef struct replay_t "replay":
        pass
    replay_t *replay_new(engine_t *e, int lanes, int threads)
    void replay_free(replay_t *r)
    int replay_begin(replay_t *r, const images_t *data, int64_t begin, int64_t end, float lr)
    int replay_run(replay_t *r, const uint64_t *events, int64_t n, int64_t *at, const char **reason)
    const char *replay_end(replay_t *r)

cdef extern from "engine/trace.h" nogil:
    int trace_start(engine_t *e)
    int64_t trace_count(const engine_t *e)
    void trace_take(engine_t *e, uint64_t *out)
