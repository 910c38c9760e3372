"""Killed commands leave nothing partial, change no input, and run again."""

import re

from ..helpers.running import shell


def test_kill_points():
    """A few of those that ``make test-long`` tries."""
    program = "tests.programs.kill_commands"
    names = ("convert_checkpoint", "inspect_data")
    done = shell("-m", program, *names, "--every", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    tried = re.findall(r"(\d+) kill points, (\d+) left everything whole", done.stdout)
    assert len(tried) == len(names)
    assert all(points == good != "0" for points, good in tried)
