"""Networks by the names that command lines and job files give them: of the zoo, of files, of Python functions. For the files
of this folder."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
import traceback
from pathlib import Path

from .. import layers
from ..data import kind
from ..errors import DataError
from ..hints import nearest
from ..layers import LAYERS
from ..loading import load
from ..models import MODELS
from ..network import Network
from ..options import unknown
from ..training import BEST, MODEL
from .given import read_config

# FILE.py:NAME or package.module:NAME
FUNCTION = re.compile(r"(?P<where>.+\.py|[^\W\d][\w.]*):(?P<name>[^\W\d]\w*)")
FILES = (".safetensors", ".onnx")
KINDS = f"a {' or '.join(FILES)} file, or FILE.py:FUNCTION"
# what a function that makes a network may ask for, and what it gets
SHAPES, CLASSES = ("input_shape", "shape"), ("classes", "n_classes")


def build_model(name, seed=0, data=None, options=None, folder="."):
    """The network that a name stands for.

    Parameters
    ----------
    name : str
        In the zoo; a .safetensors or .onnx file; FILE.py:FUNCTION or module:FUNCTION, which is executed.
    seed : int
        Of the initial weights.
    data : callable, optional
        ``data()`` gives (shape of an image, number of classes) to functions that ask for them.
    options : dict, optional
        Further arguments of a function, by name.
    folder : path
        Where modules are looked for.

    Returns
    -------
    Network

    Raises
    ------
    ValueError, OSError
        If the name stands for none; with the nearest one.
    """
    ending, function = Path(name).suffix.lower(), FUNCTION.fullmatch(name)
    if name in MODELS:
        return _call(name, MODELS[name], seed, data, options or {})
    if function:
        found = _find(name, function["where"], function["name"], folder)
        if isinstance(found, Network) or not callable(found):
            return _network(name, found, seed, data)
        return _network(name, _call(name, found, seed, data, options or {}), seed, data)
    if options:
        raise ValueError(f"{name} takes no options: {', '.join(options)}; functions do")
    if ending == ".safetensors":
        return load(name)
    if ending == ".onnx":
        from ..interop import from_onnx

        return from_onnx(name)
    if ending == ".toml":
        raise ValueError(f"{name} is a job file, for chaos train and chaos simulate; here the name of a network is needed")
    if ending == ".py":
        raise ValueError(f"{name} is a Python file; name the function in it that makes the network, as {name}:build")
    if Path(name).is_dir():
        raise ValueError(
            f"{name} is a directory; to continue the run in it: chaos train --resume --run-dir {shlex.quote(name)}"
        )
    if ending in (".yaml", ".yml", ".json", ".cfg", ".ini"):
        raise ValueError(f"{name} is no job file: those are TOML, and end in .toml")
    with contextlib.suppress(DataError):
        kind(name)
        raise ValueError(f"{name} is data; name a network before it, as in: chaos train small --data {shlex.quote(name)}")
    raise ValueError(unknown("unknown model", name, MODELS, f", and {KINDS}"))


def open_model(path, best=False):
    """The network in a run directory or file, and the run's config (empty for a file). `best`: with the weights of the run's
    best epoch instead of its last."""
    file = weights_file(path, best)
    if Path(path).is_dir():
        return load(file), read_config(path)
    if path in MODELS:
        raise ValueError(f"{path} is a model without training; name a run directory or a .safetensors file")
    return build_model(path) if Path(path).suffix.lower() == ".onnx" else load(path), {}


def weights_file(path, best=False):
    """The file of the network in a run directory, or the file that `path` is."""
    if not Path(path).is_dir():
        if best:
            raise ValueError(f"--best is of a run directory, and {path} is none")
        return Path(path)
    inside = [run.parent.name for run in Path(path).glob(f"*/{MODEL}")] if not Path(path, MODEL).exists() else []
    if inside:
        newest = max(inside, key=lambda name: Path(path, name, MODEL).stat().st_mtime)
        raise ValueError(f"{path} holds {len(inside)} runs and is none; the newest is {Path(path, newest)}")
    if best and not Path(path, BEST).exists():
        raise ValueError(
            f"{path} keeps no best weights: nothing told the best epoch; train with --validation-split or --monitor"
        )
    return Path(path, BEST if best else MODEL)


def take_model(name):
    """The network in a run directory, or of `build_model`."""
    return open_model(name)[0] if Path(name).is_dir() else build_model(name)


def absolute(name, folder="."):
    """The name, which is found again from another directory where it is a file's."""
    if function := FUNCTION.fullmatch(name):
        where = function["where"]
        if not where.endswith(".py") and Path(folder, f"{where}.py").is_file():  # a module that is found there only
            where += ".py"
        return f"{Path(folder, where).absolute()}:{function['name']}" if where.endswith(".py") else name
    return str(Path(folder, name).absolute()) if Path(name).suffix.lower() in FILES else name


def stem(name):
    """What a run directory is called after."""
    function = FUNCTION.fullmatch(name)
    return Path(function["where"] if function else name).stem


