"""The door between Python and C: checks, releases the GIL, turns outcomes into results. No arithmetic happens here.

For chaos.network and the engine-facing helpers beside it; users go through `chaos`.
"""
import os
import sys
import threading
from array import array
from itertools import zip_longest

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

cdef extern from "registry.h" nogil:
    enum: MAX_CHUNK
    enum: MAX_INPUTS
    enum: MAX_WHOLE
    enum: MAX_REAL
    enum: MAX_LOSS_OPTIONS
    enum: WHOLE_BATCH
    enum: TARGET_CLASS
    enum: TARGET_MAP
    enum: TARGET_VALUES
    enum: MAX_MOMENTS
    enum: MAX_RULE_OPTIONS
    enum: MAX_STRATEGY_OPTIONS
    enum: STALENESS_BINS
    ctypedef struct shape:
        int c, h, w
    ctypedef struct geometry:
        shape out
        size_t weight_size, state_size
        unsigned properties
    enum pass_t "pass":
        PASS_FORWARD, PASS_WEIGHT_GRADIENT, PASS_BACKWARD, PASS_UPDATE
    ctypedef struct part:
        const char *name
        int state
    ctypedef struct layer_kind:
        const char *name
        int n_parts
        const part *parts
        const char *(*loop_at)(pass_t p, int i) noexcept nogil
        ptrdiff_t (*locate)(const geometry *g, int k, ptrdiff_t i) noexcept nogil
    ctypedef struct loss_kind:
        const char *name
        unsigned targets
    ctypedef struct update_kind:
        const char *name
        int n_moments
    ctypedef struct instruction_set:
        const char *name
        int lanes
        const layer_kind *const *layers
        const loss_kind *const *losses
        const update_kind *const *updates
        double (*fma_seconds)(long rounds) noexcept nogil
        long fma_flops
    ctypedef struct engine_t "engine"
    ctypedef struct stage_hooks:
        int (*count)(const engine_t *e) noexcept nogil
        int (*lanes)(const engine_t *e) noexcept nogil
        int (*pieces)(const engine_t *e, int stage, int64_t n, const char **name, int *node) noexcept nogil
    ctypedef struct strategy:
        const char *name
        int single, publishes_later
        const stage_hooks *stages
    ctypedef struct plan_node:
        const layer_kind *kind
        int needs_gradient, n_deltas, skipped, layer
        geometry g
        size_t weight_at
    ctypedef struct plan_t "plan":
        const instruction_set *isa
        int direct_only, n_nodes, output, n_inputs
        const char *loops
        unsigned properties
        plan_node *node
        size_t weight_size
    ctypedef struct layer_tally:
        int64_t updates, staleness_sum, staleness_max, lock_failures, overlaps, pending
        int64_t *staleness
    ctypedef struct tally:
        int64_t images, errors
        double loss
        int64_t staleness_sum, staleness_max, updates, lock_failures, give_ways, dropped
    ctypedef struct time_split:
        double total, forward, backward, publish, wait
    ctypedef struct feed:
        const uint8_t *bytes
        const float *floats
        const int64_t *numbers
        size_t size
    enum target:
        pass
    ctypedef struct images_t "images":
        feed *input
        target form
        feed target
        const float *weight
        const int64_t *order
        uint64_t key
    ctypedef struct plan_layer:
        const char *kind
        int n_inputs
        const int *input
        int channels, n_whole
        const int *whole
        int n_real
        const float *real
        int shares
    ctypedef struct worker_t "worker":
        float *dw
        tally count
    ctypedef struct stripe_state:
        uint32_t version
    ctypedef struct stripe_t "stripe":
        size_t at, size
        int node, layer
    ctypedef struct shared_weights:
        int n_stripes
        stripe_state *state
        const stripe_t *stripe
    ctypedef struct engine_parts:
        const plan_t *p
        float *weights
        float **moment
        int n_workers
        const int *cpus
        int batch
        size_t stripe_bytes
        const strategy *strategy
        const double *strategy_options
        const update_kind *rule
        const double *rule_options
        int bounded
        int64_t max_staleness
        const loss_kind *loss
        const double *loss_options
    ctypedef struct engine_t "engine":
        shared_weights shared
        const strategy *strategy
        const loss_kind *loss
        worker_t **worker
        int chunk
        const float *step_scale
        int64_t failed_at
        tally total
        layer_tally *layer
        time_split time
        double tick
    enum outcome:
        DONE, STOPPED, DIVERGED, NO_MEMORY, NO_TEAM, NOT_PINNED
    enum phase:
        TRAIN, TEST, FORWARD, GRADIENTS
    const instruction_set *supported_isa(int i)
    const strategy *strategy_at(int i)
    bint stripe_try_lock(stripe_state *t)
    void stripe_unlock(stripe_state *t)
    plan_t *plan_new(const instruction_set *isa, int direct_only, const char *loops)
    void plan_free(plan_t *p)
    int plan_add_input(plan_t *p, shape s, const char **reason)
    int plan_add(plan_t *p, const plan_layer *layer, const char **reason)
    int plan_finish(plan_t *p, int output)
    engine_t *engine_new(const engine_parts *parts)
    void engine_free(engine_t *e)
    int engine_run(engine_t *e, phase ph, const images_t *data, int64_t begin, int64_t end, float lr, float *out)
    int engine_lanes(engine_t *e, const images_t *data, int64_t begin, int64_t end, int lanes, int first, int n, float *out,
                     int32_t *reached)
    int engine_apply(engine_t *e, const float *gradient, float lr)
    int lanes_of(int64_t batch, int wanted)
    void engine_stop(engine_t *e)
    void engine_clear(engine_t *e)
    int64_t engine_position(const engine_t *e)
    double bench_time(engine_t *e, int node, pass_t p, long rounds)
    const char *bench_loop(const engine_t *e, int node, pass_t p)
    size_t worker_bytes(const engine_t *e)
    enum: EVENT_KINDS
    ctypedef struct replay_t "replay":
        pass
    replay_t *replay_new(engine_t *e, int lanes, int threads)
    void replay_free(replay_t *r)
    int replay_begin(replay_t *r, const images_t *data, int64_t begin, int64_t end, float lr)
    int replay_run(replay_t *r, const uint64_t *events, int64_t n, int64_t *at, const char **reason)
    const char *replay_end(replay_t *r)
    int trace_start(engine_t *e)
    int64_t trace_count(const engine_t *e)
    void trace_take(engine_t *e, uint64_t *out)
    enum clock_order:
        pass
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

