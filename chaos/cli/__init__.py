"""The command line, one file per command, which is loaded when it is asked for. For the entry points; nothing in chaos
imports it."""

import contextlib
import importlib
import logging
import os
import sys
import traceback
import warnings

from .. import __version__, _start

_start.hold()  # isort: split

from ..errors import ChaosError  # noqa: E402
from .common import Parser, complain, exit_code, say  # noqa: E402

# name, which is that of the file, and what it does
COMMANDS = {
    "train": "train a network",
    "evaluate": "measure the test error of a trained network",
    "predict": "label images with a trained network",
    "export": "write a network for other programs: ONNX, PyTorch, safetensors, NumPy",
    "data": "list the data sets there are, and check files",
    "plot": "draw runs, measurements and networks",
    "summary": "show layers, shapes, parameters, work and memory of a network",
    "simulate": "train with many virtual workers on few cores",
    "replay": "repeat a traced run bit for bit",
    "reproduce": "run the paper's experiments again and report",
    "bench": "measure speed",
    "estimate": "predict time, speed-up and efficiency without training",
    "info": "show instruction sets, cores, versions",
    "doctor": "explain what is wrong with cores, OpenMP, MPI",
    "launch": "start one process per NUMA domain with MPI",
    "completion": "print what makes a shell complete commands and options",
}

# packages that are no part of what is installed with chaos, each the name of the extra that brings it
EXTRAS = ("torch", "onnx")

DESCRIPTION = """\
Trains convolutional networks on CPUs: every worker takes one image at a time, all share one set of weights,
and they publish their updates layer by layer in whatever order they arrive. Each command has its own help:
chaos COMMAND --help. Exit codes: 0 success; 2 wrong input or environment, told in one line; 3 the training
diverged; 130 and 143 stopped by Ctrl-C and SIGTERM.

examples:

  chaos train small --epochs 8 --lr 0.01
  chaos evaluate runs/small-20250131-120000
"""


def main(argv=None):
    """Runs one command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0 success; 2 an error of input or environment, told in one line on standard error; 3 the
        training diverged; 130 and 143 stopped by Ctrl-C and SIGTERM; 141 the reader of the output has gone.
    """
    with _printable(sys.stdout):
        code = _run(sys.argv[1:] if argv is None else list(argv))
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):  # told already; Python would complain once more when it flushes at exit
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
    return code


@contextlib.contextmanager
def _printable(stream):
    """Within it, what the stream's encoding does not know (a path may hold any bytes) is printed escaped."""
    try:
        before = stream.errors
        stream.reconfigure(errors="backslashreplace")
    except (AttributeError, ValueError, OSError):  # None, closed, or no stream that encodes
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # closed since
            stream.reconfigure(errors=before)


def _run(argv):
    log, told = logging.getLogger("chaos"), _Told(logging.WARNING)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"warning: {message}")
        log.addHandler(told)
        try:
            return _run_command(argv)
        finally:
            log.removeHandler(told)


class _Told(logging.Handler):
    """What the library warns about in its log, for people."""

    def emit(self, record):
        say(f"warning: {record.getMessage()}")


def _run_command(argv):
    debug = False
    try:
        try:
            parser = _parser(argv)
        finally:
            _start.over()
        arguments, left = parser.parse_known_args(argv)
        debug = arguments.debug
        if left:
            arguments.parser.refuse_unknown(left)
        arguments.parser.refuse_empty(arguments)
        arguments.argv = argv
        arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return 0
    except SystemExit as stop:  # argparse, and chaos.train after SIGTERM
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else complain(stop.code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return complain(error)
    except (ChaosError, ValueError, OSError, MemoryError, RuntimeError) as error:
        # RuntimeError itself is what the core raises where no team can be started; its subclasses are bugs.
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise
        if debug:
            traceback.print_exc()
        complain(_text(error))
        return exit_code(error)


def _text(error):
    """What an exception has to say, with the file that an OSError is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


def _parser(argv=None):
    """The parser for some arguments, in which only the command that they name is complete; without arguments all are."""
    parser = Parser(prog="chaos", usage="chaos [options] COMMAND ...", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"chaos {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="chaos", required=True)
    asked = None if argv is None else next((word for word in argv if not word.startswith("-")), "")
    before = [] if argv is None else argv[: argv.index(asked)] if asked else argv
    if unknown := [word for word in before if word not in parser._option_string_actions]:
        parser.refuse_unknown(unknown)
    for name, text in COMMANDS.items():
        if asked in (None, name):
            importlib.import_module(f".{name}", __name__).add(commands)
        else:
            commands.add_parser(name, help=text)
    return parser
