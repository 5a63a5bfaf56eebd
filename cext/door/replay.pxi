# Events in numbers and words; see cext/engine/event.h.

EVENTS = _names_by(event_name)


def event(kind, worker, what):
    """An event's code: worker | kind << 16 | what << 32."""
    return worker | EVENTS.index(kind) << 16 | what << 32


def event_text(uint64_t code):
    """An event in words."""
    kind = code >> 16 & 0xffff
    return f"worker {code & 0xffff}: {EVENTS[kind] if 0 < kind < EVENT_KINDS else f'kind {kind}'} {code >> 32}"


cdef int run_events(Engine engine, const images_t *data, int64_t begin, int64_t end, float lr, events, int lanes,
                 int jobs) except -2:
    cdef const uint64_t[::1] block
    cdef int64_t at = 0, count
    cdef const char *reason = NULL
    cdef int status = DONE
    if jobs < 1 or jobs > 1 and not OPENMP:
        raise ValueError(f"jobs must be at least 1{'' if OPENMP else ', and without OpenMP at most 1'}, not {jobs}")
    cdef replay_t *r = replay_new(engine.e, lanes, jobs)
    try:
        if r == NULL or replay_begin(r, data, begin, end, lr):
            raise MemoryError(f"out of memory for {engine.workers} workers of {engine.worker_bytes} bytes each")
        for block in events:
            count = block.shape[0]
            if not count:
                continue
            with nogil:
                status = replay_run(r, &block[0], count, &at, &reason)
            if status == NO_TEAM:
                raise RuntimeError(f"the OpenMP runtime did not start {min(jobs, engine.workers)} threads for the events; "
                                   "OMP_THREAD_LIMIT, OMP_STACKSIZE, or a limit on processes may be the reason; fewer jobs need fewer")
            if status == -1:
                raise ValueError(f"{event_text(block[at])}, event {at} of its block, is not possible: {reason.decode()}")
            if status != DONE:
                break
        reason = replay_end(r)
    finally:
        replay_free(r)
    if status == DONE and reason != NULL:
        raise ValueError(f"the events are over, but {reason.decode()}")
    return status
