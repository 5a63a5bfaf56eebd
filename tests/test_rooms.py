"""The house: lists agree, arrows point down, files say what they are."""

import ast
import re
from pathlib import Path

import pytest

import chaos
from chaos.layers import LAYERS

HERE = Path(__file__).resolve().parent.parent
CEXT, CHAOS = HERE / "cext", HERE / "chaos"
if not CEXT.is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

# room: the rooms it may see; what is not listed here fails, so a new room needs a line
C_ARROWS = {
    "bf16": {"bf16"},
    "simd": {"simd", "layers"},  # tiles speak of source and sink, which layers/layer.h declares
    "layers": {"simd", "layers", "bf16"},
    "losses": {"losses", "options"},
    "updates": {"updates"},
    "augment": {"augment", "layers"},
    "isa": {"isa", "simd", "layers", "losses", "updates", "augment"},
    "engine": {"engine", "isa", "layers", "losses", "updates", "augment"},
    "sync": {"sync", "engine"},
    "replay": {"replay", "engine"},
    "virtual": {"virtual", "engine"},
    "registry": {"registry", "sync", "engine", "isa"},
    "door": {"door", "registry", "bf16", "engine", "replay", "virtual"},
    "_core": {"door"},
}
# the floors of a room of cext, lowest first: the headers of the room that a file (x.c and x.h) may include beside its own
REPLAY_FLOORS = {
    "layout": set(),
    "order": {"layout"},
    "schedule": {"layout", "order"},
    "perform": {"layout", "schedule"},
    "replay": {"layout", "order", "schedule", "perform"},
}
VIRTUAL_FLOORS = {
    "random": set(),
    "parts": set(),
    "order": {"parts"},
    "actor": {"order", "parts", "random"},
    "stripes": {"actor"},
    "passes": {"stripes"},
    "meeting": {"actor"},
    "replicas": {"stripes"},
    "clock": {"parts", "order", "actor"},
    "orders": {"order"},
}
ENGINE_FLOORS = {
    "event": set(),
    "lanes": set(),
    "memory": set(),
    "counts": set(),
    "ticks": set(),
    "threads": set(),
    "distance": {"ticks"},
    "plan": set(),
    "fusion": {"plan"},
    "places": {"plan"},
    "finish": {"plan", "fusion", "places"},
    "shared": set(),
    "strategy": {"shared"},
    "engine": {"counts", "plan", "strategy"},
    "worker": {"engine", "memory", "ticks"},
    "wait": {"worker", "threads", "ticks"},
    "team": {"worker", "wait"},
    "gate": {"worker", "team", "wait"},
    "trace": {"worker", "wait", "event"},
    "replica": {"engine", "memory"},
    "weights": {"worker", "memory", "ticks", "trace"},
    "bounds": {"worker", "wait"},
    "unit": {"worker", "bounds", "weights"},
    "augmented": {"worker"},
    "feed": {"worker", "augmented"},
    "pass": {"worker", "bounds", "feed", "team", "ticks", "trace"},
    "step": {"worker", "bounds", "gate", "pass", "team", "trace"},
    "bench": {"engine", "worker", "pass", "threads", "ticks"},
    "phase": {"engine", "bounds", "gate", "lanes", "pass", "step", "team", "threads", "ticks", "trace", "unit", "weights"},
    "exchange": {"engine", "wait"},
}
# methods that lead to a room above, which is loaded when they are called
DOORS_UP = {"network": {"interop", "online"}}
_MEANING = {"errors", "layers", "losses", "updates", "sync", "formats", "data", "_version"}
PY_ARROWS = {
    "errors": set(),
    "_version": set(),
    "hints": set(),
    "options": {"hints"},
    "arrays": {"errors"},
    "scale": {"arrays", "errors"},
    "layers": {"layers", "hints"},
    "losses": {"losses", "options"},
    "updates": {"updates", "options"},
    "sync": {"sync", "options"},
    "formats": {"formats", "errors"},
    "data": {"data", "arrays", "errors", "formats", "hints", "options"},
    "affinity": set(),
    "blas": set(),
    "threads": {"affinity"},
    "distance": {"_core", "affinity", "threads"},
    "_start": set(),
    "streams": set(),
    "_load": {"affinity", "_core"},
    "engines": {"_core", "threads"},
    "graph": {"layers"},
    "taken": {"arrays", "errors", "layers", "losses", "scale"},
    "network": {
        "_core",
        "arrays",
        "engines",
        "errors",
        "formats",
        "freezing",
        "graph",
        "hints",
        "layers",
        "losses",
        "parameters",
        "places",
        "precision",
        "scale",
        "taken",
    },
    "precision": {"_core", "errors"},
    "loading": {"errors", "formats", "layers", "network", "scale"},
    "models": {"models", "network", "layers", "hints", "initialisers"},
    "augment": {"augment", "_core", "data", "errors", "hints", "layers", "network", "options"},
    "freezing": {"layers"},
    "places": {"_core"},
    "groups": {"freezing", "places"},
    "initialisers": {"layers"},
    "summary": {"_core", "layers"},
    "parameters": {"_core", "engines", "freezing", "initialisers", "layers", "places", "summary"},
    "reference": {"freezing", "losses", "layers"},
    "folding": {"network", "layers"},
    "normalising": {"network", "layers"},
    "interop": {"interop", "folding", "network", "layers", "errors", "formats", "_version"},
    "installation": {"_core", "precision", "threads", "_version"},
    "training": {
        "training",
        "streams",
        "arrays",
        "augment",
        "blas",
        "distance",
        "groups",
        "hints",
        "loading",
        "network",
        "precision",
        "scale",
        "taken",
        "threads",
        "options",
        "_core",
        *_MEANING,
    },
    "online": {"arrays", "engines", "groups", "network", "taken", "training", "_core", "options", "scale", *_MEANING},
    "bench": {
        "bench",
        "distance",
        "network",
        "options",
        "models",
        "training",
        "threads",
        "reference",
        "installation",
        "_core",
        *_MEANING,
    },
    "perfmodel": {
        "perfmodel",
        "bench",
        "distance",
        "network",
        "models",
        "options",
        "threads",
        "virtual",
        "_core",
        *_MEANING,
    },
    "report": {"report", "errors", "formats"},
    "cluster": {
        "cluster",
        "streams",
        "affinity",
        "arrays",
        "distance",
        "_core",
        "_version",
        "network",
        "training",
        "threads",
        "options",
        "errors",
        "sync",
        "updates",
    },
    "virtual": {"virtual", "loading", "network", "training", "threads", "options", "_core", *_MEANING},
    "reproduce": {
        "reproduce",
        "virtual",
        "report",
        "perfmodel",
        "bench",
        "models",
        "network",
        "training",
        "threads",
        *_MEANING,
    },
    "cli": {
        "_start",
        "streams",
        "cli",
        "bench",
        "virtual",
        "reproduce",
        "cluster",
        "perfmodel",
        "report",
        "hints",
        "installation",
        "loading",
        "models",
        "network",
        "normalising",
        "options",
        "folding",
        "interop",
        "precision",
        "reference",
        "scale",
        "training",
        "threads",
        "augment",
        *_MEANING,
    },
    "api": {"training", "cluster", "network", "data", "hints", "streams"},
    "callbacks": {"training", "hints"},
    "many": {"many", "api", "blas", "data", "hints", "network", "options", "streams", "threads", "training"},
    "estimators": {
        "estimators",
        "api",
        "arrays",
        "data",
        "hints",
        "interop",
        "layers",
        "network",
        "online",
        "options",
        "scale",
        "threads",
        "training",
    },
    "__main__": {"cli"},
    "__init__": {
        "_load",
        "_start",
        "api",
        "augment",
        "callbacks",
        "data",
        "interop",
        "initialisers",
        "models",
        "_version",
        "errors",
        "folding",
        "hints",
        "installation",
        "bench",
        "cluster",
        "layers",
        "loading",
        "losses",
        "sync",
        "threads",
        "updates",
        "many",
        "network",
        "normalising",
        "training",
    },
}


