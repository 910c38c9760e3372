"""Lets the toolboxes' own scripts run where nothing has imported convnext_dense yet.

``convnext_dense.pth`` beside this module imports it whenever Python starts: those
scripts import ``mmcv.ops``, and read ``_base_ = 'mmseg::...'``, before a config can
name ``custom_imports``. It imports only ``sys``, and adds a finder to the end of
Python's import path. The finder is asked for what nothing else has found: a compiled
``mmcv._ext``, and the package ``mmsegmentation``. mmengine looks for mmseg's configs in
a distribution of that name; the maintained stack's is ``onedl-mmsegmentation``.
"""

import sys

NAME = "mmcv._ext"  # mmcv's compiled ops


class Finder:
    """Finds the stand-ins for mmcv's ops, and the place of mmseg."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """The module spec of the stand-ins, or one with the place of mmseg."""
        if name == "mmsegmentation":
            from importlib.util import find_spec

            mmseg = find_spec("mmseg")
            return mmseg and type(mmseg)(name, None, origin=mmseg.origin)
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
