"""A stream into which torch writes files, whose errors do not end the process.

Where writing fails, torch's C++ code raises an exception that does not name the
system's error, and the next one from a destructor, which aborts the process.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


@contextmanager
def open_to_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for ``torch.save`` or ``torch.export.save``.

    Raises:
        OSError: the file cannot be written, such as on a full disk. It is raised at the
            end; what is written after the first error is dropped.
    """
    with _Stream(path, "wb") as stream:
        try:
            yield cast(BinaryIO, stream)
        finally:
            if stream.error:
                raise stream.error


class _Stream(io.FileIO):
    """A file that keeps its first error and then takes everything.

    Attributes:
        error: the first error of a ``write``; None without one.
    """

    error: OSError | None = None

    def write(self, data) -> int:
        """Write all bytes of ``data``, unless a write before has failed."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self.error is None and written < len(view):
                written += super().write(view[written:])
        except OSError as error:
            self.error = error
        return len(view)