def room_of(path, top):
    return path.relative_to(top).parts[0].split(".")[0]


def test_c_arrows_point_down():
    for path in sorted(p for p in CEXT.rglob("*.*") if p.suffix in (".c", ".h", ".pyx", ".pxd", ".pxi")):
        room = room_of(path, CEXT)
        for name in re.findall(r'(?:#?include|from) "([^"]+)"', path.read_text()):
            if name.startswith("lists/"):  # written by setup.py from the files there are
                continue
            near = path.parent / name
            target = near if near.exists() else CEXT / name
            assert target.exists(), f"{path} includes {name}, which is not there"
            assert room_of(target, CEXT) in C_ARROWS[room], f"{path.name} in {room} must not include {name}"


FLOORS = {"engine": ENGINE_FLOORS, "replay": REPLAY_FLOORS, "virtual": VIRTUAL_FLOORS}


@pytest.mark.parametrize("room", FLOORS)
def test_rooms_have_floors(room):
    lower = set()
    for name, allowed in FLOORS[room].items():
        assert allowed <= lower, f"{name} may include {allowed - lower}, not below it"
        lower.add(name)
        files = [p for p in (CEXT / room / f"{name}.c", CEXT / room / f"{name}.h") if p.exists()]
        assert files and files[-1].suffix == ".h", f"{name} has no header"
        for path in files:
            found = {n.removesuffix(".h") for n in re.findall(r'#include "(\w+\.h)"', path.read_text())} - {name}
            assert found <= allowed, f"{path.name} includes {found - allowed}"
    assert {p.stem for p in (CEXT / room).glob("*.[ch]")} == lower


@pytest.mark.parametrize("room", FLOORS)
def test_names_say_which_file(room):
    """What a file offers to others begins with its name."""
    others = {"phase": r"engine_|phase_|outcome_", "finish": r"plan_finish$", "lanes": r"lanes?_", "clock": r"vclock_"}
    for path in (CEXT / room).glob("*.h"):
        if path.with_suffix(".c").exists():
            code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
            for name in re.findall(r"^(?!static|typedef|\s)[\w ]+[ *](\w+)\(", code, re.M):
                assert re.match(others.get(path.stem, f"{path.stem}_"), name), f"{path.name} declares {name}"


