"""The table of the libraries whose ConvNeXt checkpoints are read and written.

Recognition, conversion, the tools' ``--to`` and the tests follow from ``LIBRARIES``.
To add a library:

1. Write an adapter beside the others: an ``Origin`` with the library's names, where
   they differ from the native ones, a function that writes for it (optional), and a
   ``Library`` with both.
2. Add the ``Library`` to the table below.
3. Add one of its models to ``SOURCES`` in ``tests/checkpoints/test_converting.py``.

Nothing here imports torch, so that ``--help`` lists the libraries at once.
"""

from .adapter import Conversion, Library, NativeModel
from .authors import NATIVE
from .mmpretrain import MMPRETRAIN
from .naming import SIGNATURE, Origin, names
from .timm import TIMM
from .torchvision import TORCHVISION
from .transformers import TRANSFORMERS

LIBRARIES = (NATIVE, TIMM, TRANSFORMERS, TORCHVISION, MMPRETRAIN)

ORIGINS = tuple(origin for library in LIBRARIES for origin in library.origins)
WRITERS = {library.name: library.write for library in LIBRARIES if library.write}
TARGETS = tuple(WRITERS)

__all__ = [
    "LIBRARIES",
    "ORIGINS",
    "SIGNATURE",
    "TARGETS",
    "WRITERS",
    "Conversion",
    "Library",
    "NativeModel",
    "Origin",
    "names",
]
