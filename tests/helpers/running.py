"""Run Python files as a shell would."""

import os
import subprocess
import sys

from .paths import ROOT


class Outcome:
    """The exit code and the output of a tool."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


def shell(*command, **environment):
    """Run a Python file or ``-c CODE`` in a new process, in the checkout."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