def test_instruction_sets_share_no_kernel():
    for path in [
        p for room in ("simd", "isa", "layers", "losses", "updates", "augment") for p in (CEXT / room).glob("*.[ch]")
    ]:
        names = re.findall(r"^extern (.*);", path.read_text(), re.M)
        assert all(re.fullmatch(r"const instruction_set isa_\w+(, isa_\w+)*", name) for name in names), path
        assert not re.search(r"^\w+_fn \*", path.read_text(), re.M), path


def imports(path):
    """Rooms of chaos that a file imports, also inside functions."""
    inside = list(path.relative_to(CHAOS).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level:
            base = inside[: len(inside) - node.level]
            module = base + (node.module.split(".") if node.module else [])
            names = [module] if module else [[alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "chaos":
            names = [node.module.split(".")[1:]] if "." in node.module else [[alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".")[1:] for alias in node.names if alias.name.startswith("chaos.")]
        for parts in names:
            name = parts[0] if parts else ""
            if name and ((CHAOS / name).is_dir() or (CHAOS / f"{name}.py").exists() or name == "_core"):
                yield name


def test_python_arrows_point_down():
    for path in sorted(CHAOS.rglob("*.py")):
        room = room_of(path, CHAOS)
        assert room in PY_ARROWS, f"chaos/{room} is a room without a line in this test"
        for name in set(imports(path)) - DOORS_UP.get(room, set()):
            assert name in PY_ARROWS[room], f"{path.relative_to(HERE)} must not import chaos.{name}"


def test_the_floors_of_the_training_room():
    """From below; what a file needs for its annotations only is no import."""
    floors = (
        "monitor metrics settings signals records callbacks link parts phases runner feeding state store checks "
        "planning job progress result run __init__"
    ).split()
    files = {path.stem: path for path in (CHAOS / "training").glob("*.py")}
    assert sorted(files) == sorted(floors)
    for name, path in files.items():
        below = floors[: floors.index(name)]
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                for module in [node.module] if node.module else [alias.name for alias in node.names]:
                    assert module in below, f"chaos/training/{name}.py must not import {module}"


def test_only_the_cluster_speaks_mpi():
    for path in CHAOS.rglob("*.py"):
        if "cluster" not in path.parts:
            assert not re.search(r"^\s*(import|from) mpi4py", path.read_text(), re.M), path


def test_threads_and_races_have_one_place():
    for path in sorted(CEXT.rglob("*.[ch]")):
        text = path.read_text()
        if path.stem != "threads":
            assert "#pragma omp" not in text and "omp_" not in text and "pthread_create" not in text, path
            assert "_setaffinity" not in text, path
        if path.name != "shared.h":
            assert "no_sanitize" not in text and "RACES" not in text, path


@pytest.mark.parametrize(
    "room, suffixes", [(room, (".py", ".c")) for room in ("layers", "losses", "updates", "sync", "augment")]
)
def test_both_halves_have_the_same_files(room, suffixes):
    others = {"__init__", "base", "definition", "examples", "parse", "random", "schedules", "seen", "sums"}
    meaning = {p.stem for p in (CHAOS / room).glob("*.py")} - others
    speed = {p.stem for p in (CEXT / room).glob("*.c")}
    # a layer may be computed by another kind of the core
    lowered = {kind for kind, layer in LAYERS.items() if room == "layers" and "core" in vars(layer) and kind not in speed}
    assert meaning - lowered == speed


def test_every_file_says_what_it_is():
    for path in sorted(
        p
        for top in (CEXT, CHAOS, HERE / "scripts", HERE / "tests")
        for p in top.rglob("*")
        if p.suffix in (".py", ".c", ".h", ".pyx", ".pxd", ".pxi", ".sh")
    ):
        first = path.read_text()[:200].lstrip()
        assert first.startswith(('"""', "/*", "#")), f"{path.relative_to(HERE)} has no opening words"


def test_type_checkers_see_what_is_loaded_when_asked_for():
    (block,) = [
        node
        for node in ast.parse((CHAOS / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    said = {alias.name: node.module for node in block.body for alias in node.names}
    assert said.pop("*") == "layers"
    rooms = {name for name, module in said.items() if module is None}
    assert rooms == {*chaos._ROOMS, *chaos._OTHERS} and {name: said[name] for name in said.keys() - rooms} == chaos._FROM
    assert all(alias.asname in (alias.name, None) for node in block.body for alias in node.names)
    # a room of the name of something public would replace it when it is loaded
    assert not {path.stem for path in CHAOS.iterdir()} & {*chaos._FROM, *LAYERS}


def test_public_names_have_docstrings_and_exist():
    assert len(set(chaos.__all__)) == len(chaos.__all__) and {*chaos.__all__} <= {*dir(chaos)}
    with pytest.raises(AttributeError, match="module 'chaos' has no attribute 'Conv3D'"):
        chaos.Conv3D  # noqa: B018
    for name in chaos.__all__:
        thing = getattr(chaos, name)
        assert name == "__version__" or (thing.__doc__ or "").strip(), name
