"""What the commands have in common: parser, help, tables, lines for people. For the files of this folder; without
NumPy and what needs it, for the sake of `chaos --help`."""

import argparse
import contextlib
import json
import re
import shutil
import textwrap

from ..errors import DivergedError
from ..hints import TRAINING, nearest
from ..precision import FLOAT32, PRECISIONS
from ..streams import tell

# What other programs call options, {name: name here, or words}; those of trainings are in chaos.hints.
OPTIONS = {
    "e": "epochs",
    "b": "batch_size",
    "d": "data",
    "j": "workers",
    "n": "domains",
    "np": "domains",
    "o": "out",
    "output": "out",
    "to": "the ending of FILE says what is written",
    "format": "the ending of FILE says what is written",
    "v": "version",
    "V": "version",
    "q": "progress",
    "quiet": "progress",
    "dataset": "data",
    "model": "the network is named without an option, as in chaos train small",
    "network": "the network is named without an option, as in chaos train small",
    "size": "images are brought to the network's size",
    "image_size": "images are brought to the network's size",
    "checkpoint": "run_dir",
}
# What they call commands.
COMMANDS = {
    "help": "chaos --help lists the commands, chaos COMMAND --help explains one",
    "version": "chaos --version says it",
    "fit": "did you mean chaos train?",
    "run": "did you mean chaos train?",
    "eval": "did you mean chaos evaluate?",
    "test": "did you mean chaos evaluate?",
    "score": "did you mean chaos evaluate?",
    "infer": "did you mean chaos predict?",
    "convert": "did you mean chaos export?",
    "show": "did you mean chaos summary?",
    "models": "chaos summary lists the networks",
    "datasets": "did you mean chaos data list?",
    "resume": "did you mean chaos train --resume --run-dir DIR?",
    "benchmark": "did you mean chaos bench?",
}


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
            from ..options import unknown

            what = "unknown command" if isinstance(action.choices, dict) else "there is no"
            told = unknown(what, value, action.choices)
            if isinstance(action.choices, dict) and (hint := _command_for(value)):
                told = f"{what} {value!r}; {hint}"
            raise argparse.ArgumentError(action, told)

    def refuse_unknown(self, left):
        """Ends with an error about arguments that nobody takes, with the option that may be meant."""
        option = next((word.partition("=")[0] for word in left if word.startswith("-")), None)
        there = {text.lstrip("-").replace("-", "_"): text for action in self._actions for text in action.option_strings}
        if option is None:
            self.error(f"unrecognized arguments: {' '.join(left)}{_option_for(left[0], there)}")
        name = option.lstrip("-").replace("-", "_")
        hint = OPTIONS.get(name, TRAINING.get(name, ""))
        if hint in there:
            told = f"; did you mean {there[hint]}?"
        elif " " in hint and "=" not in hint:
            told = f"; {hint}"
        else:
            found = nearest(name, there) if len(name) > 1 else None
            told = f"; did you mean {there[found]}?" if found else ""
        self.error(f"there is no option {option}{told}")

    def refuse_empty(self, arguments):
        """Ends with an error where an argument is "", as of a shell's variable that is not set: as a path, it would be the
        current directory."""
        for action in self._actions:
            value = getattr(arguments, action.dest, None)
            if value == "" or (isinstance(value, list) and "" in value):
                name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
                self.error(f'argument {name}: a value is needed, not ""')


def _option_for(word, there):
    """What is added where a word alone was given for what is the value of an option."""
    from ..data import kind
    from ..errors import DataError
    from ..models import MODELS

    if "model" in there and word in MODELS:
        return f"; did you mean {there['model']} {word}?"
    if "data" in there:
        with contextlib.suppress(DataError):
            kind(word)
            return f"; did you mean {there['data']} {word}?"
    return ""


def _command_for(word):
    """What somebody means by a word that stands where a command does."""
    if word in COMMANDS:
        return COMMANDS[word]
    from ..models import MODELS

    name = word.lower()
    return f"did you mean chaos train {word}?" if name in MODELS or name.endswith((".toml", ".safetensors")) else None


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


def declare_precision(parser):
    """The option about what a trained network multiplies."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FLOAT32,
        help=f"what layers multiply: {', '.join(PRECISIONS)} (rounded, where that is faster; default: {FLOAT32})",
    )


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
    """The numbers given with --workers, None if there are none."""
    return counts_of(arguments, "workers")


def counts_of(arguments, option):
    """The numbers given with an option (a list of texts) without repetitions, None if there are none."""
    given = [part for text in getattr(arguments, option) or [] for part in text.split(",")]
    for part in given:
        if not part.strip().isascii() or not part.strip().isdigit():
            arguments.parser.error(f"argument --{option}: not a number or list of numbers: {part!r}")
    return list(dict.fromkeys(map(int, given))) or None


def percent(fraction):
    """A fraction of 0..1 for people."""
    return f"{100 * fraction:.2f} %"
