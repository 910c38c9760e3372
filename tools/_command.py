"""Run a command of this checkout, whether or not the package is installed."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def run(name: str) -> None:
    """Run the command ``convnext_dense.commands.NAME``."""
    if "convnext_dense" not in sys.modules:
        # Do not run its __init__.py yet, which imports torch and mmengine: --help is
        # fast without them, and the doctor must work without them. commands.run calls
        # load_package, which runs it.
        spec = importlib.util.find_spec("convnext_dense")
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    from convnext_dense import commands

    commands.run(name)
