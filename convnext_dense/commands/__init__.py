"""The commands: one module or one folder for each.

A command is a module with

- a docstring, which is the text of ``--help``;
- ``add_arguments(parser)``, which adds its flags to an ``argparse`` parser;
- ``main(args)``, which does the work and returns an exit code, or None for 0. It
  imports torch and the toolboxes itself, so that ``--help`` and what ``argparse``
  refuses are answered at once.

``tools/NAME.py`` runs the command of that name. CONTRIBUTING.md says how to add one.
"""

import argparse
import errno
import faulthandler
import importlib
import logging
import os
import signal
import sys
import time

from convnext_dense.errors import InputError

# What is wrong with a disk, not with the program: it is full, read-only, has vanished.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE}
INTERRUPTED = 130  # the exit code that shells give to a program ended by Ctrl-C


def run(name: str) -> None:
    """Run the command ``name`` with the process's arguments, then exit.

    A user's mistake ends in its message and an exit code, listed in
    ``convnext_dense.errors``. ``CONVNEXT_DENSE_DEBUG=1`` shows the Python stack as
    well. A crash in native code prints the stacks of all threads. So does the signal
    USR1, after which the command goes on.
    """
    # Else a full disk prints the stack of each line that a log file does not take.
    logging.raiseExceptions = False
    if sys.stderr:  # None where the process was started without one
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
        if name != "doctor":  # the doctor runs without torch and mmengine
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


def load_package() -> None:
    """Run ``convnext_dense/__init__.py``, if ``tools/_command.py`` has put it off."""
    package = sys.modules["convnext_dense"]
    if not hasattr(package, "__version__"):
        spec = package.__spec__
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(package)


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
