# The plan of a network.

cdef class Plan:
    """The geometry of a network for one instruction set. Node 0 is the input; nodes are added in topological order."""

    cdef plan_t *p
    cdef bint finished

    def __cinit__(self, int c, int h, int w, isa=None):
        cdef const char *reason = NULL
        cdef shape s
        if min(c, h, w) < 1:
            raise ValueError(f"input shape must be positive, not {(c, h, w)}")
        self.p = plan_new(_find_isa(isa or get_isa()), get_winograd())
        s.c, s.h, s.w = c, h, w
        if self.p == NULL or plan_add_input(self.p, s, &reason) < 0:
            raise MemoryError("out of memory for the plan")

    def __dealloc__(self):
        plan_free(self.p)

    def add(self, kind, inputs, int channels, options):
        """Adds a layer; returns its node number. ValueError with the core's reason where the geometry is impossible."""
        cdef int input[MAX_INPUTS]
        cdef int option[MAX_OPTIONS]
        cdef const char *reason = NULL
        cdef int i, node
        cdef bytes name = kind.encode()
        if self.finished:
            raise ValueError("the plan is finished")
        if not 1 <= len(inputs) <= MAX_INPUTS or len(options) > MAX_OPTIONS:
            raise ValueError(f"a layer takes 1 to {MAX_INPUTS} inputs, not {len(inputs)}")
        for i in range(<int>len(inputs)):
            input[i] = inputs[i]
        for i in range(<int>len(options)):
            option[i] = options[i]
        node = plan_add(self.p, name, <int>len(inputs), input, channels, <int>len(options), option, &reason)
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

    def positions(self, int node, int k, int64_t[::1] out):
        """Position in the weight vector of every element of the node's parameter k (0 weight, 1 bias), in the order of
        its PyTorch shape; ValueError if the parameter has another number of elements than `out`."""
        cdef plan_node *n = self._node(node)
        cdef Py_ssize_t i
        cdef ptrdiff_t at
        if n.kind == NULL or n.kind.locate == NULL or not 0 <= k < n.kind.n_parameters:
            raise ValueError(f"node {node} has no parameter {k}")
        for i in range(out.shape[0]):
            at = n.kind.locate(&n.g, k, i)
            if at < 0:
                raise ValueError(f"parameter {k} of node {node} has {i} elements, not {out.shape[0]}")
            out[i] = <int64_t>n.weight_at + at
        if n.kind.locate(&n.g, k, out.shape[0]) >= 0:
            raise ValueError(f"parameter {k} of node {node} has more than {out.shape[0]} elements")

    @property
    def weight_size(self):
        """Length of the weight vector in floats, padding included."""
        return self.p.weight_size

    @property
    def isa(self):
        return self.p.isa.name.decode()

    @property
    def winograd(self):
        return bool(self.p.winograd)
