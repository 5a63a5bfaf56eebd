# The plan of a network.

cdef class Plan:
    """The geometry of a network, for the instruction set and the loops in force. Nodes are added in topological order, the inputs
    first. `bf16`: one of bf16_units(), which multiplies numbers rounded to bfloat16 where that is faster; "": none does."""

    cdef plan_t *p
    cdef bint finished
    cdef readonly object choice
    cdef readonly str bf16

    def __cinit__(self, str bf16=""):
        self.choice = get_choice()
        isa, winograd, wanted = self.choice
        cdef bytes text = wanted.encode()
        cdef const char *loops = NULL
        if wanted:
            loops = text
        if bf16 and bf16 not in bf16_units():
            raise ValueError(f"no unit {bf16!r} for products of bfloat16 here: {bf16_missing()}")
        self.bf16 = bf16
        cdef const bf16_unit *unit = NULL
        if bf16:
            unit = bf16_amx()
        if bf16 == "plain":
            unit = &bf16_plain
        self.p = plan_new(_find_isa(isa), not winograd, loops, unit)
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

    def add(self, kind, inputs, int channels=0, whole=(), real=(), int shares=-1, frozen=()):
        """Adds a layer; returns its node number. `shares`: a node whose weights it uses, instead of weights of its own.
        `frozen`: names of its parts that training does not change, of the node that has them. ValueError with the core's reason where the geometry is impossible."""
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
        layer.frozen = self._parts(name, frozen)
        node = plan_add(self.p, &layer, &reason)
        if node < 0:
            raise ValueError(reason.decode())
        return node

    cdef unsigned _parts(self, bytes kind, names) except? 0xffffffff:
        """A bit for each of these parts of a kind."""
        cdef const layer_kind *const *l = self.p.isa.layers
        cdef unsigned found = 0
        cdef int k
        while l[0] != NULL and l[0].name != kind:
            l += 1
        for name in names:
            k = 0
            while l[0] != NULL and k < l[0].n_parts and l[0].parts[k].name != name.encode():
                k += 1
            if l[0] == NULL or k == l[0].n_parts or k >= 31:
                raise ValueError(f"{kind.decode()} has no part {name!r}")
            found |= 1u << k
        return found

    def finish(self, int output, int pixels=1):
        """Makes `output` the node that the loss looks at, a vector of channels * `pixels` numbers; nothing can be added
        afterwards."""
        if self.finished or not 0 < output < self.p.n_nodes:
            raise ValueError(f"no such node: {output}")
        if pixels < 1 or shape_size(self.p.node[output].g.out) % pixels:
            raise ValueError(f"an output of shape {self.shape(output)} has not {pixels} pixels")
        if plan_finish(self.p, output, pixels) < 0:
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
        """The nodes whose layers see all images of a step together."""
        return [i for i in range(self.p.n_nodes) if self.p.node[i].g.properties & WHOLE_BATCH]

    @property
    def group(self):
        """Images of a step that pass through the layers together, or whole multiples of them; 1 where no layer asks for it."""
        return self.p.group

    @property
    def together(self):
        """Images that pass through the layers together at the most, whatever the batch size."""
        return self.p.together

    @property
    def groups(self):
        """{node: images of a step that its layer sees together} where it sees fixed numbers of them together."""
        return {i: self.p.node[i].g.group for i in range(self.p.n_nodes) if self.p.node[i].g.group}