cdef extern from "engine/exchange.h" nogil:
    enum: CHAOS_CAREFUL
    void exchange_read(engine_t *e, int first, int last, float *out)
    void exchange_add(engine_t *e, int first, int last, const float *delta, float scale, float *own)
    void *exchange_move_states(engine_t *e, void *place)
    size_t exchange_state_bytes(const engine_t *e)
    void exchange_rewind(engine_t *e)
    void exchange_add_rows(const float *row, int n_rows, size_t stride, size_t n, float *out)
    int exchange_reached(const int32_t *reached, int n)

cdef extern from "engine/distance.h" nogil:
    int distance_measure(int32_t *room, int n, int side, int turns, double seconds, float *ns, int most)

cdef extern from *:
    """
    #ifndef CHAOS_BUILD_INFO
    #define CHAOS_BUILD_INFO "unknown"
    #endif
    static const int has_openmp = CHAOS_OPENMP;
    """
    const char *CHAOS_BUILD_INFO
    const int has_openmp

OPENMP = bool(has_openmp)
TOGETHER = MAX_CHUNK
BUILD_INFO = CHAOS_BUILD_INFO.decode()


# ---- names ----

def instruction_sets():
    """Names of the instruction sets that this machine and its operating system support, slowest first."""
    names = []
    while supported_isa(<int>len(names)) != NULL:
        names.append(supported_isa(<int>len(names)).name.decode())
    return names


_isa = None


def get_isa():
    """Name of the instruction set that new plans are made for: the best one here, lowered by CHAOS_ISA when the process
    first asks. ValueError if CHAOS_ISA names none."""
    global _isa
    if _isa is None:
        known, here = ["generic", "avx2", "avx512"], instruction_sets()
        cap = os.environ.get("CHAOS_ISA", "").strip().lower() or known[-1]
        if cap not in known:
            raise ValueError(f"CHAOS_ISA={cap!r} is not an instruction set; known: {', '.join(known)}")
        _isa = [name for name in here if known.index(name) <= known.index(cap)][-1]
    return _isa


def set_isa(name):
    """Makes new plans use the named instruction set; ValueError if the machine does not support it."""
    global _isa
    if name not in instruction_sets():
        raise ValueError(f"instruction set {name!r} is not supported here; supported: {', '.join(instruction_sets())}")
    _isa = name


_winograd = None


def get_winograd():
    """Whether new plans may use Winograd's algorithm for convolutions: yes, unless CHAOS_WINOGRAD is 0 when the process first
    asks. ValueError if it is neither 0 nor 1."""
    global _winograd
    if _winograd is None:
        value = os.environ.get("CHAOS_WINOGRAD", "").strip() or "1"
        if value not in ("0", "1"):
            raise ValueError(f"CHAOS_WINOGRAD={value!r} is neither 0 nor 1")
        _winograd = value == "1"
    return _winograd


def set_winograd(bint allowed):
    """Whether new plans may use Winograd's algorithm."""
    global _winograd
    _winograd = allowed


_loops = None


def get_loops():
    """The loops that new plans are to use wherever they give the right result, unless CHAOS_LOOP is empty when the process
    first asks: "kind.pass=beginning of a loop's name;...", with the passes forward, weight_gradient and data_gradient. For
    tests and benchmarks. ValueError where it names no loop."""
    if _loops is None:
        set_loops(os.environ.get("CHAOS_LOOP", "").strip())
    return _loops


