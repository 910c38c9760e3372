"""Check whether this machine can train; see --help."""

import sys

if sys.version_info < (3, 8):  # noqa: UP036  (the doctor must say so itself)
    sys.exit("Python 3.8 is the oldest in which the doctor runs; take 3.10 to 3.13")

from _command import run

if __name__ == "__main__":
    run("doctor")
