# The weights of a running engine, for who is not a worker; for chaos.cluster.

def add_rows(const float[:, :] rows not None, float[::1] out not None):
    """out = rows[0] + rows[1] + ..., in this order, with denormals flushed to zero, as the workers add. Rows may be parts of
    longer ones; `out` may be the first."""
    if not rows.shape[0] or rows.shape[1] != out.shape[0]:
        raise ValueError(f"rows of {rows.shape[1]} floats do not add up to {out.shape[0]}")
    if (rows.shape[1] > 1 and rows.strides[1] != 4) or rows.strides[0] < 0 or rows.strides[0] % 4:
        raise ValueError(f"the floats of a row must follow each other, not {rows.strides[1]} bytes apart, and the rows too, "
                         f"not {rows.strides[0]} bytes")
    if out.shape[0]:
        with nogil:
            exchange_add_rows(&rows[0, 0], <int>rows.shape[0], rows.strides[0] // 4, out.shape[0], &out[0])


def reached(const int32_t[::1] lanes not None):
    """The node from which on the gradients of all these lanes are complete; see `Exchange.lane_gradients`, to whose other
    thread this belongs. 0 for no lanes."""
    return exchange_reached(&lanes[0], <int>lanes.shape[0]) if lanes.shape[0] else 0


cdef class Exchange:
    """The weights of an engine for who is not one of its workers: other processes, and who forms gradients and updates by
    hand."""

    cdef readonly Engine engine

    def __cinit__(self, Engine engine not None):
        self.engine = engine

    cdef int _stripes(self, Py_ssize_t size, int first, last) except -1:
        """The end of a range of stripes, checked, as is the length of the vector that goes with it."""
        cdef int end = self.engine.e.shared.n_stripes if last is None else last
        if size != <Py_ssize_t>self.engine.plan.p.weight_size:
            raise ValueError(f"the vector has {size} floats, the weight vector {self.engine.plan.p.weight_size}")
        if not 0 <= first <= end <= self.engine.e.shared.n_stripes:
            raise ValueError(f"stripes {first}..{end} are not within the {self.engine.e.shared.n_stripes} there are")
        return end

    def read_weights(self, float[::1] out not None, int first=0, last=None):
        """Copies stripes [first, last) of the weights to their places in `out`, a vector as long as the weights. May be
        called while a phase runs: each stripe is then as it was at one moment, if the strategy locks stripes."""
        cdef int end = self._stripes(out.shape[0], first, last)
        if end > first:
            with nogil:
                exchange_read(self.engine.e, first, end, &out[0])

    def add_weights(self, const float[::1] delta not None, float scale=1.0, int first=0, last=None):
        """Adds scale * delta to stripes [first, last) of the weights, under their locks. May be called while a phase runs:
        no update of a worker is lost, if the strategy locks stripes."""
        cdef int end = self._stripes(delta.shape[0], first, last)
        cdef float[::1] own = None
        cdef float *room = NULL
        if CHAOS_CAREFUL:
            own = array("f", bytes(4 * delta.shape[0]))
            room = &own[0] if delta.shape[0] else NULL
        if end > first:
            with nogil:
                exchange_add(self.engine.e, first, end, &delta[0], scale, room)

    def share_states(self, uint8_t[::1] place not None):
        """Keeps the locks and versions of the stripes at `place`, zeroed memory of `state_bytes` that other processes use for
        theirs; a weight vector in shared memory needs them there. Between phases only, once."""
        if self.engine.own_states != NULL:
            raise ValueError("the stripe states have been moved already")
        if place.shape[0] < <Py_ssize_t>exchange_state_bytes(self.engine.e) or <uintptr_t>&place[0] % 128:
            raise ValueError(f"{exchange_state_bytes(self.engine.e)} bytes aligned to 128 are needed, not {place.shape[0]}")
        if not self.engine.lock.acquire(False):
            raise RuntimeError("this engine is running a phase")
        self.engine.states = place
        self.engine.own_states = exchange_move_states(self.engine.e, &place[0])
        self.engine.lock.release()

    @property
    def state_bytes(self):
        """Memory of the stripes' locks and versions in bytes."""
        return exchange_state_bytes(self.engine.e)

    def rewind(self):
        """Between phases: makes `position` 0 until the next one begins."""
        exchange_rewind(self.engine.e)

    def lane_gradients(self, int lanes, int first, float[:, ::1] out not None, inputs, labels=None,
                       const int64_t[::1] order=None, Py_ssize_t begin=0, end=None, int32_t[::1] reached=None,
                       const float[::1] weights=None, uint64_t key=0):
        """Forms some lanes of a synchronous step's gradient on all workers, without an update.

        The step is over images `order[begin:end]`, cut into `lanes` lanes: lane j has images begin + n * j // lanes up to
        begin + n * (j + 1) // lanes, n = end - begin, or groups of images (`Plan.group`) likewise. Row i of `out` (which holds zeros or what an earlier call left there)
        becomes the gradient of the sum of lane (first + i)'s losses / n, laid out as the weights: the rows of all lanes,
        added up one by one in their order, are the step's gradient. The same bits for any number of workers. Images as for
        `run`; returns the same dict, "images" being those of these lanes ("stopped": `out` is incomplete).

        `reached`, as long as `out`, tells another thread through the function `reached` what is there already: row i is
        final for nodes reached[i] and later. The caller fills it beforehand with the number of nodes.
        """
        cdef images_t data
        cdef int status
        cdef Py_ssize_t last = self.engine._take(&data, inputs, labels, order, begin, end, weights, key)
        if labels is None:
            raise ValueError("labels are needed")
        cdef int group = self.engine.plan.p.group
        if not 1 <= lanes <= (last - begin + group - 1) // group:
            raise ValueError(f"a step of {last - begin} images cannot be cut into {lanes} lanes")
        if out.shape[0] < 1 or not 0 <= first <= lanes - out.shape[0]:
            raise ValueError(f"lanes {first}..{first + out.shape[0] - 1} are not within the step's {lanes}")
        if out.shape[1] != self.engine.weights.shape[0] or (out.shape[1] and <uintptr_t>&out[0, 0] % 64):
            raise ValueError(f"out must be a 64-byte aligned ({out.shape[0]}, {self.engine.weights.shape[0]}) float32 array")
        if not self.engine.weights.shape[0]:
            raise ValueError("the network has no weights")
        if reached is not None and reached.shape[0] != out.shape[0]:
            raise ValueError(f"reached has {reached.shape[0]} numbers for {out.shape[0]} lanes")
        cdef int32_t *to = NULL if reached is None else &reached[0]
        if not self.engine.lock.acquire(False):
            raise RuntimeError("this engine is already running a phase")
        try:
            with nogil:
                status = engine_lanes(self.engine.e, &data, begin, last, lanes, first, <int>out.shape[0], &out[0, 0], to)
            self.engine.has_gradient = False
        finally:
            self.engine.lock.release()
        return self.engine._result(status)

    def apply(self, const float[::1] gradient not None, float lr):
        """Updates the weights, and the moments, by the engine's rule with a gradient laid out as the weights (0 in the
        padding), stripe by stripe on all workers; counts as one update of every stripe. Returns the same dict as `run`."""
        cdef int status
        if gradient.shape[0] != self.engine.weights.shape[0]:
            raise ValueError(f"the gradient has {gradient.shape[0]} floats, the weight vector {self.engine.weights.shape[0]}")
        if not self.engine.lock.acquire(False):
            raise RuntimeError("this engine is already running a phase")
        try:
            with nogil:
                status = engine_apply(self.engine.e, &gradient[0] if gradient.shape[0] else NULL, lr)
            self.engine.has_gradient = False
        finally:
            self.engine.lock.release()
        return self.engine._result(status)

    def hold(self, int k):
        """Takes the lock of a stripe, as a worker would: whether it was free. For tests: workers that need it wait until
        `release`."""
        if not 0 <= k < self.engine.e.shared.n_stripes:
            raise IndexError(k)
        return bool(stripe_try_lock(&self.engine.e.shared.state[k]))

    def release(self, int k):
        """Gives back what `hold` has taken."""
        if not 0 <= k < self.engine.e.shared.n_stripes:
            raise IndexError(k)
        stripe_unlock(&self.engine.e.shared.state[k])
