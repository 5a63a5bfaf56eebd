"""The command line's options about settings, made from what chaos.training and this file state about each. For `chaos train`
and `chaos simulate`."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap

from ..augment import describe
from ..options import naming_owners, unknown
from ..training import Settings
from ..training.metrics import NAMES as METRIC_NAMES
from ..training.settings import (
    ABOUT,
    KEPT,
    Flag,
    Measures,
    Name,
    Number,
    OptionsOf,
    Setting,
    Steps,
    modern,
    setting,
    settings_of,
)
from .common import columns
from .given import DATA, DATA_HELP

LISTED = "may be repeated; help lists them"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What a run is trained on, as the command line knows it."""

    data: str = setting("auto", Setting(text=DATA_HELP, unit=DATA, role="kept"))
    validation_data: str | None = setting(
        None,
        Setting(
            text="a validation set, measured after every epoch: a file or folder that holds one set",
            unit="FILE|FOLDER",
            role="kept",
            shown="none; --validation-split holds one out",
        ),
    )
    label: str | None = setting(
        None,
        Setting(
            text="the column of a table that holds the labels",
            unit="COLUMN",
            role="kept",
            shown="the one named label, labels, class, target or y",
        ),
    )
    sample_weight: str | None = setting(
        None,
        Setting(
            text="what the loss of each training image is multiplied with: a .npy file of one number for each",
            unit="FILE.npy",
            role="kept",
            shown="1",
        ),
    )
    normalise: bool = setting(
        False,
        Flag(
            text="begin the network with a layer that brings each channel of the training images to mean 0 and deviation 1, "
            "kept and exported with the network",
            role="kept",
        ),
    )
    subset: int | None = setting(
        None, Number(text="only the first N training images", unit="N", role="kept", shown="all", least=1, whole=True)
    )


DATA_ABOUT = settings_of(DataSettings)
REMEMBERED = (*DATA_ABOUT, *KEPT)  # a run that is continued takes from its config.json what is not given


def add_setting(group, name, names=None, choices=None, **changed):
    """Adds the option of a setting, for which argparse knows no default, so that it can be told whether one was given.

    Parameters
    ----------
    group : argparse group
    name : str
        Of a field of Settings or DataSettings.
    names, choices : sequence of str, optional
        The names that the help shows, and those that are taken, where they are not those of the setting.
    **changed
        Fields of the `Setting` that are different in this command.
    """
    owner = DataSettings if name in DATA_ABOUT else Settings
    about = dataclasses.replace((DATA_ABOUT | ABOUT)[name], **changed)
    flag, default = f"--{name.replace('_', '-')}", getattr(owner, name)
    if isinstance(about, Flag) and about.role == "call":
        # of this call only: nothing that a continued run could have had otherwise
        if about.opposite:
            group.add_argument(f"--{about.opposite}", action="store_false", default=None, dest=name, help=about.text)
        else:
            group.add_argument(flag, action="store_true", default=None, help=about.text)
        return
    options = {"metavar": about.unit}
    if isinstance(about, Flag):
        options = {"action": argparse.BooleanOptionalAction}
        default = "yes" if default else "no"
    elif isinstance(about, Number):
        options["type"] = int if about.whole else float
        default = default if default is None else f"{default:g}"
    elif isinstance(about, OptionsOf):
        options = {"metavar": "KEY=VALUE", "action": "append", "dest": name}
        group.add_argument(flag.removesuffix("s"), help=f"{about.text}; {LISTED}", **options)
        return
    elif isinstance(about, Steps):
        group.add_argument(flag, help=f"{about.text}; {LISTED}", metavar=about.unit, action="append")
        return
    elif isinstance(about, Name):
        names, choices = names or about.offered, None if about.more else choices or about.offered
    else:
        options["type"] = about.parse
        names = METRIC_NAMES if isinstance(about, Measures) else names
    text = about.text.replace("{names}", ", ".join(names or ()))
    group.add_argument(flag, help=f"{text} (default: {about.shown or default})", choices=choices, **options)


def add_short_option(group, name, text, of="update_options"):
    """Adds --NAME X, short for an option of something."""
    flag = name.replace("_", "-")
    whole = f"--{of.removesuffix('s').replace('_', '-')} {flag}=X"
    group.add_argument(
        f"--{flag}", metavar="X", action="append", dest=of, type=f"{flag}={{}}".format, help=f"{text}; short for {whole}"
    )


def in_group(title, without=()):
    """The names of the settings of a part of the help, in their order."""
    names = [name for name, about in ABOUT.items() if about.group == title and name not in without]
    return sorted(names, key=lambda name: ABOUT[name].line)


def settings_from(arguments, earlier, job=None):
    """(Settings, DataSettings): what was given, else what the job file says, by the settings' names, else what the earlier
    run had, else the defaults."""
    earlier = _over(modern({**earlier, "workers": earlier.get("requested_workers")}), job or {})
    every = DATA_ABOUT | ABOUT
    given = {name: getattr(arguments, name) for name in every if getattr(arguments, name, None) is not None}
    found = {name: earlier[name] for name in REMEMBERED if name in earlier} | given
    for options in KEPT:
        about = ABOUT[options]
        if not isinstance(about, OptionsOf):
            continue
        name = found.get(about.owner, getattr(Settings, about.owner))
        if options in given:
            kept = earlier.get(options, {}) if name == earlier.get(about.owner, getattr(Settings, about.owner)) else {}
            found[options] = kept | parse_options(about.table, name, given[options], f"--{about.owner.replace('_', '-')} ")
        elif options not in found or (about.owner in given and name != earlier.get(about.owner)):
            found[options] = {}  # those of the earlier run are another's
    if "help" in given.get("augment", ()):
        _show(describe())
    # what is needed before the training checks the rest
    needed = {name: getattr(DataSettings, name) for name in ("subset", "normalise")}
    for name, unset in (needed | {"seed": Settings.seed, "loss": Settings.loss}).items():
        if found.get(name, unset) is not unset:
            found[name] = every[name].check(name, found[name])
    data = DataSettings(**{name: found[name] for name in DATA_ABOUT if name in found})
    return Settings.among(found), data


def _over(earlier, job):
    """Settings of an earlier run with those of a job file over them; options of what has another name now are gone."""
    found = earlier | job
    for name, about in ABOUT.items():
        if isinstance(about, OptionsOf) and about.owner in job and name in earlier:
            kept = earlier[name] if job[about.owner] == earlier.get(about.owner) else {}
            found[name] = kept | job.get(name, {})
    return found


def parse_options(table, name, pairs, others=""):
    """The options of table[name] in ["name=value", ...]; where one is the word help, shows all instead, and ends. `others`
    and a name ask for another one of the table, which is said where that has an option that this one has not."""
    if name not in table:  # in a config.json of another version
        raise ValueError(unknown("unknown name", name, table))
    owner = table[name]
    if "help" not in pairs:
        with naming_owners(others, table):
            return owner.parse(pairs)
    return _show(owner.describe())


def _show(lines):
    """Prints them, and ends."""
    for line in lines:
        print(textwrap.fill(line, columns() - 1, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False))
    raise SystemExit(0)
