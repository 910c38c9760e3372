"""Starts the command ``convnext-dense`` and the scripts in ``tools``.

A module beside the package, because an import from the package runs its
``__init__.py``, which imports torch and mmengine. A command's --help is fast without
them, and the doctor works without them.
"""

import importlib.util
import sys
from types import ModuleType

import convnext_dense_startup  # noqa: F401  (a clone may not be installed: no .pth file)


def commands() -> ModuleType:
    """``convnext_dense.commands``, without running ``convnext_dense/__init__.py``.

    ``commands.run`` runs it when the arguments are parsed.
    """
    if "convnext_dense" not in sys.modules:
        spec = importlib.util.find_spec("convnext_dense")
        assert spec is not None  # installed with this module
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    return importlib.import_module("convnext_dense.commands")


def main() -> None:
    """Run the command that the process's arguments name."""
    commands().main()


if __name__ == "__main__":
    main()
