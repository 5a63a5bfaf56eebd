# Single layers, and how far cores are from each other; for chaos.bench.

def hand_over(int32_t[::1] room not None, int side, int turns, float[::1] out not None, double seconds=0.01):
    """Hands the cache lines of `room` to a thread that calls this with the other side, and back, and so on: how many numbers of
    out are nanoseconds per line and hand-over now, each of a block of so many turns. The first 128 bytes of room, which is
    zeroed and aligned to a line, are for whose turn it is."""
    cdef int n = <int>((room.shape[0] - 32) // 16), most = <int>out.shape[0], count
    if not 32 <= room.shape[0] < 1 << 30 or out.shape[0] >= 1 << 30 or side not in (0, 1) or turns < 1 \
            or not 0 <= seconds <= 60:
        raise ValueError("room must hold 32 to 2^30 numbers, out fewer than 2^30, side must be 0 or 1, turns at least 1, "
                         "seconds 0 to 60")
    with nogil:
        count = distance_measure(&room[0], n, side, turns, seconds, &out[0] if most else NULL, most)
    return count


PASSES = _names_by(bench_pass_name)


cdef class Bench:
    """Single layers of an engine; with `times`, for which it must be a new one, on the data of its last "gradients" phase."""

    cdef readonly Engine engine
    cdef readonly bint times

    def __cinit__(self, Engine engine not None, bint times=False):
        if times and bench_open(engine.e) < 0:
            raise ValueError("single layers are timed in an engine that has not run yet")
        self.engine, self.times = engine, times

    def time(self, int node, str what, long rounds=1):
        """Seconds per sample of one pass of one layer, the mean of `rounds` calls on the data of the last "gradients"
        phase: "forward", "weight_gradient" (backward without the gradient of the inputs), "backward" or "update". None
        where training does not run that pass."""
        cdef plan_node *n = self.engine.plan._node(node)
        cdef pass_t p
        cdef double seconds
        if what not in PASSES:
            raise ValueError(f"unknown pass {what!r}")
        p = <pass_t><int>PASSES.index(what)
        if not self.times:
            raise ValueError("nothing to time: say Bench(engine, times=True)")
        if n.kind == NULL or self.engine.e.worker[0] == NULL:
            raise ValueError(f"nothing to time: node {node} is an input, or no 'gradients' phase has been run before")
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {rounds}")
        if p != PASS_FORWARD and (n.skipped or not (n.needs_gradient and n.n_deltas)):
            return None
        if p in (PASS_WEIGHT_GRADIENT, PASS_UPDATE) and not (n.g.weight_size and plan_trains(self.engine.plan.p, node)):
            return None
        if not self.engine.lock.acquire(False):
            raise RuntimeError("this engine is running a phase")
        try:
            with nogil:
                seconds = bench_time(self.engine.e, node, p, rounds)
        finally:
            self.engine.lock.release()
        return seconds if seconds >= 0 else None

    def loop(self, int node, str what):
        """The loop that a pass (named as for `time`, "backward" meaning the data gradient) of a layer takes, in words;
        None if there is only one."""
        cdef const char *words
        if self.engine.plan._node(node).kind == NULL or what not in PASSES:
            raise ValueError(f"no pass {what!r} of node {node}")
        words = bench_loop(self.engine.e, node, <pass_t><int>PASSES.index(what))
        return None if words == NULL else words.decode()
