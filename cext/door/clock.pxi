# The clock of virtual workers.


class Count(enum.IntEnum):
    """Where the seconds of a stage are counted."""

    FORWARD = COUNT_FORWARD
    BACKWARD = COUNT_BACKWARD
    PUBLISHING = COUNT_PUBLISHING


def clock_orders():
    """Names of the strategies whose order of events the clock can invent."""
    names = []
    while orders_at(<int>len(names)) != NULL:
        names.append(orders_at(<int>len(names)).name.decode())
    return names


cdef const clock_order *_find_order(str name) except NULL:
    cdef int i = 0
    while orders_at(i) != NULL:
        if orders_at(i).name == name.encode():
            return orders_at(i)
        i += 1
    raise ValueError(f"strategy {name!r} cannot be simulated; these can: {', '.join(clock_orders())}")


cdef class Clock:
    """Invents the order in which virtual workers meet the weights; see cext/virtual/clock.h. For chaos.virtual, which checks
    what it gives.

    order: the strategy; options: its numbers for the core. layers: of each layer with weights, in the order of the pass,
    (node, first stripe, end of its stripes, whether it learns, seconds per image forward, backward). stripes: of each,
    (seconds of an update, cache lines). stages: of each stage of a step, (pieces, 0 for one per lane; seconds and lines of a
    piece; the same for every image of it; Count). topology: cores,
    domain, socket, near, across, far, or nothing. The others as in cext/virtual/parts.h.
    """

    cdef vclock *c

    def __cinit__(self, str order not None, options, layers, const double[:, ::1] stripes not None,
                  const double[::1] factor not None, *, double begin, double line, double jitter, uint64_t seed, int batch,
                  int chunk, int lanes=0, int group=1, bint publishes_later=False, stages=(), topology=()):
        cdef clock_parts parts
        cdef clock_layer *layer = NULL
        cdef clock_stripe *stripe = NULL
        cdef clock_stage *stage = NULL
        cdef int i, k, counted
        parts.order = _find_order(order)
        parts.n_workers, parts.n_stripes = <int>factor.shape[0], <int>stripes.shape[0]
        parts.n_layers, parts.n_stages = <int>len(layers), <int>len(stages)
        if not (1 <= parts.n_workers <= 4096 and parts.n_layers >= 1 and parts.n_stripes >= 1 and batch >= 1 and chunk >= 1
                and group >= 1):
            raise ValueError("a clock needs 1 to 4096 workers, a layer with weights, and batches of at least one image")
        if stripes.shape[1] != 2 or len(options) > MAX_STRATEGY_OPTIONS:
            raise ValueError(f"a clock needs 2 numbers per stripe and at most {MAX_STRATEGY_OPTIONS} options")
        if parts.order.cuts and lanes < 1:
            raise ValueError(f"{order} steps need lanes")
        for i in range(MAX_STRATEGY_OPTIONS):
            parts.option[i] = options[i] if i < len(options) else 0
        try:
            layer = <clock_layer *>PyMem_Malloc(parts.n_layers * sizeof(clock_layer))
            stripe = <clock_stripe *>PyMem_Malloc(parts.n_stripes * sizeof(clock_stripe))
            stage = <clock_stage *>PyMem_Malloc((parts.n_stages + 1) * sizeof(clock_stage))
            if layer == NULL or stripe == NULL or stage == NULL:
                raise MemoryError("out of memory for the clock")
            for i in range(parts.n_layers):
                (layer[i].node, layer[i].first, layer[i].end, layer[i].learns, layer[i].forward,
                 layer[i].backward) = layers[i]
                if not 0 <= layer[i].first <= layer[i].end <= parts.n_stripes:
                    raise ValueError(f"stripes {layer[i].first}..{layer[i].end} of layer {i} are not among the "
                                     f"{parts.n_stripes}")
            for i in range(parts.n_stripes):
                stripe[i].publish, stripe[i].lines, stripe[i].learns = stripes[i, 0], <int>stripes[i, 1], 0
            for i in range(parts.n_layers):
                for k in range(layer[i].first, layer[i].end):
                    stripe[k].learns = layer[i].learns
            for i in range(parts.n_stages):
                (stage[i].pieces, stage[i].seconds, stage[i].lines, stage[i].image_seconds, stage[i].image_lines,
                 counted) = stages[i]
                if not 0 <= counted < CLOCK_COUNTS:
                    raise ValueError(f"stage {i} is counted as {counted}")
                stage[i].counted = <clock_count>counted
            parts.layer, parts.stripe, parts.stage, parts.factor = layer, stripe, stage, &factor[0]
            parts.begin, parts.line, parts.jitter, parts.seed = begin, line, jitter, seed
            parts.cores = parts.domain = parts.socket = 0
            if topology:
                (parts.cores, parts.domain, parts.socket, parts.near, parts.across, parts.far) = topology
                if not 1 <= parts.domain <= parts.socket <= parts.cores:
                    raise ValueError(f"domains of {parts.domain} cores, sockets of {parts.socket}, {parts.cores} cores")
            parts.batch, parts.chunk, parts.lanes, parts.group = batch, chunk, lanes, group
            parts.publishes_later = publishes_later
            self.c = vclock_new(&parts)
        finally:
            PyMem_Free(layer)
            PyMem_Free(stripe)
            PyMem_Free(stage)
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
    def workers(self):
        """How many take part: one, where the order comes to one worker's."""
        return vclock_workers(self.c)

    @property
    def lanes(self):
        """Into how many lanes steps are cut, 0: their events are not those of lanes; for `Engine.run`."""
        return vclock_lanes(self.c)

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
