"""Lets Python find ``mmcv._ext`` where nothing has imported convnext_dense before.

``convnext_dense.pth`` beside this module imports it whenever Python starts: the
toolboxes' own scripts import ``mmcv.ops`` before a config can name ``custom_imports``.
It imports only ``sys``, and adds a finder to the end of Python's import path. The
finder is asked for a compiled ``mmcv._ext`` that nothing else has found.
"""

import sys

NAME = "mmcv._ext"  # mmcv's compiled ops


class Finder:
    """Imports convnext_dense, whose stand-ins for mmcv's ops are found then."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """The module spec of the stand-ins, if ``name`` is ``mmcv._ext``."""
        if name != NAME or "convnext_dense" in sys.modules:
            return None
        try:
            import convnext_dense  # noqa: F401
        except ImportError:  # damaged or half removed: as if it was not installed
            return None
        from importlib.util import find_spec

        return find_spec(NAME)


if not any(finder is Finder for finder in sys.meta_path):
    sys.meta_path.append(Finder)