def set_loops(text):
    """The loops that new plans are to use; "": those that are fastest."""
    global _loops
    for wanted in filter(None, text.split(";")):
        where, _, name = wanted.partition("=")
        kind, _, pass_name = where.partition(".")
        known = {f"{k}.{p}": names for k, passes in loops().items() for p, names in passes.items()}
        if where not in known or not any(known_name.startswith(name) for known_name in known[where]):
            raise ValueError(f"CHAOS_LOOP: no loop {wanted!r}; known: "
                             + "; ".join(f"{place}={'|'.join(names)}" for place, names in known.items()))
    _loops = text


def get_choice():
    """(instruction set, Winograd's algorithm allowed, loops) that new plans are made for."""
    return get_isa(), get_winograd(), get_loops()


def loops():
    """{kind: {pass: [names of its loops]}} of the kinds that have several."""
    cdef const layer_kind *const *k = supported_isa(0).layers
    cdef int i
    found = {}
    while k[0] != NULL:
        if k[0].loop_at != NULL:
            passes = {}
            for name, p in (("forward", PASS_FORWARD), ("weight_gradient", PASS_WEIGHT_GRADIENT),
                            ("data_gradient", PASS_BACKWARD)):
                passes[name] = []
                i = 0
                while k[0].loop_at(p, i) != NULL:
                    passes[name].append(k[0].loop_at(p, i).decode())
                    i += 1
            found[k[0].name.decode()] = passes
        k += 1
    return found


cdef const instruction_set *_find_isa(name) except NULL:
    cdef int i = 0
    while supported_isa(i) != NULL:
        if supported_isa(i).name == name.encode():
            return supported_isa(i)
        i += 1
    raise ValueError(f"instruction set {name!r} is not supported here; supported: {', '.join(instruction_sets())}")


def strategies():
    """Names of the strategies of the core."""
    names = []
    while strategy_at(<int>len(names)) != NULL:
        names.append(strategy_at(<int>len(names)).name.decode())
    return names


cdef _names(const void *const *table):
    """The names in a table of kinds, which ends with NULL; `name` is the first member of every kind."""
    names = []
    while table[0] != NULL:
        names.append((<const char *const *>table[0])[0].decode())
        table += 1
    return names


def layer_kinds():
    """Names of the layer kinds of the core, each with its parts: {name: whether it is state}."""
    cdef const layer_kind *const *k = supported_isa(0).layers
    cdef int j
    found = {}
    while k[0] != NULL:
        parts = {}
        for j in range(k[0].n_parts):
            parts[k[0].parts[j].name.decode()] = bool(k[0].parts[j].state)
        found[k[0].name.decode()] = parts
        k += 1
    return found


def losses():
    """Names of the losses of the core, each with the forms of targets that it takes."""
    cdef const loss_kind *const *l = supported_isa(0).losses
    return {name: [form for form, bit in _FORMS.items() if l[i].targets & bit]
            for i, name in enumerate(_names(<const void *const *>l))}


_FORMS = {"class": TARGET_CLASS, "map": TARGET_MAP, "values": TARGET_VALUES}


def updates():
    """Names of the update rules of the core, each with its number of moments (state vectors as long as the weights)."""
    cdef const update_kind *const *u = supported_isa(0).updates
    return {name: u[i].n_moments for i, name in enumerate(_names(<const void *const *>u))}


def fma_gflops(isa=None, double seconds=0.05):
    """Fused (generic: separate) multiply-add rate of this core in GFLOP/s, measured for about `seconds`."""
    cdef const instruction_set *s = _find_isa(isa or get_isa())
    cdef long rounds = 100_000
    cdef double t
    with nogil:
        t = s.fma_seconds(rounds)
        while t < seconds:
            rounds *= 2
            t = s.fma_seconds(rounds)
    return rounds * <double>s.fma_flops / t * 1e-9


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


