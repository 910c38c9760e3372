"""Let a segmentor be traced with image sizes that are not numbers.

mmseg's ``resize`` warns about sizes that it would have to align, and compares them for
it. In a trace each comparison fixes the sizes to those of the example image.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_size_warning() -> Iterator[None]:
    """Set the default of ``resize``'s argument ``warning`` to False in this context."""
    from mmseg.models.utils import resize

    defaults = resize.__defaults__
    resize.__defaults__ = (*defaults[:-1], False)
    try:
        yield
    finally:
        resize.__defaults__ = defaults
