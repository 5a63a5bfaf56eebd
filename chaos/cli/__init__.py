"""The command line, one file per command. For the entry points; nothing in chaos imports it."""

import contextlib
import logging
import os
import sys
import traceback
import warnings

from .. import __version__, _start
from ..errors import ChaosError
from . import bench, doctor, estimate, evaluate, info, launch, plot, predict, replay, reproduce, simulate, summary, train
from .common import Parser, complain, exit_code, say

COMMANDS = (train, evaluate, predict, plot, summary, simulate, replay, reproduce, bench, estimate, info, doctor, launch)

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
    _start.over()
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
        arguments, unknown = _parser().parse_known_args(argv)
        debug = arguments.debug
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
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


def _parser():
    parser = Parser(prog="chaos", usage="chaos [options] COMMAND ...", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"chaos {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="chaos", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser
