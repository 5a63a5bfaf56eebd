# Workers on one weight vector.

TOGETHER = MAX_CHUNK
PHASES = _names_by(phase_name)
OUTCOMES = _names_by(outcome_name)


cdef Py_ssize_t _feed(feed *to, array, Py_ssize_t size, str what) except -1:
    """Describes a flat array with `size` numbers per image; returns the number of images. The caller keeps the array."""
    cdef const uint8_t[::1] bytes_
    cdef const float[::1] floats
    cdef const int64_t[::1] numbers
    cdef Py_ssize_t total
    kind = memoryview(array).format
    to.bytes, to.floats, to.numbers, to.size = NULL, NULL, NULL, size
    if kind == "B":
        bytes_ = array
        total = bytes_.shape[0]
        to.bytes = &bytes_[0] if total else NULL
    elif kind == "f":
        floats = array
        total = floats.shape[0]
        to.floats = &floats[0] if total else NULL
    elif kind in ("l", "q"):
        numbers = array
        total = numbers.shape[0]
        to.numbers = &numbers[0] if total else NULL
    else:
        raise ValueError(f"{what} must be uint8, float32 or int64, not of format {kind!r}")
    if total % size:
        raise ValueError(f"{total} numbers are no whole number of {what} of {size}")
    return total // size


def augmentations():
    """Names of the kinds of augmentation of the core."""
    return _names(<const void *const *>supported_isa(0).augments)


cdef int _augment(augmentation *to, Plan plan, steps) except -1:
    """Describes [(kind, options, fill, mode), ...] to the core."""
    cdef const augment_kind *const *kind
    cdef int i, k, mixing = 0
    if len(steps) > MAX_AUGMENT:
        raise ValueError(f"{len(steps)} steps of augmentation, at most {MAX_AUGMENT} are possible")
    if steps and plan.p.n_inputs != 1:
        raise ValueError(f"augmentation is for networks of one input, not of {plan.p.n_inputs}")
    to.n = <int>len(steps)
    for i, (name, options, fill, mode) in enumerate(steps):
        kind = plan.p.isa.augments
        while kind[0] != NULL and kind[0].name != name.encode():
            kind += 1
        if kind[0] == NULL or len(options) > MAX_AUGMENT_OPTIONS or not 0 <= mode <= AUGMENT_REFLECT:
            raise ValueError(f"the core does not know the augmentation {name!r} with options {options!r}, mode {mode}")
        mixing += kind[0].mix != NULL
        to.step[i].kind = kind[0]
        to.step[i].fill = fill
        to.step[i].mode = <augment_mode><int>mode
        for k in range(MAX_AUGMENT_OPTIONS):
            to.step[i].option[k] = options[k] if k < len(options) else 0
    if mixing > 1:
        raise ValueError(f"{mixing} steps of augmentation mix images, at most one can")
    return 0


class Stage(enum.IntEnum):
    """What is done in a stage of a step; see stage_kind in cext/engine/strategy.h."""

    BEFORE = STAGE_BEFORE
    SLICE_FORWARD = STAGE_SLICE_FORWARD
    BETWEEN = STAGE_BETWEEN
    SLICE_BACKWARD = STAGE_SLICE_BACKWARD
    BACK_BETWEEN = STAGE_BACK_BETWEEN
    UPDATE = STAGE_UPDATE


def extremes(const float[::1] x not None):
    """(the least, the largest) of the numbers; None where one is not finite, or there is none."""
    cdef float least, most
    if x.shape[0] and feed_extremes(&x[0], x.shape[0], &least, &most):
        return least, most
    return None


def largest(const float[:, ::1] y not None, int64_t[::1] out not None):
    """Where the largest number of each row is, the first of several; a NaN counts as the largest. As y.argmax(1), which gives
    the interpreter's lock away and takes it back at once: threads that wait for it can wait for long then."""
    cdef Py_ssize_t i, j, best
    if not y.shape[1] or out.shape[0] != y.shape[0]:
        raise ValueError(f"{y.shape[0]} rows of {y.shape[1]} numbers, and {out.shape[0]} places for the largest of each")
    for i in range(y.shape[0]):
        best = 0
        for j in range(1, y.shape[1]):
            if y[i, best] != y[i, best]:
                break
            if y[i, j] > y[i, best] or y[i, j] != y[i, j]:
                best = j
        out[i] = best


