"""The commands, one module or folder for each.

A command is a module with

- a docstring: the text of ``--help``;
- ``add_arguments(parser)``;
- ``main(args)``, which returns an exit code or None for 0. It imports what takes
  time, so that ``--help`` and mistakes in arguments need no torch.

The scripts in ``tools/`` have their names.
"""

import argparse
import faulthandler
import importlib
import os
import signal
import sys
import time


def run(name: str) -> None:
    """Run a command by the process's arguments; a user's mistake ends in its message.

    ``convnext_dense.errors`` has the exit codes. ``CONVNEXT_DENSE_DEBUG=1`` shows the
    Python stack as well. A crash in native code and the signal USR1, after which the
    command goes on, show the stacks of all threads.
    """
    if sys.stderr:  # it may have been closed
        faulthandler.enable()
        if hasattr(faulthandler, "register"):  # not on Windows
            faulthandler.register(signal.SIGUSR1)
    command = importlib.import_module(f"{__name__}.{name}")
    parser = argparse.ArgumentParser(
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    args = parser.parse_args()
    try:
        if name != "doctor":  # which works without the libraries that others need
            load_package()
        sys.exit(command.main(args))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)  # as shells say it
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # InputError has one
        if exit_code is None or os.environ.get("CONVNEXT_DENSE_DEBUG") == "1":
            raise
        print(f"error: {_leave_to_the_first(exit_code)}{error}", file=sys.stderr)
        sys.exit(exit_code)


def load_package() -> None:
    """Run ``convnext_dense/__init__.py``, if ``tools/_command.py`` has put it off."""
    package = sys.modules["convnext_dense"]
    if not hasattr(package, "__version__"):
        package.__spec__.loader.exec_module(package)


def _leave_to_the_first(exit_code: int) -> str:
    """Let the first of many processes report a mistake that all of them find.

    When it ends, its launcher ends the others. A process that is still running after
    that has a mistake of its own.

    Returns:
        how its message begins.
    """
    ranks = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    rank = next((os.environ[name] for name in ranks if name in os.environ), "0")
    if rank == "0" or exit_code != 2:
        return ""
    time.sleep(10)
    return f"rank {rank}: "