def add_rows(const float[:, :] rows not None, float[::1] out not None):
    """out = rows[0] + rows[1] + ..., in this order, with denormals flushed to zero, as the workers add. Rows may be parts of
    longer ones."""
    if not rows.shape[0] or rows.shape[1] != out.shape[0]:
        raise ValueError(f"rows of {rows.shape[1]} floats do not add up to {out.shape[0]}")
    if (rows.shape[1] > 1 and rows.strides[1] != 4) or rows.strides[0] < 0 or rows.strides[0] % 4:
        raise ValueError(f"the floats of a row must follow each other, not {rows.strides[1]} bytes apart, and the rows too, "
                         f"not {rows.strides[0]} bytes")
    if out.shape[0]:
        with nogil:
            exchange_add_rows(&rows[0, 0], <int>rows.shape[0], rows.strides[0] // 4, out.shape[0], &out[0])


def reached(const int32_t[::1] lanes not None):
    """The node from which on the gradients of all these lanes are complete; see `Engine.lane_gradients`, to whose other
    thread this belongs. 0 for no lanes."""
    return exchange_reached(&lanes[0], <int>lanes.shape[0]) if lanes.shape[0] else 0


# ---- plan ----

cdef class Plan:
    """The geometry of a network, for the instruction set and the loops in force. Nodes are added in topological order, the inputs
    first."""

    cdef plan_t *p
    cdef bint finished
    cdef readonly object choice

    def __cinit__(self):
        self.choice = get_choice()
        isa, winograd, wanted = self.choice
        cdef bytes text = wanted.encode()
        cdef const char *loops = NULL
        if wanted:
            loops = text
        self.p = plan_new(_find_isa(isa), not winograd, loops)
        if self.p == NULL:
            raise MemoryError("out of memory for the plan")

    def __dealloc__(self):
        plan_free(self.p)

    def add_input(self, int c, int h, int w):
        """Adds an input of the network; returns its node number."""
        cdef const char *reason = NULL
        cdef shape s
        cdef int node
        if min(c, h, w) < 1:
            raise ValueError(f"input shape must be positive, not {(c, h, w)}")
        if self.finished or self.p.n_nodes > self.p.n_inputs:
            raise ValueError("inputs come before all layers")
        s.c, s.h, s.w = c, h, w
        node = plan_add_input(self.p, s, &reason)
        if node < 0:
            raise ValueError(reason.decode())
        return node

    def add(self, kind, inputs, int channels=0, whole=(), real=(), int shares=-1):
        """Adds a layer; returns its node number. `shares`: a node whose weights it uses, instead of weights of its own.
        ValueError with the core's reason where the geometry is impossible."""
        cdef int input[MAX_INPUTS]
        cdef int whole_option[MAX_WHOLE]
        cdef float real_option[MAX_REAL]
        cdef const char *reason = NULL
        cdef plan_layer layer
        cdef int i, node
        cdef bytes name = kind.encode()
        if self.finished:
            raise ValueError("the plan is finished")
        if not 1 <= len(inputs) <= MAX_INPUTS:
            raise ValueError(f"a layer takes 1 to {MAX_INPUTS} inputs, not {len(inputs)}")
        if len(whole) > MAX_WHOLE or len(real) > MAX_REAL:
            raise ValueError(f"a layer takes at most {MAX_WHOLE} whole and {MAX_REAL} real options")
        for i in range(<int>len(inputs)):
            input[i] = inputs[i]
        for i in range(<int>len(whole)):
            whole_option[i] = whole[i]
        for i in range(<int>len(real)):
            real_option[i] = real[i]
        layer.kind, layer.channels, layer.shares = name, channels, shares
        layer.n_inputs, layer.input = <int>len(inputs), input
        layer.n_whole, layer.whole = <int>len(whole), whole_option
        layer.n_real, layer.real = <int>len(real), real_option
        node = plan_add(self.p, &layer, &reason)
        if node < 0:
            raise ValueError(reason.decode())
        return node

    def finish(self, int output):
        """Makes `output` the node that the loss looks at; nothing can be added afterwards."""
        if self.finished or not 0 < output < self.p.n_nodes:
            raise ValueError(f"no such node: {output}")
        if plan_finish(self.p, output) < 0:
            raise MemoryError("out of memory for the plan")
        self.finished = True

    cdef plan_node *_node(self, int node) except NULL:
        if not 0 <= node < self.p.n_nodes:
            raise IndexError(node)
        return &self.p.node[node]

    def shape(self, int node):
        """Output shape (c, h, w) of a node."""
        cdef shape s = self._node(node).g.out
        return s.c, s.h, s.w

    def block(self, int node):
        """Where the node's weights are in the weight vector: (first, size) in floats."""
        cdef plan_node *n = self._node(node)
        return n.weight_at, n.g.weight_size

    def layer(self, int node):
        """The node whose layer is computed at this one: another's where two have changed places."""
        return self._node(node).layer

    def positions(self, int node, str name, int64_t[::1] out):
        """Position in the weight vector of every element of the node's part of that name, in the order of its PyTorch shape;
        ValueError if the part has another number of elements than `out`."""
        cdef plan_node *n = self._node(node)
        cdef Py_ssize_t i
        cdef ptrdiff_t at
        cdef int k = 0
        while n.kind != NULL and k < n.kind.n_parts and n.kind.parts[k].name != name.encode():
            k += 1
        if n.kind == NULL or n.kind.locate == NULL or k == n.kind.n_parts:
            raise ValueError(f"node {node} has no part {name!r}")
        for i in range(out.shape[0]):
            at = n.kind.locate(&n.g, k, i)
            if at < 0:
                raise ValueError(f"{name} of node {node} has {i} elements, not {out.shape[0]}")
            out[i] = <int64_t>n.weight_at + at
        if n.kind.locate(&n.g, k, out.shape[0]) >= 0:
            raise ValueError(f"{name} of node {node} has more than {out.shape[0]} elements")

    @property
    def weight_size(self):
        """Length of the weight vector in floats, padding included."""
        return self.p.weight_size

    @property
    def isa(self):
        return self.p.isa.name.decode()

    @property
    def winograd(self):
        return not self.p.direct_only

    @property
    def whole_batch(self):
        """Whether a layer sees all images of a step together."""
        return bool(self.p.properties & WHOLE_BATCH)


# ---- events ----

EVENTS = ("", "step", "copy", "forward", "backward", "publish", "postpone", "lane", "reduce", "arrive",
          "exchange", "leave", "read", "piece")


def event(kind, worker, what):
    """An event's code: worker | kind << 16 | what << 32."""
    return worker | EVENTS.index(kind) << 16 | what << 32


def event_text(uint64_t code):
    """An event in words."""
    kind = code >> 16 & 0xffff
    return f"worker {code & 0xffff}: {EVENTS[kind] if 0 < kind < EVENT_KINDS else f'kind {kind}'} {code >> 32}"


# ---- engine ----

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


cdef class Engine:
    """Workers on one weight vector. One phase runs at a time; `position`, `stop`, `read_weights` and `add_weights` may be called
    meanwhile."""

    cdef engine_t *e
    cdef Plan plan
    cdef float[::1] weights
    cdef float[:, ::1] moments
    cdef readonly int workers
    cdef readonly int batch_size
    cdef readonly object cpus
    cdef object lock
    cdef bint has_gradient
    cdef void *own_states
    cdef object states

    def __cinit__(self, Plan plan not None, float[::1] weights not None, int workers=1, strategy="sequential",
                  loss="cross_entropy", update="sgd", int batch_size=1, Py_ssize_t stripe_bytes=16384, cpus=None,
                  strategy_options=(), update_options=(), float[:, ::1] moments=None, max_staleness=None, loss_options=()):
        cdef engine_parts parts
        cdef double how_option[MAX_STRATEGY_OPTIONS]
        cdef double rule_option[MAX_RULE_OPTIONS]
        cdef double loss_option[MAX_LOSS_OPTIONS]
        cdef int[::1] cpu = None
        cdef const loss_kind *const *l = plan.p.isa.losses
        cdef const update_kind *const *u = plan.p.isa.updates
        cdef int s = 0, i
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
        while l[0] != NULL and l[0].name != loss.encode():
            l += 1
        while u[0] != NULL and u[0].name != update.encode():
            u += 1
        if strategy_at(s) == NULL or l[0] == NULL or u[0] == NULL:
            raise ValueError(f"the core does not know one of {strategy!r}, {loss!r}, {update!r}")
        if strategy_at(s).single and workers != 1:
            raise ValueError(f"strategy {strategy!r} runs with one worker, not {workers}")
        if cpus is not None:
            if not sys.platform.startswith("linux"):
                raise ValueError("threads cannot be pinned to CPUs on this system")
            if len(cpus) != workers:
                raise ValueError(f"{len(cpus)} CPUs for {workers} workers")
            allowed = os.sched_getaffinity(0)
            if not allowed.issuperset(cpus):
                raise ValueError(f"cannot pin a worker to CPU {min(set(cpus) - allowed)}: it is not among the {len(allowed)} "
                                 "CPUs of this process's affinity mask")
            cpu = array("i", cpus)
            self.cpus = tuple(cpus)
        for name, given, most in (("strategy_options", strategy_options, MAX_STRATEGY_OPTIONS),
                                  ("update_options", update_options, MAX_RULE_OPTIONS),
                                  ("loss_options", loss_options, MAX_LOSS_OPTIONS)):
            if len(given) > most:
                raise ValueError(f"{len(given)} {name}, at most {most} are possible")
        for i in range(MAX_STRATEGY_OPTIONS):
            how_option[i] = strategy_options[i] if i < len(strategy_options) else 0
        for i in range(MAX_RULE_OPTIONS):
            rule_option[i] = update_options[i] if i < len(update_options) else 0
        for i in range(MAX_LOSS_OPTIONS):
            loss_option[i] = loss_options[i] if i < len(loss_options) else 0
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
        parts.loss = l[0]
        parts.loss_options = loss_option
        self.e = engine_new(&parts)
        if self.e == NULL:
            raise MemoryError("out of memory for the engine")

    def __dealloc__(self):
        if self.own_states != NULL:
            exchange_move_states(self.e, self.own_states)
        engine_free(self.e)

    def run(self, str what, inputs, labels=None, const int64_t[::1] order=None, Py_ssize_t begin=0, end=None,
            float lr=0.0, float[:, ::1] out=None, const float[::1] step_scale=None, events=None, int lanes=0, int jobs=1,
            const float[::1] weights=None, uint64_t key=0):
        """Runs one phase over images `order[begin:end]` and returns its counts as a dict: whole ones, except
        layers {node: {..., pending_seconds}} and time, in seconds summed over workers (its parts are 0 outside training).

        what: "train", "test", "forward" (outputs to `out`) or "gradients" (mean gradient of all images, see
        `gradient`). inputs: for each input of the plan a flat array of uint8, float32 or int64, image by image in PyTorch's
        order. labels: int64, a class per image or flat maps of them, or float32, flat, as many as outputs, whatever the loss
        takes; weights: of each image's loss; key: where random numbers begin (chaos.layers.random). step_scale: 512 factors of the learning rate, by the staleness of an update.

        events: for "train", an iterable of uint64 arrays: the phase runs in this order (see cext/engine/replay.h and
        `event`), in `jobs` threads, which changes no bit; `lanes` is how many lanes its steps have, 0 for none.
        """
        cdef images_t data
        cdef phase ph
        cdef float *to = NULL
        cdef int status, classes = self._classes()
        cdef Py_ssize_t last
        if what not in ("train", "test", "forward", "gradients"):
            raise ValueError(f"unknown phase {what!r}")
        ph = {"train": TRAIN, "test": TEST, "forward": FORWARD, "gradients": GRADIENTS}[what]
        last = self._take(&data, inputs, labels, order, begin, end, weights, key)
        if labels is None and ph != FORWARD:
            raise ValueError("labels are needed")
        if ph == FORWARD:
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
                status = self._replay(&data, begin, last, lr, events, lanes, jobs)
            else:
                with nogil:
                    status = engine_run(self.e, ph, &data, begin, last, lr, to)
            self.has_gradient = ph == GRADIENTS and status == DONE
        finally:
            self.e.step_scale = NULL
            self.lock.release()
        return self._result(status)

    cdef int _classes(self):
        cdef shape s = self.plan.p.node[self.plan.p.output].g.out
        return s.c * s.h * s.w

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
        self._take_target(&data.target, &data.form, labels, count)
        data.order = NULL
        data.weight = NULL
        data.key = key
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

    cdef int _take_target(self, feed *to, target *form, labels, Py_ssize_t count) except -1:
        cdef const int64_t[::1] numbers
        cdef unsigned takes = self.e.loss.targets
        cdef Py_ssize_t i, n, classes = self._classes(), pixels = 1
        to.size, to.bytes, to.floats, to.numbers = 0, NULL, NULL, NULL
        form[0] = <target>TARGET_CLASS
        if labels is None:
            return 0
        if memoryview(labels).format == "f":
            form[0] = <target>TARGET_VALUES
            n = _feed(to, labels, classes, "targets")
        else:
            numbers = labels
            if takes & TARGET_MAP and count and numbers.shape[0] > count and not numbers.shape[0] % count \
                    and not classes % (numbers.shape[0] // count):
                form[0] = <target>TARGET_MAP
                pixels = numbers.shape[0] // count
                classes //= pixels
            n = _feed(to, labels, pixels, "labels")
            for i in range(numbers.shape[0]):
                if not 0 <= numbers[i] < classes:
                    raise ValueError(f"label {numbers[i]} of image {i // pixels} is not in 0..{classes - 1}, the network's "
                                     "outputs")
        if n != count:
            raise ValueError(f"{n} labels for {count} images")
        if not form[0] & takes:
            raise ValueError(f"the loss {self.e.loss.name.decode()!r} does not take such targets")
        return 0

    cdef _result(self, int status):
        """The counts of the phase that has ended; the exception where the core says so."""
        if status == NO_MEMORY:
            raise MemoryError(f"out of memory for {self.workers} workers of {self.worker_bytes} bytes each")
        if status == NO_TEAM:
            raise RuntimeError(f"the OpenMP runtime did not start {self.workers} threads; OMP_THREAD_LIMIT, a limit on "
                               "processes, or a smaller worker count may be the reason")
        if status == NOT_PINNED:
            raise RuntimeError(f"the system refused to pin worker {self.e.failed_at} to CPU {self.cpus[self.e.failed_at]}, "
                               "although it was in the affinity mask when the engine was made")
        cdef tally *t = &self.e.total
        layers = self._layers()
        return {
            "status": {DONE: "done", STOPPED: "stopped", DIVERGED: "diverged"}[status],
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

    cdef int _replay(self, const images_t *data, int64_t begin, int64_t end, float lr, events, int lanes,
                     int jobs) except -2:
        cdef const uint64_t[::1] block
        cdef int64_t at = 0, count
        cdef const char *reason = NULL
        cdef int status = DONE
        if jobs < 1 or jobs > 1 and not OPENMP:
            raise ValueError(f"jobs must be at least 1{'' if OPENMP else ', and without OpenMP at most 1'}, not {jobs}")
        cdef replay_t *r = replay_new(self.e, lanes, jobs)
        try:
            if r == NULL or replay_begin(r, data, begin, end, lr):
                raise MemoryError(f"out of memory for {self.workers} workers of {self.worker_bytes} bytes each")
            for block in events:
                count = block.shape[0]
                if not count:
                    continue
                with nogil:
                    status = replay_run(r, &block[0], count, &at, &reason)
                if status == NO_TEAM:
                    raise RuntimeError(f"the OpenMP runtime did not start {min(jobs, self.workers)} threads for the events; "
                                       "OMP_THREAD_LIMIT or a limit on processes may be the reason; fewer jobs need fewer")
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
    def lane_gradients(self, int lanes, int first, float[:, ::1] out not None, inputs, labels=None,
                       const int64_t[::1] order=None, Py_ssize_t begin=0, end=None, int32_t[::1] reached=None,
                       const float[::1] weights=None, uint64_t key=0):
        """Forms some lanes of a synchronous step's gradient on all workers, without an update.

        The step is over images `order[begin:end]`, cut into `lanes` lanes: lane j has images begin + n * j // lanes up to
        begin + n * (j + 1) // lanes, n = end - begin. Row i of `out` (which holds zeros or what an earlier call left there)
        becomes the gradient of the sum of lane (first + i)'s losses / n, laid out as the weights: the rows of all lanes,
        added up one by one in their order, are the step's gradient. The same bits for any number of workers. Images as for
        `run`; returns the same dict, "images" being those of these lanes ("stopped": `out` is incomplete).

        `reached`, as long as `out`, tells another thread through the function `reached` what is there already: row i is
        final for nodes reached[i] and later. The caller fills it beforehand with the number of nodes.
        """
        cdef images_t data
        cdef int status
        cdef Py_ssize_t last = self._take(&data, inputs, labels, order, begin, end, weights, key)
        if labels is None:
            raise ValueError("labels are needed")
        if not 1 <= lanes <= last - begin:
            raise ValueError(f"a step of {last - begin} images cannot be cut into {lanes} lanes")
        if out.shape[0] < 1 or not 0 <= first <= lanes - out.shape[0]:
            raise ValueError(f"lanes {first}..{first + out.shape[0] - 1} are not within the step's {lanes}")
        if out.shape[1] != self.weights.shape[0] or (out.shape[1] and <uintptr_t>&out[0, 0] % 64):
            raise ValueError(f"out must be a 64-byte aligned ({out.shape[0]}, {self.weights.shape[0]}) float32 array")
        if not self.weights.shape[0]:
            raise ValueError("the network has no weights")
        if reached is not None and reached.shape[0] != out.shape[0]:
            raise ValueError(f"reached has {reached.shape[0]} numbers for {out.shape[0]} lanes")
        cdef int32_t *to = NULL if reached is None else &reached[0]
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is already running a phase")
        try:
            with nogil:
                status = engine_lanes(self.e, &data, begin, last, lanes, first, <int>out.shape[0], &out[0, 0], to)
            self.has_gradient = False
        finally:
            self.lock.release()
        return self._result(status)

    def apply(self, const float[::1] gradient not None, float lr):
        """Updates the weights, and the moments, by the engine's rule with a gradient laid out as the weights (0 in the
        padding), stripe by stripe on all workers; counts as one update of every stripe. Returns the same dict as `run`."""
        cdef int status
        if gradient.shape[0] != self.weights.shape[0]:
            raise ValueError(f"the gradient has {gradient.shape[0]} floats, the weight vector {self.weights.shape[0]}")
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is already running a phase")
        try:
            with nogil:
                status = engine_apply(self.e, &gradient[0] if gradient.shape[0] else NULL, lr)
            self.has_gradient = False
        finally:
            self.lock.release()
        return self._result(status)

    cdef _layers(self):
        """What the last phase counted about every layer with weights: {node: dict}."""
        cdef layer_tally *t
        cdef int k, i
        found = {}
        for k in range(self.e.shared.n_stripes):
            t = &self.e.layer[self.e.shared.stripe[k].layer]
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

    def time(self, int node, str what, long rounds=1):
        """Seconds per sample of one pass of one layer, the mean of `rounds` calls on the data of the last "gradients"
        phase: "forward", "weight_gradient" (backward without the gradient of the inputs), "backward" or "update". None
        where training does not run that pass."""
        cdef plan_node *n = self.plan._node(node)
        cdef pass_t p
        cdef double seconds
        if what not in ("forward", "weight_gradient", "backward", "update"):
            raise ValueError(f"unknown pass {what!r}")
        p = {"forward": PASS_FORWARD, "weight_gradient": PASS_WEIGHT_GRADIENT, "backward": PASS_BACKWARD,
             "update": PASS_UPDATE}[what]
        if node == 0 or self.e.worker[0] == NULL:
            raise ValueError("nothing to time: node 0 is the input, and a 'gradients' phase has to be run before")
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {rounds}")
        if p != PASS_FORWARD and (n.skipped or not (n.needs_gradient and n.n_deltas)):
            return None
        if p in (PASS_WEIGHT_GRADIENT, PASS_UPDATE) and not n.g.weight_size:
            return None
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is running a phase")
        try:
            with nogil:
                seconds = bench_time(self.e, node, p, rounds)
        finally:
            self.lock.release()
        return seconds if seconds >= 0 else None

    def loop(self, int node, str what):
        """The loop that a pass (named as for `time`, "backward" meaning the data gradient) of a layer takes, in words;
        None if there is only one."""
        cdef const char *words
        self.plan._node(node)
        if node == 0 or what not in ("forward", "weight_gradient", "backward", "update"):
            raise ValueError(f"no pass {what!r} of node {node}")
        words = bench_loop(self.e, node, {"forward": PASS_FORWARD, "weight_gradient": PASS_WEIGHT_GRADIENT,
                                           "backward": PASS_BACKWARD, "update": PASS_UPDATE}[what])
        return None if words == NULL else words.decode()

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

    def hold(self, int k):
        """Takes the lock of a stripe, as a worker would: whether it was free. For tests: workers that need it wait until
        `release`."""
        if not 0 <= k < self.e.shared.n_stripes:
            raise IndexError(k)
        return bool(stripe_try_lock(&self.e.shared.state[k]))

    def release(self, int k):
        """Gives back what `hold` has taken."""
        if not 0 <= k < self.e.shared.n_stripes:
            raise IndexError(k)
        stripe_unlock(&self.e.shared.state[k])

    def stripe(self, int k):
        """Where stripe k is in the weight vector: (first, size) in floats."""
        if not 0 <= k < self.e.shared.n_stripes:
            raise IndexError(k)
        return self.e.shared.stripe[k].at, self.e.shared.stripe[k].size

    cdef int _stripes(self, Py_ssize_t size, int first, last) except -1:
        """The end of a range of stripes, checked, as is the length of the vector that goes with it."""
        cdef int end = self.e.shared.n_stripes if last is None else last
        if size != <Py_ssize_t>self.plan.p.weight_size:
            raise ValueError(f"the vector has {size} floats, the weight vector {self.plan.p.weight_size}")
        if not 0 <= first <= end <= self.e.shared.n_stripes:
            raise ValueError(f"stripes {first}..{end} are not within the {self.e.shared.n_stripes} there are")
        return end

    def read_weights(self, float[::1] out not None, int first=0, last=None):
        """Copies stripes [first, last) of the weights to their places in `out`, a vector as long as the weights. May be
        called while a phase runs: each stripe is then as it was at one moment, if the strategy locks stripes."""
        cdef int end = self._stripes(out.shape[0], first, last)
        if end > first:
            with nogil:
                exchange_read(self.e, first, end, &out[0])

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
                exchange_add(self.e, first, end, &delta[0], scale, room)

    def share_states(self, uint8_t[::1] place not None):
        """Keeps the locks and versions of the stripes at `place`, zeroed memory of `state_bytes` that other processes use for
        theirs; a weight vector in shared memory needs them there. Between phases only, once."""
        if self.own_states != NULL:
            raise ValueError("the stripe states have been moved already")
        if place.shape[0] < <Py_ssize_t>exchange_state_bytes(self.e) or <uintptr_t>&place[0] % 128:
            raise ValueError(f"{exchange_state_bytes(self.e)} bytes aligned to 128 are needed, not {place.shape[0]}")
        if not self.lock.acquire(False):
            raise RuntimeError("this engine is running a phase")
        self.states = place
        self.own_states = exchange_move_states(self.e, &place[0])
        self.lock.release()

    def rewind(self):
        """Between phases: makes `position` 0 until the next one begins."""
        exchange_rewind(self.e)

    @property
    def state_bytes(self):
        """Memory of the stripes' locks and versions in bytes."""
        return exchange_state_bytes(self.e)

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
        return lanes_of(self.batch_size, wanted)

    def stages(self, int64_t images):
        """The stages of a step of so many images, [(name, node, pieces), ...]; empty if its strategy, or the network, has
        none."""
        cdef const char *name = NULL
        cdef int node = 0, n, i
        cdef const stage_hooks *h = self.e.strategy.stages
        found = []
        if h != NULL:
            for i in range(h.count(self.e)):
                n = h.pieces(self.e, i, images, &name, &node)
                found.append((name.decode(), node, n))
        return found

    @property
    def late(self):
        """Whether the strategy publishes after its layer's hook has returned."""
        return bool(self.e.strategy.publishes_later)

    @property
    def stripe_table(self):
        """[(node, floats), ...] of the stripes."""
        return [(self.e.shared.stripe[k].node, self.e.shared.stripe[k].size) for k in range(self.e.shared.n_stripes)]

    def learns(self, int node):
        """Whether back-propagation passes the node."""
        cdef plan_node *n = self.plan._node(node)
        return bool(n.needs_gradient and n.n_deltas)


# ---- the clock of virtual workers ----

CLOCK_ORDERS = ("chaos", "hogwild", "locked", "delayed", "synchronous", "leashed", "averaging", "elastic",
                "replicated", "stages")


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
