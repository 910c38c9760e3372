"""What can go wrong, as exceptions that the tools turn into one message; and the exit
codes.

2   a mistake in what was given (argparse's own code, too)
3   the numbers went wrong: losses or gradients that are not finite
5   another process of the run has ended
75  stopped by a signal, and saved: the same command with --resume goes on
"""

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


class InputError(ValueError):
    """A mistake in what the user gave: a config, a path, a file, an argument.

    The message says what was wrong, where, and what to do next. The tools print
    it alone and exit with code 2; as a ``ValueError`` it also reads well from
    Python.
    """

    exit_code = 2


class MissingStackError(InputError, ImportError):
    """Neither toolbox stack is installed, or not the toolbox of a config."""

    def __init__(self, what: str):
        super().__init__(
            f"{what}. In a clone of convnext_dense, install the maintained stack with\n"
            "  pip install -e '.[onedl]'\n"
            "or the classic one with\n"
            "  pip install -e '.[openmmlab]'"
        )


class NotFiniteError(RuntimeError):
    """Losses or gradients are not finite, time and again."""

    exit_code = 3


class LostProcessError(RuntimeError):
    """Another process of the run has ended, which this one needs.

    No mistake of the user's; the tools print the message alone and exit with code 5.
    """

    exit_code = 5
