"""Job files: what `chaos train` is asked for, as TOML. For the files of this folder.

What may stand in one is stated in chaos.training.settings and options.py, where the command line has it from, too."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ChaosError
from ..formats.atomic import write_atomically
from ..formats.toml_text import to_toml
from ..hints import TRAINING, nearest
from ..training import ABOUT, Settings
from ..training.settings import OptionsOf, Setting
from .given import read_config
from .networks import FUNCTION, absolute, build_model, list_network
from .options import DATA_ABOUT

JOB = "job.toml"
ENDING = ".toml"
EVERY = DATA_ABOUT | ABOUT
# what stands for a setting's own name in the table of that name
SHORT = {"name": "{}", "options": "{}_options"}
TITLES = {"workers": "strategy"}  # groups of settings that have another name here
NETWORK = ("name", "options", "input", "layers")


def tables() -> dict[str, list[str]]:
    """The tables of a job file beside [network], each with the settings that stand in it."""
    found: dict[str, list[str]] = {"data": list(DATA_ABOUT)}
    for name, about in ABOUT.items():
        found.setdefault(TITLES.get(about.group, about.group), []).append(name)
    return found


@dataclasses.dataclass
class JobFile:
    """A job file that has been read and checked.

    Attributes
    ----------
    path : Path
        Paths in the file are relative to its folder.
    network : dict
        What [network] says: name and options, or layers and input; empty where the file says nothing.
    values : dict
        Settings by their names in chaos.training.settings and options.py; options as dicts.
    """

    path: Path
    network: dict[str, Any]
    values: dict[str, Any]

    @property
    def model(self) -> str:
        """What the network is called."""
        return str(self.network.get("name", self.path.absolute()))

    def build(self, seed: int, data: Any) -> Any:
        """The network; as `build_model`."""
        try:
            if "layers" in self.network:
                return list_network(self.network["layers"], self.network.get("input"), seed, data)
            return build_model(self.network["name"], seed, data, self.network.get("options"), self.path.parent)
        except (ChaosError, OSError):
            raise
        except ValueError as error:
            raise ValueError(f"{self.path}: [network]: {error}") from error


def read_job(path: str) -> JobFile:
    """Reads a job file.

    Raises
    ------
    ValueError
        Naming the file and the key: damaged, a key that there is not (with the nearest), a value that makes no sense.
    OSError
        It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no TOML: {error}") from None
    try:
        return _taken(Path(path), found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _taken(path: Path, found: Mapping[str, Any]) -> JobFile:
    there, values = tables(), {}
    network: Any = found.get("network", {})
    for key, value in found.items():
        if key == "network":
            continue
        if key in there and isinstance(value, dict):
            for inner, one in value.items():
                _put(values, _setting(key, inner), one)
        elif key in EVERY:
            _put(values, key, value)
        else:
            raise ValueError(_unknown(key, ["network", *there, *EVERY]))
    _check(values)
    for key in ("data", "validation_data", "sample_weight", "run_dir"):
        if key in values and (key == "run_dir" or (path.parent / values[key]).exists()):
            values[key] = str(path.parent / values[key])
    return JobFile(path, _network({"name": network} if isinstance(network, str) else network, path.parent), values)


def _setting(table: str, key: str) -> str:
    """The setting that a key in a table means."""
    there = tables()[table]
    name = SHORT[key].format(table) if key in SHORT else key
    if name in there:
        return name
    if key in EVERY:
        right = next(title for title, names in tables().items() if key in names)
        raise ValueError(f"{key} belongs in [{right}], not in [{table}]")
    raise ValueError(
        _unknown(key, [*there, *(short for short, full in SHORT.items() if full.format(table) in there)], table)
    )


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    if name in values:
        raise ValueError(f"{name} is given twice")
    values[name] = value


def _unknown(key: str, known: list[str], table: str = "") -> str:
    where = f" in [{table}]" if table else ""
    meant = "network" if key == "model" and not table else TRAINING.get(key.replace("-", "_"))
    if meant not in EVERY and meant not in known:
        meant = nearest(key, known) or nearest(key, EVERY)
    if meant in known:
        return f"there is no {key!r}{where}; did you mean {meant}?"
    title = next((title for title, names in tables().items() if meant in names), None)
    hint = f"did you mean {meant} in [{title}]?" if title else f"known: {', '.join(dict.fromkeys(known))}"
    return f"there is no {key!r}{where}; {hint}"


def _check(values: Mapping[str, Any]) -> None:
    """ValueError where a value makes no sense, alone or beside the others."""
    for name, value in values.items():
        about = EVERY[name]
        if type(about) is Setting and not isinstance(value, str):
            raise ValueError(f"{name} must be a text, not {value!r}")
        if isinstance(about, OptionsOf) and not isinstance(value, dict):
            raise ValueError(f"{name} must be a table such as {{ name = value }}, not {value!r}")
        about.check(name, value)
    Settings.among(values).resolved()


def _network(given: Any, folder: Path) -> dict[str, Any]:
    """[network], checked as far as that goes without making it; paths made absolute."""
    if not isinstance(given, dict):
        raise ValueError(f"network must be a name or a table, not {given!r}")
    for key in given:
        if key not in NETWORK:
            raise ValueError(_unknown(key, list(NETWORK), "network"))
    if given and ("name" in given) == ("layers" in given):
        raise ValueError("[network] needs either name or layers")
    alone = {"input": "layers", "options": "name"}
    for key, other in alone.items():
        if key in given and other not in given:
            raise ValueError(f"{key} in [network] goes with {other}")
    if "name" not in given:
        return dict(given)
    name = given["name"]
    if not isinstance(name, str):
        raise ValueError(f"the network's name must be a text, not {name!r}")
    if not isinstance(given.get("options", {}), dict):
        raise ValueError(f"the network's options must be a table, not {given['options']!r}")
    return given | {"name": absolute(name, folder) if FUNCTION.fullmatch(name) or (folder / name).exists() else name}


class Kept:
    """A callback that writes what a run was asked for, every value of it, into the run directory as a job file."""

    def __init__(self, folder: Path, network: Mapping[str, Any], again: str) -> None:
        self.folder, self.network, self.again = folder, network, again

    def train_begin(self, event: Any) -> None:
        """The directory is this run's, and its config.json there."""
        known = dataclasses.asdict(event.settings) | read_config(self.folder)
        found: dict[str, dict[str, Any]] = {"network": dict(self.network)}
        for title, names in tables().items():
            if title != "cluster" or known.get("cluster"):
                kept = [name for name in names if title == "cluster" or EVERY[name].role != "call"]
                found[title] = {_written(title, name): known.get(name) for name in kept}
        text = f"# What this run was asked for, every value of it. Once more: {self.again}\n\n{to_toml(found)}"
        write_atomically(self.folder / JOB, text.encode("utf-8", "backslashreplace"))


def _written(title: str, name: str) -> str:
    return next((short for short, full in SHORT.items() if full.format(title) == name), name)
