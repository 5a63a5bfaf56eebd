"""What the commands have in common: parser, help, models and data by name. For the files of this folder."""

import argparse
import contextlib
import functools
import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np

from .. import data
from ..errors import CheckpointError, DataError, DataNotFound, DivergedError
from ..formats.json_text import parse_json
from ..options import nearest, unknown
from ..training import CONFIG
from ..training.phases import with_weights
from ..training.settings import ABOUT, KEPT, Flag, Name, OptionsOf
from ..training.streams import is_terminal, tell

DATA = "auto|NAME|FILE|FOLDER"
DATA_HELP = (
    f"data set: {', '.join(data.NAMES)}, or a path ({data.FILES}); auto: mnist or, where it cannot be had, the small digits "
    "that come with chaos"
)
# what config.json holds as text and as objects
NAMES = {"model", "data", "cluster", *(name for name in KEPT if isinstance(ABOUT[name], Name))}
FLAGS = {name for name in KEPT if isinstance(ABOUT[name], Flag)}
TABLES = {"virtual", *(name for name, about in ABOUT.items() if isinstance(about, OptionsOf))}


class Help(argparse.HelpFormatter):
    """Wraps paragraphs to the terminal (COLUMNS); lines that begin with two spaces are shell commands."""

    def __init__(self, prog, **options):
        options.setdefault("width", min(columns() - 2, 98))
        super().__init__(prog, **options)

    def _format_usage(self, *arguments):
        text = super()._format_usage(*arguments).strip()
        return textwrap.fill(text, self._width, subsequent_indent=" " * 7, break_on_hyphens=False) + "\n\n"

    def _fill_text(self, text, width, indent):
        blocks = []
        for block in text.strip("\n").split("\n\n"):
            if block.startswith("  "):
                for line in block.splitlines():
                    line = re.sub(r"(--\S+) (?!-)", "\\1\0", line.strip())  # options stay with their values
                    parts = textwrap.wrap(line, width - 8, break_long_words=False, break_on_hyphens=False)
                    blocks.append("  " + " \\\n      ".join(parts).replace("\0", " ") + "\n")
            else:
                blocks.append(textwrap.fill(block, width) + "\n\n")
        return "".join(blocks)


class Parser(argparse.ArgumentParser):
    """Full option names only, errors in one line."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=Help, **options)

    def error(self, message):
        complain(f"{message} (try '{self.prog} --help')")
        raise SystemExit(2)

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            what = "unknown command" if isinstance(action.choices, dict) else "there is no"
            raise argparse.ArgumentError(action, unknown(what, value, action.choices))

    def refuse_unknown(self, left):
        """Ends with an error about arguments that nobody takes, with the option that may be meant."""
        option = next((word.partition("=")[0] for word in left if word.startswith("-")), None)
        if option is None:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        there = {text.lstrip("-"): text for action in self._actions for text in action.option_strings}
        meant = nearest(option.lstrip("-"), there)
        self.error(f"there is no option {option}" + (f"; did you mean {there[meant]}?" if meant else ""))

    def refuse_empty(self, arguments):
        """Ends with an error where an argument is "", as of a shell's variable that is not set: as a path, it would be the
        current directory."""
        for action in self._actions:
            value = getattr(arguments, action.dest, None)
            if value == "" or (isinstance(value, list) and "" in value):
                name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
                self.error(f'argument {name}: a value is needed, not ""')


def columns():
    """Width of the terminal; not less than what makes sense to fill."""
    return max(shutil.get_terminal_size().columns, 30)


def add_command(commands, name, run, *, usage, description, examples, **options):
    """The parser of one command; `usage` is what follows the command's name, `help` what the list of commands says."""
    text = f"{description}\n\nexamples:\n\n" + "\n".join(f"  {example}" for example in examples)
    parser = commands.add_parser(name, usage=f"%(prog)s {usage}", description=text, **options)
    # SUPPRESS, or its default would undo a --debug before the command.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    parser.set_defaults(run=run, parser=parser)
    return parser


def declare_best(parser):
    """The option about which weights of a run are taken."""
    parser.add_argument("--best", action="store_true", help="the weights of the run's best epoch, not of its last")


def declare_jobs(parser):
    """The option about threads that run events."""
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        default=1,
        help="threads that run the events: changes no bit, pays for larger networks where cores are free (default: 1)",
    )


def say(text):
    """One line for the user, on standard error."""
    with contextlib.suppress(BrokenPipeError):  # nobody can be told; the exit code stays
        tell(f"chaos: {' '.join(str(text).split())}")