def layers_of(texts):
    """The layers that ["Conv2d(20, 4)", "Tanh()", ...] describe: calls in Python's notation, of which nothing is executed.

    Raises
    ------
    ValueError
        Naming the layer by its place.
    """
    if not isinstance(texts, list):
        raise ValueError(f'layers must be a list such as ["Conv2d(20, 4)", "Tanh()"], not {texts!r}')
    return [_layer(number, text) for number, text in enumerate(texts, 1)]


def _layer(number, text):
    where = f"layer {number}"
    if not isinstance(text, str):
        raise ValueError(f'{where} must be a text such as "Conv2d(20, 4)", not {text!r}')
    where = f"{where}, {text!r}"
    try:
        call = ast.parse(text.strip(), mode="eval").body
        name, given = (call.func, call) if isinstance(call, ast.Call) else (call, None)
        if not isinstance(name, ast.Name):
            raise SyntaxError("it is no call")
        positional = [ast.literal_eval(one) for one in given.args] if given else []
        named = {one.arg: ast.literal_eval(one.value) for one in given.keywords} if given else {}
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "arguments are numbers, texts and tuples of them"
        raise ValueError(f"{where} is no layer such as Conv2d(20, 4): {reason}") from None
    known = [kind.__name__ for kind in LAYERS.values()]
    if name.id not in known:
        meant = nearest(name.id, known)
        raise ValueError(f"{where}: there is no layer {name.id}" + (f"; did you mean {meant}?" if meant else ""))
    try:
        return getattr(layers, name.id)(*positional, **named)
    except TypeError as error:
        raise ValueError(f"{where}: {str(error).replace('.__init__()', '')}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def list_network(texts, shape, seed, data):
    """The network of a list of texts, for images of `shape` or, where that is None, of those of the data."""
    made = layers_of(texts)
    return Network(_shape_of("the list of layers", data) if shape is None else shape, made, seed=seed)


# ---- functions ----


def _find(name, where, attribute, folder):
    """What a Python file or module calls `attribute`; the file is executed."""
    path = Path(folder, where) if where.endswith(".py") else None
    if path and not path.is_file():
        raise ValueError(f"{path}: no such file")
    with _importable(path.parent if path else Path(folder)), _telling(f"{name}: {where} cannot be loaded", path):
        if path:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            # as an import does: dataclasses and pickles look there
            before = sys.modules.get(path.stem)
            sys.modules[path.stem] = module
            try:
                spec.loader.exec_module(module)
            finally:
                if before is not None:
                    sys.modules[path.stem] = before
        else:
            module = importlib.import_module(where)
    if not hasattr(module, attribute):
        own = [one for one, value in vars(module).items() if callable(value) and not one.startswith("_")]
        raise ValueError(unknown(f"{where} has no", attribute, own))
    return getattr(module, attribute)


@contextlib.contextmanager
def _importable(folder):
    """Modules of a folder are found, as those beside a script are."""
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder.absolute()))


@contextlib.contextmanager
def _telling(what, path=None):
    """An exception of somebody's code becomes a ValueError with the line of it."""
    try:
        yield
    except Exception as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if not path or one.filename == str(path)]
        frames = [one for one in frames if not one.filename.startswith("<frozen ")]
        place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
        if isinstance(error, SyntaxError):
            place = f" (line {error.lineno})"
        raise ValueError(f"{what}: {type(error).__name__}: {error}{place}") from error


def _call(name, function, seed, data, options):
    """What a function makes of the arguments that it wants."""
    try:
        wanted = inspect.signature(function).parameters
    except (TypeError, ValueError):
        wanted = {}
    named = {key: one for key, one in wanted.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    if not any(one.kind is one.VAR_KEYWORD for one in wanted.values()):
        for key in options:
            if key not in named:
                raise ValueError(unknown(f"{name} takes no option", key, named))
    given = dict(options)
    if "seed" in named:
        given.setdefault("seed", seed)
    for key, one in named.items():
        if key in given or one.default is not one.empty:
            continue
        if key not in (*SHAPES, *CLASSES):
            raise ValueError(
                f"{name} wants {key!r}, which is none of {', '.join((*SHAPES, *CLASSES, 'seed'))}; give it a "
                "default, or a value among the options of [network] in a job file"
            )
        shape, classes = _about(name, data)
        given[key] = shape if key in SHAPES else classes
    if function in MODELS.values():
        return function(**given)
    code = getattr(function, "__code__", None)
    with _telling(f"{name} failed", Path(code.co_filename) if code else None):
        return function(**given)


def _network(name, found, seed, data):
    """The network that a function has made, or of the layers or the module."""
    if isinstance(found, Network):
        return found
    if isinstance(found, (list, tuple)) and found and all(isinstance(one, layers.base.Layer) for one in found):
        return Network(_shape_of(name, data), found, seed=seed)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(found, torch.nn.Module):
        from ..interop import from_torch

        return from_torch(found, _shape_of(name, data), seed=seed)
    raise ValueError(
        f"{name} must be, or give, a chaos.Network, a list of layers or a torch.nn.Module, not {type(found).__name__}"
    )


def _about(name, data):
    if data is None:
        raise ValueError(f"{name} depends on the shape of the data, which chaos train knows, and a run directory after it")
    return data()


def _shape_of(name, data):
    return _about(name, data)[0]
