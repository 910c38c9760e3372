"""Run a command of this checkout, whether or not the package is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from convnext_dense_cli import commands


def run(name: str) -> None:
    """Run the command ``convnext_dense.commands.NAME``."""
    commands().run(name)