def complain(text):
    """One line about an error; returns the exit code for it."""
    say(f"error: {text}")
    return 2


def exit_code(error):
    """What the process ends with because of an exception."""
    return 3 if isinstance(error, DivergedError) else 2


def show_json(value):
    """`value` on standard output, for programs."""
    print(json.dumps(value, indent=2))


def print_table(rows, left=1):
    """Rows of text in columns, the first so many of them aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{'<' if k < left else '>'}{widths[k]}}" for k, cell in enumerate(row)))


def show_us(us):
    """Microseconds for people."""
    return f"{us:.{3 if abs(us) < 10 else 2 if abs(us) < 100 else 0}f}"


def worker_counts(arguments):
    """The numbers given with --workers (a list of texts) without repetitions, None if there are none."""
    given = [part for text in arguments.workers or [] for part in text.split(",")]
    for part in given:
        if not part.strip().isascii() or not part.strip().isdigit():
            arguments.parser.error(f"argument --workers: not a number or list of numbers: {part!r}")
    return list(dict.fromkeys(map(int, given))) or None


def percent(fraction):
    """A fraction of 0..1 for people."""
    return f"{100 * fraction:.2f} %"


def read_config(run_dir):
    """config.json of a run directory as a dict, empty if there is none; CheckpointError if it is damaged."""
    path = Path(run_dir) / CONFIG
    try:
        config = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: damaged: holds no settings")
    for keys, kind, what in ((NAMES, str, "a name"), (FLAGS, bool, "true or false"), (TABLES, dict, "an object")):
        for key in keys & config.keys():
            if not isinstance(config[key], kind):
                raise CheckpointError(f"{path}: damaged: {key} must be {what}, not {config[key]!r}")
    return config


def load_data(name, net=None, tell=True, label=None):
    """Data for a network: (name of what was found, train, test), in the size of the network's input, or without a network as
    they are. `tell`: say it where a file's images are resized. `label`: a table's column of labels."""
    load = functools.partial(data.load, label=label)
    size = net.input_shape[1:] if net is not None and len(net.input_shape) == 3 else None
    if name != "auto" and (what := data.kind(name)) != "arrays":
        if what == "name":
            return name, *load(name, size=size)
        # rows and pictures have the shape that is wanted of them
        other = []
        found = load(name, shape=net and net.input_shape, tell=other.append)
        if other and tell:
            h, w = other[0]
            more = f" and other sizes, {len(other)} in all," if len(set(other)) > 1 else ""
            say(f"{name}: pictures of {h}x{w}{more} are brought to the network's {'x'.join(map(str, size))} pixels")
        return name, *found
    if name != "auto":
        train, test = load(name)
        if size is None or len(train.shape) != 3 or train.shape[1:] == size:
            return name, train, test
        if tell:
            found, wanted = ("x".join(map(str, one)) for one in (train.shape[1:], size))
            say(f"{name}: images of {found} pixels are brought to the network's {wanted}")
        return name, train.sized(size), None if test is None else test.sized(size)
    try:
        return "mnist", *load("mnist", size=size, download=False)
    except DataNotFound:
        if is_terminal(sys.stderr):
            say("mnist is not on this machine, trying to download it ...")
    try:
        return "mnist", *load("mnist", size=size)
    except DataNotFound:
        say(
            "mnist is neither on this machine nor can it be downloaded (--data mnist says why); "
            "taking the small digits that come with chaos instead"
        )
        return "digits", *data.load("digits", size=size)


def load_weights(path, images):
    """The images with the weights in a .npy file, one for each; as they are where there is no path."""
    if path is None:
        return images
    try:
        weights = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy raises several kinds for damaged bytes
        raise DataError(f"{path}: not a readable .npy file: {error or type(error).__name__}") from None
    if not isinstance(weights, np.ndarray):
        weights.close()
        raise DataError(f"{path}: holds several arrays; the weights of the training images are a .npy file of one")
    try:
        return with_weights(images, weights)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def load_validation(path, net, label=None):
    """The validation set in a file, in the size of the network's input; None where there is no path. `label` as above, where
    it is a table."""
    if path is None:
        return None
    _, images, others = load_data(path, net, label=label if data.kind(path) == "table" else None)
    if others is not None:
        raise DataError(f"{path} holds training and test images; a validation set is a file that holds one set")
    return images


def need_test(name, test):
    """`test`, or a DataError where the data set has no test images."""
    if test is None:
        raise DataError(f"{name} holds no test images")
    return test