cdef int _outputs(const plan_t *p):
    return <int>shape_size(p.node[p.output].g.out)


cdef list _take_terms(const plan_t *p, loss_term *to, terms):
    """Describes the terms of a loss to the core; what the result holds has to live as long as they are read."""
    cdef const loss_kind *const *l
    cdef double[::1] numbers
    cdef int first, k, pixels, i
    kept = []
    if not 1 <= len(terms) <= MAX_TERMS:
        raise ValueError(f"{len(terms)} terms of a loss, 1 to {MAX_TERMS} are possible")
    for n, (name, options, first, k, pixels, factor) in enumerate(terms):
        l = p.isa.losses
        while l[0] != NULL and l[0].name != name.encode():
            l += 1
        if l[0] == NULL:
            raise ValueError(f"the core does not know the loss {name!r}")
        if first < 0 or k < 1 or first > _outputs(p) - k or pixels < 1 or k % pixels:
            raise ValueError(f"{k} outputs from number {first} with {pixels} pixels are not among the network's "
                             f"{_outputs(p)}")
        if len(options) > MAX_LOSS_OPTIONS:
            raise ValueError(f"{len(options)} loss_options, at most {MAX_LOSS_OPTIONS} are possible")
        to[n].kind, to[n].first, to[n].k, to[n].pixels, to[n].factor = l[0], first, k, pixels, factor
        kept.append([array("d", options[i] if i < len(options) else ()) for i in range(MAX_LOSS_OPTIONS)])
        for i in range(MAX_LOSS_OPTIONS):
            numbers = kept[n][i]
            to[n].option[i].count = <int>numbers.shape[0]
            to[n].option[i].number = &numbers[0] if numbers.shape[0] else NULL
    return kept


