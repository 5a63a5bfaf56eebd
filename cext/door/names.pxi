# Names and switches of the core: instruction sets, Winograd, kinds; how it was built.

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
BUILD_INFO = CHAOS_BUILD_INFO.decode()


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


def bf16_units():
    """Names of what multiplies numbers rounded to bfloat16 here: "amx", where the processor, the operating system and CHAOS_ISA
    let it, and "plain", which is slow."""
    return ("plain", "amx") if not bf16_missing() else ("plain",)


def bf16_missing():
    """Why bf16_units() has no "amx"; "" where it has."""
    if get_isa() != "avx512" and "avx512" in instruction_sets():
        return f"the instruction set in force is {get_isa()}"
    return bf16_amx_missing().decode()


def bf16_gflops(bint dots=False, double seconds=0.05):
    """Multiply-adds of bfloat16 numbers of this core in GFLOP/s, measured for about `seconds`: by AMX's tiles, or (dots) by
    AVX512_BF16's dot products. ValueError where bf16_units() has no "amx"."""
    cdef long rounds = 100_000, flops
    cdef double t
    if "amx" not in bf16_units():
        raise ValueError(bf16_missing())
    with nogil:
        t = bf16_seconds(dots, rounds, &flops)
        while t < seconds:
            rounds *= 2
            t = bf16_seconds(dots, rounds, &flops)
    return rounds * <double>flops / t * 1e-9


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


cdef _names_by(const char *(*name)(int) noexcept nogil):
    """The names of an enum's values, in their order."""
    names = []
    while name(<int>len(names)) != NULL:
        names.append(name(<int>len(names)).decode())
    return tuple(names)


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
