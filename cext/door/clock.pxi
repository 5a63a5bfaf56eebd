# The clock of virtual workers.

CLOCK_ORDERS = _names_by(clock_order_name)


cdef class Clock:
    """Invents the order in which virtual workers meet the weights; see cext/virtual/clock.h. For chaos.virtual, which checks
    what it gives."""

    cdef vclock *c

    def __cinit__(self, str order, const int32_t[::1] node not None, const int32_t[::1] first not None,
                  const int32_t[::1] to not None, const double[::1] forward not None, const double[::1] backward not None,
                  const uint8_t[::1] learns not None, const double[::1] publish not None, const int32_t[::1] lines not None,
                  const double[::1] factor not None, *, double begin, double line, double jitter, uint64_t seed, int batch,
                  int chunk, int lanes=0, int max_pending=0, bint late=False, int64_t period=0,
                  bint keeps=False, int group=1, bint mix=False, const int32_t[::1] pieces=None,
                  const double[:, ::1] costs=None, const uint8_t[::1] counted=None):
        cdef clock_parts parts
        cdef int l
        parts.order = <clock_order><int>CLOCK_ORDERS.index(order)
        parts.n_workers = <int>factor.shape[0]
        parts.n_layers = <int>node.shape[0]
        parts.n_stripes = <int>publish.shape[0]
        if not (1 <= parts.n_workers <= 4096 and parts.n_layers >= 1 and parts.n_stripes >= 1 and batch >= 1 and chunk >= 1):
            raise ValueError("a clock needs 1 to 4096 workers, a layer with weights, and batches of at least one image")
        if not (first.shape[0] == to.shape[0] == forward.shape[0] == backward.shape[0] == learns.shape[0] == node.shape[0]
                and lines.shape[0] == publish.shape[0]):
            raise ValueError("arrays of layers or stripes differ in length")
        for l in range(parts.n_layers):
            if not 0 <= first[l] <= to[l] <= parts.n_stripes:
                raise ValueError(f"stripes {first[l]}..{to[l]} of layer {l} are not among the {parts.n_stripes}")
        if order == "synchronous" and lanes < 1:
            raise ValueError("synchronous steps need lanes")
        parts.n_stages = 0
        parts.pieces = NULL
        parts.piece_seconds = parts.image_seconds = parts.piece_lines = parts.image_lines = NULL
        parts.counted = NULL
        if order == "stages":
            parts.n_stages = <int>pieces.shape[0]
            if not (parts.n_stages and lanes >= 1 and costs.shape[0] == 4 and costs.shape[1] == counted.shape[0] == parts.n_stages):
                raise ValueError("a clock of stages needs lanes and, for each of at least one stage, pieces and four costs")
            parts.pieces, parts.counted = &pieces[0], &counted[0]
            parts.piece_seconds, parts.image_seconds = &costs[0, 0], &costs[1, 0]
            parts.piece_lines, parts.image_lines = &costs[2, 0], &costs[3, 0]
        parts.node, parts.first, parts.to = &node[0], &first[0], &to[0]
        parts.forward, parts.backward, parts.learns = &forward[0], &backward[0], &learns[0]
        parts.publish, parts.lines, parts.factor = &publish[0], &lines[0], &factor[0]
        parts.begin, parts.line, parts.jitter, parts.seed = begin, line, jitter, seed
        parts.batch, parts.chunk, parts.lanes, parts.max_pending, parts.late = batch, chunk, lanes, max_pending, late
        parts.period, parts.keeps, parts.group, parts.mix = period, keeps, group, mix
        self.c = vclock_new(&parts)
        if self.c == NULL:
            raise MemoryError("out of memory for the clock")

    def __dealloc__(self):
        vclock_free(self.c)

    def begin(self, int64_t images):
        """A phase of that many images begins."""
        vclock_begin(self.c, images)

    def next(self, uint64_t[::1] out not None, double[::1] since=None, double[::1] when=None):
        """Writes the next events into `out` and, if given, when each began and took place in seconds; their number, 0 when
        the phase is over."""
        cdef int64_t n
        if out.shape[0] < vclock_room(self.c):
            raise ValueError(f"room for {out.shape[0]} events, at least {vclock_room(self.c)} are needed")
        if (since is not None and since.shape[0] < out.shape[0]) or (when is not None and when.shape[0] < out.shape[0]):
            raise ValueError("as many times as events are needed")
        with nogil:
            n = vclock_next(self.c, out.shape[0], &out[0], &since[0] if since is not None else NULL,
                            &when[0] if when is not None else NULL)
        return n

    @property
    def room(self):
        """The fewest events that `next` must have room for."""
        return vclock_room(self.c)

    @property
    def now(self):
        """Seconds since the first phase began."""
        return vclock_now(self.c)

    @property
    def counts(self):
        """Since the first phase began: worker seconds of forward and backward passes, publishing and waiting; stripes
        published; try-locks that found one busy."""
        cdef const clock_counts *n = vclock_counted(self.c)
        return {"forward": n.forward, "backward": n.backward, "publishing": n.publishing, "waiting": n.waiting,
                "published": n.published, "failures": n.failures}