cdef class Engine:
    """Workers on one weight vector. One phase runs at a time; `position`, `stop` and Exchange's `read_weights` and
    `add_weights` may be called meanwhile.

    loss: a name, of the whole output; or terms [(name, options, first, k, pixels, factor), ...] that are added: a loss of the
    outputs [first, first + k), channels * pixels numbers, times the factor. Errors are those of the first term that knows
    right and wrong.

    brief: `forward` and `step` of at most so many images, by one worker, keep the interpreter's lock (0: never)."""

    cdef engine_t *e
    cdef Plan plan
    cdef float[::1] weights
    cdef float[:, ::1] moments
    cdef readonly int workers
    cdef readonly int batch_size
    cdef public Py_ssize_t brief
    cdef readonly object cpus
    cdef object lock
    cdef bint has_gradient
    cdef void *own_states
    cdef object states

    def __cinit__(self, Plan plan not None, float[::1] weights not None, int workers=1, strategy="sequential",
                  loss="cross_entropy", update="sgd", int batch_size=1, Py_ssize_t stripe_bytes=16384, cpus=None,
                  strategy_options=(), update_options=(), float[:, ::1] moments=None, max_staleness=None, loss_options=(),
                  classes=(), const uint8_t[::1] class_of=None, augment=()):
        cdef engine_parts parts
        cdef augmentation how_augment
        cdef double how_option[MAX_STRATEGY_OPTIONS]
        cdef double rule_option[MAX_RULE_OPTIONS]
        cdef loss_term term[MAX_TERMS]
        cdef int[::1] cpu = None
        cdef const update_kind *const *u = plan.p.isa.updates
        cdef update_class kind[256]
        cdef int s = 0, i, j
        if not plan.finished:
            raise ValueError("the plan is not finished")
        if weights.shape[0] != <Py_ssize_t>plan.p.weight_size:
            raise ValueError(f"the weight vector has {weights.shape[0]} floats, the plan wants {plan.p.weight_size}")
        if weights.shape[0] and <uintptr_t>&weights[0] % 64:
            raise ValueError("the weight vector must be 64-byte aligned")
        if not 1 <= workers <= 4096:
            raise ValueError(f"workers must be in 1..4096, not {workers}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if stripe_bytes < 64:
            raise ValueError(f"stripe_bytes must be at least 64, not {stripe_bytes}")
        if workers > 1 and not has_openmp:
            raise RuntimeError(f"workers={workers}, but chaos was built without OpenMP, so only 1 worker can run; "
                               "install a compiler with OpenMP and build again")
        while strategy_at(s) != NULL and strategy_at(s).name != strategy.encode():
            s += 1
        while u[0] != NULL and u[0].name != update.encode():
            u += 1
        if strategy_at(s) == NULL or u[0] == NULL:
            raise ValueError(f"the core does not know one of {strategy!r}, {update!r}")
        if strategy_at(s).single and workers != 1:
            raise ValueError(f"strategy {strategy!r} runs with one worker, not {workers}")
        if cpus is not None:
            if not sys.platform.startswith("linux"):
                raise ValueError("threads cannot be pinned to CPUs on this system")
            if len(cpus) != workers:
                raise ValueError(f"{len(cpus)} CPUs for {workers} workers")
            from chaos.affinity import cpus as cpus_of_process
            allowed = cpus_of_process()
            if not allowed.issuperset(cpus):
                raise ValueError(f"cannot pin a worker to CPU {min(set(cpus) - allowed)}: it is not among the {len(allowed)} "
                                 "CPUs of this process's affinity mask")
            cpu = array("i", cpus)
            self.cpus = tuple(cpus)
        for name, given, most in (("strategy_options", strategy_options, MAX_STRATEGY_OPTIONS),
                                  ("update_options", update_options, MAX_RULE_OPTIONS)):
            if len(given) > most:
                raise ValueError(f"{len(given)} {name}, at most {most} are possible")
        for i in range(MAX_STRATEGY_OPTIONS):
            how_option[i] = strategy_options[i] if i < len(strategy_options) else 0
        for i in range(MAX_RULE_OPTIONS):
            rule_option[i] = update_options[i] if i < len(update_options) else 0
        kept = _take_terms(plan.p, term, loss if not isinstance(loss, str) else
                           [(loss, loss_options, 0, _outputs(plan.p), plan.p.pixels, 1)])
        if (0 if moments is None else moments.shape[0]) != u[0].n_moments:
            raise ValueError(f"update rule {update!r} needs {u[0].n_moments} moments")
        if moments is not None and moments.shape[0]:
            if moments.shape[1] != weights.shape[0]:
                raise ValueError(f"a moment has {moments.shape[1]} floats, the weight vector {weights.shape[0]}")
            # rows of a 64-byte aligned array stay aligned: the weight vector's length is a multiple of 16
            if moments.shape[1] and <uintptr_t>&moments[0, 0] % 64:
                raise ValueError("the moments must be 64-byte aligned")
        if max_staleness is not None and not 0 <= max_staleness <= 1 << 40:
            raise ValueError(f"max_staleness must be at least 0, not {max_staleness}")
        if len(classes) > 256 or (class_of is not None) != bool(classes):
            raise ValueError(f"{len(classes)} classes of weights, at most 256 are possible; class_of belongs to them")
        if classes and (class_of.shape[0] * 16 != weights.shape[0] or max(class_of, default=0) >= len(classes)):
            raise ValueError(f"class_of must have a number below {len(classes)} for each 16 of the {weights.shape[0]} weights")
        for i in range(<int>len(classes)):
            kind[i].lr_scale, kind[i].undecayed = classes[i]
        parts.n_classes = <int>len(classes)
        parts.cls = kind
        parts.class_of = &class_of[0] if classes and class_of.shape[0] else NULL
        _augment(&how_augment, plan, augment)
        for i in range(how_augment.n):
            for j in range(<int>len(kept)):
                if how_augment.step[i].kind.mix != NULL and not term[j].kind.targets & TARGET_VALUES:
                    raise ValueError(f"the loss {term[j].kind.name.decode()!r} takes no mixed targets")
        parts.augment = &how_augment
        self.plan = plan
        self.weights = weights
        self.moments = moments
        self.lock = threading.Lock()
        self.workers = workers
        self.batch_size = batch_size
        parts.p = plan.p
        parts.weights = &weights[0] if weights.shape[0] else NULL
        for i in range(MAX_MOMENTS):
            parts.moment[i] = &moments[i, 0] if i < u[0].n_moments and weights.shape[0] else NULL
        parts.n_workers = workers
        parts.cpus = &cpu[0] if cpu is not None else NULL
        parts.batch = batch_size
        parts.stripe_bytes = stripe_bytes
        parts.strategy = strategy_at(s)
        parts.strategy_options = how_option
        parts.rule = u[0]
        parts.rule_options = rule_option
        parts.bounded = max_staleness is not None
        parts.max_staleness = max_staleness or 0
        parts.n_terms = <int>len(kept)
        parts.term = term
        self.e = engine_new(&parts)
        if self.e == NULL:
            raise MemoryError("out of memory for the engine")

    def __dealloc__(self):
        if self.own_states != NULL:
            exchange_move_states(self.e, self.own_states)
        engine_free(self.e)

    def run(self, str what, inputs, labels=None, const int64_t[::1] order=None, Py_ssize_t begin=0, end=None,
            float lr=0.0, float[:, ::1] out=None, const float[::1] step_scale=None, events=None, int lanes=0, int jobs=1,
            const float[::1] weights=None, uint64_t key=0, augmented=None):
        """Runs one phase over images `order[begin:end]` and returns its counts as a dict: whole ones, except
        layers {node: {..., pending_seconds}} and time, in seconds summed over workers (its parts are 0 outside training).

        what: "train", "test" (outputs to `out`, if it is given), "forward" (outputs to `out`) or "gradients" (mean gradient of all images, see
        `gradient`). inputs: for each input of the plan a flat array of uint8, float32 or int64, image by image in PyTorch's
        order. labels: int64, a class per image or flat maps of them (-1: ignored, where the loss knows that), or float32, flat, as many as outputs, whatever the loss
        takes; of several terms a list with such an array for each; weights: of each image's loss; key: where random numbers begin
        (chaos.layers.random). augmented: whether images are taken through the engine's augmentation; by default where gradients
        are formed. step_scale: 512 factors of the learning rate, by the staleness of an update.

        events: for "train", an iterable of uint64 arrays: the phase runs in this order (see cext/replay/replay.h and
        `event`), in `jobs` threads, which changes no bit; `lanes` is how many lanes its steps have, 0 for none.
        """
        cdef images_t data
        cdef phase ph
        cdef float *to = NULL
        cdef int status, classes = _outputs(self.plan.p)
        cdef Py_ssize_t last
        if what not in PHASES[:GRADIENTS + 1]:
            raise ValueError(f"unknown phase {what!r}")
        ph = <phase><int>PHASES.index(what)
        last = self._take(&data, inputs, labels, order, begin, end, weights, key)
        if labels is None and ph != FORWARD:
            raise ValueError("labels are needed")
        data.augmented = data.augmented and (ph == TRAIN or ph == GRADIENTS if augmented is None else bool(augmented))
        if ph == FORWARD or (ph == TEST and out is not None):
            if out is None or out.shape[0] < last or out.shape[1] != classes:
                raise ValueError(f"out must be a ({last}, {classes}) float32 array")
            to = &out[0, 0] if last else NULL
        if step_scale is not None and step_scale.shape[0] != STALENESS_BINS:
            raise ValueError(f"step_scale must have {STALENESS_BINS} factors, not {step_scale.shape[0]}")
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is already running a phase")
        try:
            self.e.step_scale = &step_scale[0] if step_scale is not None else NULL
            if events is not None and ph == TRAIN:
                status = run_events(self, &data, begin, last, lr, events, lanes, jobs)
            else:
                with nogil:
                    status = engine_run(self.e, ph, &data, begin, last, lr, to)
            self.has_gradient = ph == GRADIENTS and status == DONE
        finally:
            self.e.step_scale = NULL
            self.lock.release()
        return self._result(status)

    cdef Py_ssize_t _take(self, images_t *data, inputs, labels, const int64_t[::1] order, Py_ssize_t begin, end,
                          const float[::1] weights, uint64_t key) except -1:
        """Checks what a phase is given and describes it to the core; returns the end of the range."""
        cdef Py_ssize_t count = -1, last, i, n
        cdef shape s
        if len(inputs) != self.plan.p.n_inputs:
            raise ValueError(f"{len(inputs)} arrays for {self.plan.p.n_inputs} inputs")
        for i in range(self.plan.p.n_inputs):
            s = self.plan.p.node[i].g.out
            n = _feed(&data.input[i], inputs[i], <Py_ssize_t>s.c * s.h * s.w, "images")
            if count >= 0 and n != count:
                raise ValueError(f"{n} images in one input, {count} in another")
            count = n
        last = order.shape[0] if order is not None else count
        last = last if end is None else end
        if not 0 <= begin <= last <= (order.shape[0] if order is not None else count):
            raise ValueError(f"images {begin}..{last} are not within the {count} given")
        if isinstance(labels, list) and len(labels) != self.e.n_terms:
            raise ValueError(f"labels for {len(labels)} terms, the loss has {self.e.n_terms}")
        for i in range(self.e.n_terms):
            self._take_target(<int>i, &data.target[i], labels[i] if isinstance(labels, list) else labels, count)
        data.order = NULL
        data.weight = NULL
        data.key = key
        data.augmented, data.count = self.e.augment.n > 0, count
        if self.e.augment.n and data.input[0].numbers != NULL:
            raise ValueError("images that are augmented must be uint8 or float32")
        if weights is not None:
            if weights.shape[0] != count:
                raise ValueError(f"{weights.shape[0]} weights for {count} images")
            data.weight = &weights[0] if count else NULL
        if order is not None and order.shape[0]:
            for i in range(order.shape[0]):
                if not 0 <= order[i] < count:
                    raise ValueError(f"order[{i}] = {order[i]} is not one of the {count} images")
            data.order = &order[0]
        return last

    cdef int _take_target(self, int term, target_feed *to, labels, Py_ssize_t count) except -1:
        cdef const int64_t[::1] numbers
        cdef const loss_term *t = &self.e.term[term]
        cdef Py_ssize_t i, n, classes = t.k, pixels = 1
        to.numbers.size, to.numbers.bytes, to.numbers.floats, to.numbers.numbers = 0, NULL, NULL, NULL
        to.form = <target>TARGET_CLASS
        if labels is None:
            return 0
        if memoryview(labels).format == "f":
            to.form = <target>TARGET_VALUES
            n = _feed(&to.numbers, labels, classes, "targets")
        else:
            numbers = labels
            if t.kind.targets & TARGET_MAP and t.pixels > 1 and numbers.shape[0] == count * t.pixels:
                to.form = <target>TARGET_MAP
                pixels = t.pixels
                classes //= pixels
            n = _feed(&to.numbers, labels, pixels, "labels")
            for i in range(numbers.shape[0]):
                if not (0 <= numbers[i] < classes or (numbers[i] == IGNORED and t.kind.ignores)):
                    raise ValueError(f"label {numbers[i]} of image {i // pixels} is not in 0..{classes - 1}, the network's "
                                     "outputs")
        if n != count:
            raise ValueError(f"{n} labels for {count} images")
        if not to.form & t.kind.targets:
            raise ValueError(f"the loss {t.kind.name.decode()!r} does not take such targets")
        if not feed_loss_fits(self.e, term, to.form):
            raise ValueError(f"an option of the loss {t.kind.name.decode()!r} has another length than the outputs want")
        return 0

    cdef _result(self, int status):
        """The counts of the phase that has ended; the exception where the core says so."""
        if status == NO_MEMORY:
            raise MemoryError(f"out of memory for {self.workers} workers of {self.worker_bytes} bytes each")
        if status == NO_TEAM:
            raise RuntimeError(f"the OpenMP runtime did not start {self.workers} threads; OMP_THREAD_LIMIT, OMP_STACKSIZE, "
                               "or a limit on processes or memory may be the reason; fewer workers need fewer")
        if status == NOT_PINNED:
            raise RuntimeError(f"the system refused to pin worker {self.e.failed_at} to CPU {self.cpus[self.e.failed_at]}, "
                               "although it was in the affinity mask when the engine was made")
        cdef tally *t = &self.e.total
        layers = self._layers()
        return {
            "status": OUTCOMES[status],
            "failed_at": self.e.failed_at if status == DIVERGED else None,
            "position": engine_position(self.e),
            "images": t.images, "errors": t.errors, "loss": t.loss,
            "updates": t.updates, "lock_failures": t.lock_failures, "give_ways": t.give_ways,
            "dropped": t.dropped,
            "staleness_sum": t.staleness_sum, "staleness_max": t.staleness_max,
            "staleness": [sum(same) for same in zip_longest(*(l["staleness"] for l in layers.values()), fillvalue=0)],
            "layers": layers,
            "worker_images": [self.e.worker[i].count.images for i in range(self.workers) if self.e.worker[i] != NULL],
            "time": {"total": self.e.time.total, "forward": self.e.time.forward, "backward": self.e.time.backward,
                     "publish": self.e.time.publish, "wait": self.e.time.wait},
        }

    def trace(self):
        """From now on training phases are recorded, see `events`. For strategies that update a stripe only while they hold
        it, and set what workers read, if at all, to copies that are read stripe by stripe, each while it is held."""
        if trace_start(self.e):
            raise MemoryError(f"out of memory for the trace of {self.workers} workers")

    def traced(self):
        """How many events have been recorded since the last `events`."""
        return trace_count(self.e)

    def events(self, uint64_t[::1] out not None):
        """Moves what has been recorded into `out`, in the order in which it happened, and forgets it."""
        if out.shape[0] != trace_count(self.e):
            raise ValueError(f"{out.shape[0]} places for {trace_count(self.e)} events")
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is running a phase")
        try:
            if out.shape[0]:
                trace_take(self.e, &out[0])
        finally:
            self.lock.release()

    cdef _layers(self):
        """What the last phase counted about every layer with weights: {node: dict}."""
        cdef layer_tally *t
        cdef int k, i
        found = {}
        for k in range(self.e.shared.n_stripes):
            t = &self.e.layer[self.e.shared.stripe[k].layer]
            if plan_trained_block(self.plan.p, self.e.shared.stripe[k].node) == NULL:
                continue
            if self.e.shared.stripe[k].node not in found:
                found[self.e.shared.stripe[k].node] = {
                    "updates": t.updates, "lock_failures": t.lock_failures, "overlaps": t.overlaps,
                    "pending_seconds": t.pending * self.e.tick,
                    "staleness_sum": t.staleness_sum, "staleness_max": t.staleness_max,
                    "staleness": [t.staleness[i] for i in range(min(t.staleness_max + 1, STALENESS_BINS))]}
        return found

    def gradient(self, float[::1] out not None):
        """Copies the gradient of the last "gradients" phase, laid out as the weight vector."""
        cdef Py_ssize_t i
        if out.shape[0] != <Py_ssize_t>self.plan.p.weight_size or not self.has_gradient:
            raise ValueError("the last phase was not 'gradients', or the gradient has another size")
        for i in range(out.shape[0]):
            out[i] = self.e.worker[0].dw[i]

    def step(self, inputs, labels, float lr, const float[::1] weights=None, uint64_t key=0):
        """A training phase over all images that are given, as `run`, without its counts: (outcome, sum of the losses). For
        single samples, for which the counts would cost more than the step."""
        cdef images_t data
        cdef int status
        cdef Py_ssize_t last = self._take(&data, inputs, labels, None, 0, None, weights, key)
        if labels is None:
            raise ValueError("labels are needed")
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is already running a phase")
        try:
            if last <= self.brief:
                status = engine_run(self.e, TRAIN, &data, 0, last, lr, NULL)
            else:
                with nogil:
                    status = engine_run(self.e, TRAIN, &data, 0, last, lr, NULL)
            self.has_gradient = False
        finally:
            self.lock.release()
        if status > DIVERGED:
            self._result(status)
        return OUTCOMES[status], self.e.total.loss

    def forward(self, inputs, float[:, ::1] out not None):
        """A phase "forward" over all images that are given, as `run`, without its counts."""
        cdef images_t data
        cdef int status
        cdef Py_ssize_t last = self._take(&data, inputs, None, None, 0, None, None, 0)
        data.augmented = 0
        if out.shape[0] != last or out.shape[1] != _outputs(self.plan.p):
            raise ValueError(f"out must be a ({last}, {_outputs(self.plan.p)}) float32 array")
        if not last:
            return
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is already running a phase")
        try:
            if last <= self.brief:
                status = engine_run(self.e, FORWARD, &data, 0, last, 0, &out[0, 0])
            else:
                with nogil:
                    status = engine_run(self.e, FORWARD, &data, 0, last, 0, &out[0, 0])
            self.has_gradient = False
        finally:
            self.lock.release()
        if status > DIVERGED:
            self._result(status)

    def stop(self):
        """Asks the running phase, or the next one, to end after the images under way; until `clear`."""
        engine_stop(self.e)

    def clear(self):
        engine_clear(self.e)

    @property
    def position(self):
        """How far the running phase has picked."""
        return engine_position(self.e)

    @property
    def stripes(self):
        return self.e.shared.n_stripes

    def stripe(self, int k):
        """Where stripe k is in the weight vector: (first, size) in floats."""
        if not 0 <= k < self.e.shared.n_stripes:
            raise IndexError(k)
        return self.e.shared.stripe[k].at, self.e.shared.stripe[k].size

    def versions(self, uint32_t[::1] new=None):
        """How often each stripe has been updated, as a list, for update rules that count; `new` replaces it. Not while a
        phase runs."""
        cdef int k
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is running a phase")
        try:
            if new is not None:
                if new.shape[0] != self.e.shared.n_stripes:
                    raise ValueError(f"{new.shape[0]} versions for {self.e.shared.n_stripes} stripes")
                for k in range(self.e.shared.n_stripes):
                    self.e.shared.state[k].version = new[k]
            return [self.e.shared.state[k].version for k in range(self.e.shared.n_stripes)]
        finally:
            self.lock.release()

    @property
    def worker_bytes(self):
        """Memory of one worker in bytes."""
        return worker_bytes(self.e)

    @property
    def chunk(self):
        """Images that pass through the layers together."""
        return self.e.chunk

    def lanes(self, int wanted=0):
        """Into how many lanes a synchronous step is cut, 0: the usual number; a strategy with stages knows it itself."""
        if self.e.strategy.stages != NULL:
            return self.e.strategy.stages.lanes(self.e)
        return lanes_of(self.batch_size, wanted, self.plan.p.group)

    def stages(self, int64_t images):
        """The stages of a step of so many images, [(Stage, node, pieces), ...]; empty if its strategy, or the network, has
        none."""
        cdef stage_kind kind = STAGE_BEFORE
        cdef int node = 0, n, i
        cdef const stage_hooks *h = self.e.strategy.stages
        found = []
        if h != NULL:
            for i in range(h.count(self.e)):
                n = h.pieces(self.e, i, images, &kind, &node)
                found.append((Stage(<int>kind), node, n))
        return found

    @property
    def publishes_later(self):
        """Whether the strategy publishes after its layer's hook has returned."""
        return bool(self.e.strategy.publishes_later)

    @property
    def stripe_table(self):
        """[(node, floats), ...] of the stripes."""
        return [(self.e.shared.stripe[k].node, self.e.shared.stripe[k].size) for k in range(self.e.shared.n_stripes)]

    def learns(self, int node):
        """Whether back-propagation passes the node."""
        self.plan._node(node)
        return bool(plan_learns(self.plan.p, node))

    def trains(self, int node):
        """Whether training changes weights or state of the node."""
        self.plan._node(node)
        return bool(plan_trains(self.plan.p, node))

    def frozen(self, int k):
        """Whether stripe k is left as it is."""
        if not 0 <= k < self.e.shared.n_stripes:
            raise IndexError(k)
        return bool(self.e.shared.stripe[k].frozen)
