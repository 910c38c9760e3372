"""Run a command of this checkout, whether the package is installed or not."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def run(name: str) -> None:
    """Run ``convnext_dense.commands.NAME``."""
    if "convnext_dense" not in sys.modules:
        # Without running its __init__.py, which imports torch and mmengine: --help
        # shall be fast, and the doctor works without them. See load_package there.
        spec = importlib.util.find_spec("convnext_dense")
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    from convnext_dense import commands

    commands.run(name)
