"""The commands: one module or one folder for each.

A command is a module with

- a docstring, which is the text of ``--help``;
- ``add_arguments(parser)``, which adds its flags to an ``argparse`` parser;
- ``main(args)``, which does the work and returns an exit code, or None for 0. It
  imports torch and the toolboxes itself, so that ``--help`` and what ``argparse``
  refuses are answered at once.

``convnext-dense NAME`` runs the command of that name, with hyphens for underscores; so
does ``tools/NAME.py``. CONTRIBUTING.md says how to add one.
"""

import argparse
import difflib
import errno
import faulthandler
import importlib
import logging
import os
import pkgutil
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from convnext_dense.errors import InputError, printable
from convnext_dense.version import __version__

# What is wrong with a disk, not with the program: it is full, read-only, has vanished.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE}
# Commands that work without torch and mmengine, or call load_package themselves.
LIGHT = {"configs", "doctor"}
INTERRUPTED = 130  # the exit code that shells give to a program ended by Ctrl-C


def names() -> list[str]:
    """The names of all commands, with underscores."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(modules - {"arguments", "completion"})


def main() -> None:
    """Run the command that the process's first argument names, then exit.

    ``--help`` lists the commands, ``--version`` prints the version, and
    ``--print-completion SHELL`` the shell's completion script.
    """
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    name = first.replace("-", "_")
    if name in names():
        run(name, sys.argv[2:], f"{_program()} {first}")
    parser = whole_parser()
    if not first:
        parser.print_help(sys.stderr)
        sys.exit(InputError.exit_code)
    if not first.startswith("-"):
        similar = difflib.get_close_matches(name, names(), n=1)
        meant = f" Did you mean {similar[0].replace('_', '-')}?" if similar else ""
        parser.error(f"there is no command {printable(first)}.{meant}")
    parser.parse_args()
    parser.error("name a command")


def whole_parser() -> argparse.ArgumentParser:
    """The parser of ``convnext-dense``, with all commands as sub-commands."""
    from .completion import SHELLS, PrintCompletion

    parser = argparse.ArgumentParser(
        prog=_program(),
        description="Train, test and use ConvNeXt detectors and segmentors.",
        epilog="convnext-dense COMMAND --help explains a command.",
    )
    parser.add_argument(
        "--version", action="version", version=f"convnext-dense {__version__}"
    )
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help="print the completion script of a shell; for bash, add to ~/.bashrc: "
        'eval "$(convnext-dense --print-completion bash)"',
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name in names():
        command = importlib.import_module(f"{__name__}.{name}")
        title = (command.__doc__ or "").partition("\n")[0]
        sub_parser = commands.add_parser(name.replace("_", "-"), help=title)
        command.add_arguments(sub_parser)
    return parser


class _Parser(argparse.ArgumentParser):
    """A command's parser."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2; say where a missing argument may have gone.

        ``train --resume CONFIG`` takes CONFIG for the checkpoint.
        """
        taking = [
            flag
            for action in self._actions
            if action.nargs in ("?", "+")
            for flag in action.option_strings
            if flag in sys.argv
        ]
        if taking and "arguments are required" in message:
            message += f". Write them before {taking[0]}, which takes the word after it"
        super().error(message)


def parser_of(name: str, program: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command ``name``; ``program`` is as for ``run``."""
    command = importlib.import_module(f"{__name__}.{name}")
    parser = _Parser(
        prog=program,
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def _program() -> str:
    """What the user has typed, for usage lines."""
    if Path(sys.argv[0]).name == "__main__.py":
        return "python -m convnext_dense"
    return "convnext-dense"


def run(
    name: str, arguments: Sequence[str] | None = None, program: str | None = None
) -> None:
    """Run the command ``name``, then exit.

    A user's mistake ends in its message and an exit code, listed in
    ``convnext_dense.errors``. ``CONVNEXT_DENSE_DEBUG=1`` shows the Python stack as
    well. A crash in native code prints the stacks of all threads. So does the signal
    USR1, after which the command goes on.

    Args:
        arguments: of the command; by default, those of the process.
        program: what the user has typed, for usage lines; by default, the script.
    """
    # Else a full disk prints the stack of each line that a log file does not take.
    logging.raiseExceptions = False
    if sys.stderr:  # None where the process was started without one
        faulthandler.enable()
        if hasattr(faulthandler, "register"):  # not on Windows
            faulthandler.register(signal.SIGUSR1)
    parser = parser_of(name, program)
    arguments = sys.argv[1:] if arguments is None else arguments
    _check_empty(parser, arguments)
    # Names may come before, between and after the flags.
    args = parser.parse_intermixed_args(arguments)
    command = importlib.import_module(f"{__name__}.{name}")
    try:
        if name not in LIGHT:
            load_package()
        sys.exit(command.main(args))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # InputError has one
        advice = ""
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            exit_code = InputError.exit_code
            advice = ". Free some space, or write to another disk"
        if exit_code is None or os.environ.get("CONVNEXT_DENSE_DEBUG") == "1":
            raise
        rank = _wait_for_rank_0(exit_code)
        print(f"error: {rank}{error}{advice}", file=sys.stderr)
        sys.exit(exit_code)


def _check_empty(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Exit with code 2 if an argument is empty.

    A shell passes an empty text for a variable that is not set. ``--resume ""`` would
    begin a new run, and ``--work-dir ""`` write into another folder.
    """
    for number, argument in enumerate(arguments):
        flag = arguments[number - 1] if number and not argument else argument
        if not argument or re.fullmatch("--[^=]+=", argument):
            name = (
                flag.rstrip("=") if flag.startswith("-") else f"argument {number + 1}"
            )
            parser.error(f"{name} is empty: is a variable of the shell not set?")


def load_package() -> None:
    """Run ``convnext_dense/__init__.py``, if ``convnext_dense_cli`` has put it off.

    From then on, warnings that only other libraries' authors can act on are not shown.
    """
    package = sys.modules["convnext_dense"]
    if not hasattr(package, "__version__"):
        spec = package.__spec__
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(package)
    from convnext_dense.patches.console import hide_library_warnings

    hide_library_warnings()


def _wait_for_rank_0(exit_code: int) -> str:
    """Let rank 0 alone report a mistake that every process of a run finds.

    When rank 0 ends, the launcher ends the other processes. A process that still
    runs 10 seconds later has a mistake that rank 0 does not have.

    Returns:
        the start of this process's message: empty, or its rank.
    """
    variables = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    rank = next((os.environ[name] for name in variables if name in os.environ), "0")
    if rank == "0" or exit_code != 2:
        return ""
    time.sleep(10)
    return f"rank {rank}: "
