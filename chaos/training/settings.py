"""The settings of a training, each stated once: name, default, meaning, unit, check, and what it is to a run that is
continued. `chaos.train`, the command line, config.json, replay, simulation and the cluster room take theirs from here.
For chaos.training and the rooms above."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from ..augment import resolve
from ..formats.json_text import parse_json
from ..losses import LOSSES
from ..options import Worded, check_flag, check_number, naming_owners, unknown
from ..precision import FLOAT32, PRECISIONS
from ..sync import STRATEGIES
from ..threads import PINNINGS
from ..updates import SCHEDULES, UPDATES
from . import metrics
from .monitor import MODES

Group = Literal["training", "workers", "cluster", "run"]
Role = Literal["identity", "kept", "call"]
PLANS = ("off", "auto")
DECIDED = {"workers", "group", "period"}  # by a plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known about one setting beside its name and its default.

    Parameters
    ----------
    text : str
        What it is, for the command line's help; "{names}" stands for the names that it may have.
    unit : str, optional
        What stands for a value in the help.
    group : str
        The part of the help to which it belongs.
    line : int
        The help is sorted by it, within its part.
    role : str
        "identity": has to be the same where a run is continued. "kept": is in config.json, and taken from there where a run
        is continued and nothing else is asked for. "call": of one call only.
    shown : str, optional
        What the help says about the default, where that is not the default itself.
    later : bool
        Runs that an earlier version has kept may lack it; they had the default.
    measures : bool
        It says what is measured, and changes nothing about how an epoch trains.
    """

    text: str
    unit: str | None = None
    group: Group = "training"
    line: int = 0
    role: Role = "identity"
    shown: str | None = None
    later: bool = False
    measures: bool = False

    def parse(self, text: str) -> Any:
        """What a command line means by `text`; `check` looks at it later."""
        return text

    def check(self, name: str, value: Any) -> Any:
        """The value in its own type; ValueError where it makes no sense. Without a check of its own a setting is checked
        where it is used: only there it is known what the machine, the file system or the cluster allows."""
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Setting):
    """A number; the bounds are those of `chaos.options.check_number`. Without `least` it is checked where it is used.
    `optional`: or None."""

    least: float | None = None
    most: float = float("inf")
    whole: bool = False
    above: bool = False
    optional: bool = False

    def check(self, name: str, value: Any) -> Any:
        if self.least is None or (self.optional and value is None):
            return value
        check_number(name, value, self.least, self.most, whole=self.whole, above=self.above)
        return int(value) if self.whole else float(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag(Setting):
    """Yes or no. `opposite` is what the command line calls the opposite, where it asks for that."""

    opposite: str | None = None

    def check(self, name: str, value: Any) -> bool:
        return check_flag(name, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Name(Setting):
    """A name out of a table. `hidden` are names that the command line does not offer; `what` is used in messages;
    `more`: the table, which then checks names itself, knows further ones than it lists."""

    table: Iterable[str]
    what: str
    hidden: tuple[str, ...] = ()
    more: bool = False

    @property
    def offered(self) -> tuple[str, ...]:
        return tuple(name for name in self.table if name not in self.hidden)

    def check(self, name: str, value: Any) -> str:
        if self.more:
            table: Any = self.table
            return str(table.check(value))
        if hasattr(value, "param_groups"):
            raise ValueError(f"{name} is a name: **chaos.interop.settings_from_torch(optimizer) gives all arguments for it")
        if not isinstance(value, str) or value not in self.table:
            raise ValueError(unknown(f"unknown {self.what}", value, self.offered))
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key(Setting):
    """The key of a record's number, or None; which there are is known to the job."""

    def check(self, name: str, value: Any) -> str | None:
        if value is not None and (not isinstance(value, str) or not value):
            raise ValueError(f"{name} must be the name of a number in the records, such as 'validation_loss', not {value!r}")
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures(Setting):
    """What is measured on the images of evaluations: names and functions, see `chaos.training.metrics`."""

    def parse(self, text: str) -> list[str]:
        return [part.strip() for part in text.split(",")]

    def check(self, name: str, value: Any) -> list[Any]:
        metrics.resolve(value)
        return list(value or ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassWeights(Setting):
    """A weight for each class: "balanced", or numbers by class."""

    def parse(self, text: str) -> Any:
        if "=" not in text:
            return text
        pairs = [part.partition("=") for part in text.split(",")]
        return {key.strip(): _number_or_text(number) for key, _, number in pairs}

    def check(self, name: str, value: Any) -> str | dict[str, float] | None:
        """None, "balanced", or {"class": weight}, which JSON knows too."""
        if value is None or (isinstance(value, str) and value == "balanced"):
            return value
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            value = dict(enumerate(value))
        if not isinstance(value, Mapping) or not value:
            raise ValueError(f'{name} must be "balanced", a dict {{class: weight}} or a list of weights, not {value!r}')
        found = {}
        for key, number in value.items():
            text = str(key) if isinstance(key, (int, np.integer, str)) and not isinstance(key, bool) else ""
            if not text.isascii() or not text.isdigit():
                raise ValueError(f"{name}: {key!r} is no class; classes are whole numbers from 0 on")
            check_number(f"{name} of class {text}", number, 0)
            found[str(int(text))] = float(number)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionsOf(Setting):
    """Options, by name, of what the setting `owner` names in `table` (None: a table that is not known here)."""

    owner: str
    table: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned(Setting):
    """Who decides about workers and cadence: "off", "auto", or a list of decisions; a command line reads them from a run."""

    def parse(self, text: str) -> Any:
        if text in PLANS:
            return text
        try:
            with open(os.path.join(text, "metrics.jsonl"), encoding="utf-8") as file:
                found = [parse_json(line.encode()).get("plan") for line in file]
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither {' nor '.join(PLANS)} nor a run's directory: {error}"
            ) from None
        if not found or None in found:
            raise argparse.ArgumentTypeError(f"the run in {text} had no plan")
        return found

    def check(self, name: str, value: Any) -> str | list[dict[str, Any]]:
        if isinstance(value, str) and value in PLANS:
            return value
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f"{name} must be one of {', '.join(PLANS)}, or a list of decisions, not {value!r}")
        for number, one in enumerate(value):
            if not isinstance(one, Mapping) or "workers" not in one:
                raise ValueError(f"{name}: decision {number} must be a dict with workers, not {one!r}")
            for key in DECIDED & one.keys():
                check_number(f"{name}: {key} of decision {number}", one[key], 1, 1 << 30, whole=True)
        return [dict(one) for one in value]


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # which the check shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps(Setting):
    """Steps of augmentation, as `chaos.augment.steps` takes them; in files a list of objects."""

    def check(self, name: str, value: Any) -> list[dict[str, Any]] | None:
        return resolve(value)


def setting(default: Any, about: Setting) -> Any:
    """A field of a dataclass of settings."""
    return dataclasses.field(default=default, metadata={"setting": about})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a training, as they were asked for; `resolved` checks them. The docstring of `chaos.train` explains
    them at length. The order is that of config.json."""

    strategy: str = setting(
        "chaos",
        Name(
            text="when updates meet the shared weights: {names}",
            unit="NAME",
            group="workers",
            table=STRATEGIES,
            what="strategy",
        ),
    )
    strategy_options: Mapping[str, Any] | None = setting(
        None, OptionsOf(text="an option of the strategy", group="workers", owner="strategy", table=STRATEGIES)
    )
    update: str = setting(
        "sgd", Name(text="the update rule: {names}", line=1, unit="NAME", table=UPDATES, what="update rule")
    )
    update_options: Mapping[str, Any] | None = setting(
        None, OptionsOf(text="an option of the update rule", line=1, owner="update", table=UPDATES)
    )
    lr: float = setting(1e-3, Number(text="learning rate of the first epoch", unit="RATE", least=0, above=True))
    lr_decay: float = setting(
        0.9, Number(text="factor of the learning rate from epoch to epoch", unit="FACTOR", least=0, above=True)
    )
    lr_schedule: str = setting(
        "exponential",
        Name(
            text="how it goes from epoch to epoch: {names}",
            unit="NAME",
            table=SCHEDULES,
            what="learning-rate schedule",
            later=True,
        ),
    )
    schedule_options: Mapping[str, Any] | None = setting(
        None,
        OptionsOf(
            text="an option of the schedule, such as warmup=3 (epochs)", owner="lr_schedule", table=SCHEDULES, later=True
        ),
    )
    batch_size: int = setting(1, Number(text="images per update of one worker", unit="N", least=1, most=1 << 24, whole=True))
    accumulate: int = setting(
        1,
        Number(
            text="batches whose gradients are added up for one update",
            unit="N",
            least=1,
            most=1 << 24,
            whole=True,
            later=True,
        ),
    )
    class_weight: Any = setting(
        None,
        ClassWeights(
            text="what the loss of each class is multiplied with in training: balanced, or CLASS=WEIGHT,...",
            line=1,
            unit="WEIGHTS",
            shown="1 for all",
            later=True,
        ),
    )
    loss: str = setting(
        "cross_entropy",
        Name(
            text="one of {names}, or a sum for several outputs, as in 'cross_entropy + 0.3*mse'",
            line=1,
            unit="NAME",
            table=LOSSES,
            what="loss",
            hidden=tuple(name for name, loss in LOSSES.items() if loss.proves),
            more=True,
        ),
    )
    loss_options: Mapping[str, Any] | None = setting(
        None, OptionsOf(text="an option of the loss", line=1, owner="loss", table=LOSSES, later=True)
    )
    precision: str = setting(
        FLOAT32,
        Name(
            text="what layers multiply: {names} (rounded, where that is faster; needs a processor with AMX)",
            line=2,
            unit="PRECISION",
            table=PRECISIONS,
            what="precision",
            later=True,
        ),
    )
    augment: Any = setting(
        None,
        Steps(
            text="changes the images of the training at random, such as shift:2, flip or elastic:34,4",
            line=3,
            unit="STEP",
            later=True,
        ),
    )
    shuffle: bool = setting(True, Flag(text="a new order of images every epoch", line=3))
    validation_split: float = setting(
        0.0,
        Number(
            text="share of the training images that is held out as the validation set",
            line=3,
            unit="SHARE",
            least=0,
            most=0.999,
            later=True,
        ),
    )
    evaluate_train: bool = setting(
        False,
        Flag(
            text="also measure the training images after every epoch, as the paper does", line=3, later=True, measures=True
        ),
    )
    monitor: str | None = setting(
        None,
        Key(
            text="what the best epoch is told by, such as validation_loss or test_error",
            line=4,
            unit="KEY",
            shown="validation_loss where there is a validation set",
            later=True,
            measures=True,
        ),
    )
    monitor_mode: str = setting(
        "auto",
        Name(
            text="whether the smallest (min) or the largest (max) is the best: {names}",
            line=4,
            unit="MODE",
            table=MODES,
            what="monitor_mode",
            later=True,
            measures=True,
        ),
    )
    min_delta: float = setting(
        0.0,
        Number(text="a change that is less is none for --patience", line=4, unit="X", least=0, later=True, measures=True),
    )
    patience: int | None = setting(
        None,
        Number(
            text="epochs without a better value of the monitored number after which the training ends",
            line=4,
            unit="N",
            role="kept",
            shown="it never ends early",
            least=1,
            most=1 << 31,
            whole=True,
            optional=True,
        ),
    )
    restore_best: bool = setting(
        False, Flag(text="in the end the network gets the weights of its best epoch", line=4, role="kept")
    )
    metrics: Any = setting(
        (),
        Measures(
            text="measured after every epoch on the validation and test images: {names}",
            line=5,
            unit="NAME,...",
            role="kept",
            shown="none beside loss and error",
        ),
    )
    seed: int = setting(
        0, Number(text="of the initial weights and of the order of images", line=2, unit="N", least=0, whole=True)
    )
    epochs: int = setting(
        10,
        Number(
            text="passes over the training images, those of a resumed run included",
            line=-1,
            unit="N",
            role="kept",
            least=0,
            most=1 << 31,
            whole=True,
        ),
    )
    workers: int | None = setting(
        None,
        Number(
            text="threads that train",
            line=-1,
            unit="N",
            group="workers",
            role="kept",
            shown="CHAOS_NUM_THREADS, else one per available core",
            whole=True,
        ),
    )
    pin: str = setting(
        "none",
        Name(
            text="where each worker stays: {names} (Linux)",
            unit="HOW",
            group="workers",
            role="kept",
            table=PINNINGS,
            what="pin",
        ),
    )
    plan: Any = setting(
        "off",
        Planned(
            text="auto: measure how many workers, and how often they exchange weights, are fastest; off: all, as the "
            "strategy says; a run's directory: decide as that run did",
            unit="WHO",
            group="workers",
            role="kept",
        ),
    )
    cluster: str | None = setting(
        None,
        Setting(
            text="how the processes of a launcher keep their weights together: {names}; none: each trains alone",
            unit="MODE",
            group="cluster",
            role="call",
            shown="local if a launcher has started several",
        ),
    )
    cluster_options: Mapping[str, Any] | None = setting(
        None, OptionsOf(text="an option of the mode", group="cluster", role="call", owner="cluster", table=None)
    )
    stall_timeout: float = setting(
        300.0,
        Number(
            text="a process that neither answers nor moves on ends the job after so long; 0: never",
            unit="SECONDS",
            group="cluster",
            role="call",
            least=0,
        ),
    )
    rank_details: bool = setting(False, Flag(text="metrics.jsonl tells about every process", group="cluster", role="call"))
    run_dir: str | os.PathLike[str] | None = setting(
        None, Setting(text="where the run is kept", unit="DIR", group="run", role="call", shown="runs/<model>-<time in UTC>")
    )
    resume: bool = setting(
        False, Flag(text="continue the run in --run-dir; starts it if there is none", group="run", role="call")
    )
    checkpoint_every: float = setting(
        60.0,
        Number(
            text="the state is also kept when so much time has passed within an epoch; 0: after epochs only",
            unit="SECONDS",
            group="run",
            role="kept",
            least=0,
        ),
    )
    keep_checkpoints: int = setting(
        1,
        Number(
            text="of how many of the latest epochs the states are kept; 1: model.safetensors alone",
            unit="N",
            group="run",
            role="kept",
            least=1,
            most=1 << 20,
            whole=True,
        ),
    )
    on_diverge: str = setting(
        "stop",
        Name(
            text="what to do when the loss is not finite: {names} (to the last good state, with half the learning rate)",
            unit="HOW",
            group="run",
            role="kept",
            table=("stop", "rollback"),
            what="on_diverge",
        ),
    )
    progress: bool = setting(True, Flag(text="no progress, only the summary", group="run", role="call", opposite="quiet"))

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Settings:
        """Of all `values` those that are settings."""
        return cls(**{name: values[name] for name in ABOUT if name in values})

    def resolved(self) -> Settings:
        """All in their own types, options with their defaults; ValueError where a value makes no sense, or two do not go
        together. Checked where they are used: `workers`, `run_dir`, `cluster` and its options."""
        values = {name: about.check(name, getattr(self, name)) for name, about in ABOUT.items()}
        for name, about in ABOUT.items():
            if isinstance(about, OptionsOf) and about.table is not None:
                with naming_owners(f"{about.owner}=", about.table):
                    values[name] = about.table[values[about.owner]].resolve(values[name] or {})
        found = Settings(**values)
        if found.plan != "off" and found.strategy == "chaos" and not self.strategy_options:
            # of which chaos is the case of one group
            options = STRATEGIES["domains"].resolve({"group": "none", "stripe_bytes": "auto"})
            found = dataclasses.replace(found, strategy="domains", strategy_options=options)
        strategy: Any = STRATEGIES[found.strategy]
        strategy.check(found.strategy_options, found.update, found.update_options)
        schedule: Any = SCHEDULES[found.lr_schedule]
        schedule.settle(found.schedule_options, found.epochs)  # which checks
        return found

    @property
    def images_per_update(self) -> int:
        """The size of a step: `accumulate` batches."""
        return self.batch_size * self.accumulate

    def words(self) -> list[str]:
        """The strategy's options that are words for numbers which are found out when a training begins."""
        known: Any = STRATEGIES[self.strategy].known if self.strategy in STRATEGIES else {}
        given = self.strategy_options or {}
        return [name for name, option in known.items() if isinstance(option, Worded) and isinstance(given.get(name), str)]

    def identity(self) -> dict[str, Any]:
        """What has to agree for a run to be continued."""
        return {name: getattr(self, name) for name in IDENTITY}


def settings_of(cls: type) -> dict[str, Setting]:
    """What is known about the fields of `Settings`, or of another dataclass of settings, by name."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(cls)}


ABOUT = settings_of(Settings)
IDENTITY = tuple(name for name, about in ABOUT.items() if about.role == "identity")
KEPT = tuple(name for name, about in ABOUT.items() if about.role != "call")
TRAINS = tuple(name for name in IDENTITY if not ABOUT[name].measures)  # what an epoch's training depends on
_RENAMED = {"validate": "evaluate_train"}  # what earlier versions called it


def modern(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version may have kept, by the names of today."""
    return {_RENAMED.get(name, name): value for name, value in kept.items()}


def completed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that perhaps an earlier version has kept: what that version did not know had its default then.
    ValueError where options are none."""
    found = {name: getattr(Settings, name) for name in IDENTITY if ABOUT[name].later} | modern(identity)
    for name in IDENTITY:
        about = ABOUT[name]
        if not isinstance(about, OptionsOf):
            continue
        owner, options = found.get(about.owner), found.get(name) or {}
        if not isinstance(options, dict) or not isinstance(owner, (str, type(None))):
            raise ValueError(f"{about.owner} and {name} must be a name and an object, not {owner!r} and {options!r}")
        if about.table is not None and owner is not None and owner in about.table:
            found[name] = about.table[owner].resolve({}) | options
    return found


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is another in two identities, in words; options one by one."""
    found = []
    for key, value in now.items():
        before, about = there.get(key), ABOUT.get(key)
        if before == value:
            continue
        if key in _LARGE:
            found.append(_LARGE[key])
        elif isinstance(about, OptionsOf) and isinstance(before, dict):
            if there.get(about.owner) == now[about.owner]:  # else they are another's, which is said already
                found += [
                    f"{key} {name} ({before.get(name)!r} there, {value.get(name)!r} now)"
                    for name in dict.fromkeys([*before, *value])
                    if before.get(name) != value.get(name)
                ]
        else:
            found.append(f"{key} ({before!r} there, {value!r} now)")
    return found


# of an identity, but not shown: layers, fingerprints
_LARGE = {
    "network": "network",
    "train": "train (other training images)",
    "validation": "validation (other validation images)",
    "test": "test (other test images)",
}
