"""The package's exceptions, which tools print as one message, and their exit codes.

2   the user's input is wrong (argparse uses this code, too)
3   losses or gradients are not finite
5   another process of the run has ended
75  a signal stopped the run, which saved a checkpoint: the same command with --resume
    continues it
"""

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


class InputError(ValueError):
    """The user's input is wrong: a config, a path, a file or an argument.

    The message says what is wrong, where, and what to do next. Tools print the message
    without a stack and exit with code 2. In Python it is a ``ValueError``.
    """

    exit_code = 2


class MissingStackError(InputError, ImportError):
    """No toolbox is installed, or not the toolbox that a config needs.

    Args:
        problem: what is missing; the message adds how to install it.
    """

    def __init__(self, problem: str):
        super().__init__(
            f"{problem}. In a clone of convnext_dense, install the maintained stack "
            "with\n"
            "  pip install -e '.[onedl]'\n"
            "or the classic stack with\n"
            "  pip install -e '.[openmmlab]'"
        )


class NotFiniteError(RuntimeError):
    """Losses or gradients are not finite in several iterations in a row.

    Tools exit with code 3.
    """

    exit_code = 3


class LostProcessError(RuntimeError):
    """Another process, which this process needs, has ended.

    This is not a mistake in the user's input. Tools exit with code 5.
    """

    exit_code = 5
