"""The package's exceptions, which tools print as one message, and their exit codes.

2   the user's input is wrong (argparse uses this code, too)
3   losses or gradients are not finite
5   another process of the run has ended
75  a signal stopped the run, which saved a checkpoint: the same command with --resume
    continues it
"""

import unicodedata

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again
LONGEST_LINE = 2000  # characters of a message's line


def written_out(text: str) -> str:
    """Text that a terminal shows and does not obey, on one line.

    A file can name a tensor or a class so that printing the name moves the cursor,
    hides the next line or turns the direction of the text.

    >>> written_out("red \\x1b[31m")
    'red \\\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    # C: control and format characters, lone surrogates; Zl and Zp: line separators.
    return "".join(
        ascii(character)[1:-1]
        if unicodedata.category(character) in _NOT_SHOWN
        else character
        for character in text
    )


def printable(text: str, most: int = LONGEST_LINE) -> str:
    """``written_out`` text of at most ``most`` characters; the middle is left out.

    >>> printable("0123456789", 6)
    '012...789'
    """
    return _shortened(written_out(_shortened(text, most)), most)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}...{text[-(most // 2) :]}"


_NOT_SHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class InputError(ValueError):
    """The user's input is wrong: a config, a path, a file or an argument.

    The message says what is wrong, where, and what to do next. Tools print the message
    without a stack and exit with code 2. In Python it is a ``ValueError``. Each line of
    the message is ``printable``.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))


class MissingStackError(InputError, ImportError):
    """No toolbox is installed, or not the toolbox that a config needs.

    Args:
        problem: what is missing; the message adds how to install it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. Install the maintained stack with\n"
            "  pip install 'convnext-dense[onedl]'\n"
            "or the classic stack with\n"
            "  pip install 'convnext-dense[openmmlab]'\n"
            "In a clone of convnext_dense: pip install -e '.[onedl]'"
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
