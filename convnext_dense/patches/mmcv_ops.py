"""Serve the stand-ins in ``ops`` for mmcv's compiled ops.

The modules of mmdet and mmseg import ``mmcv.ops``, which imports the compiled module
``mmcv._ext``. mmcv-lite has no such module, nor has an mmcv that pip built without
torch: ``No module named 'mmcv._ext'``. ``install`` adds a finder at the end of Python's
import path. Python therefore finds a compiled ``mmcv._ext`` first, wherever it is. Only
where there is none, it takes ``ops``: everything that the models of mmdet 3 and mmseg 1
train and predict with works. Any other op raises an error when it is called.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence

from mmengine.logging import print_log

NAME = "mmcv._ext"


def install() -> None:
    """Let Python find ``mmcv._ext`` where mmcv was installed without it."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def is_stand_in(module: object) -> bool:
    """Whether ``mmcv._ext`` is this package's, so that mmcv has no compiled ops."""
    return isinstance(module, _StandIns)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == NAME:
            return importlib.machinery.ModuleSpec(NAME, self, origin=__file__)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIns(spec.name, __doc__)

    def exec_module(self, module: types.ModuleType) -> None:
        from convnext_dense import ops

        vars(module).update({op.__name__: op for op in ops.STAND_INS})
        print_log(
            "mmcv has no compiled ops here: convnext_dense computes them with "
            "torchvision and PyTorch",
            logger="current",
        )


class _StandIns(types.ModuleType):
    def __getattr__(self, name: str) -> Callable:
        # mmcv looks up the names of all ops when it is imported, and calls few.
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise NotImplementedError(
                f"mmcv's op {name!r} has no stand-in in convnext_dense, and the "
                "installed mmcv was built without compiled ops. Install one that has "
                "them: with the maintained stack, `MMCV_WITH_OPS=1 pip install "
                "--no-build-isolation --force-reinstall --no-deps onedl-mmcv` in an "
                "environment that has torch and a compiler; with the classic stack, "
                "`pip install openmim && mim install mmcv`"
            )

        return missing
