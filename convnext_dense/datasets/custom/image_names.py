"""Finds the files in a folder that an annotation file means by its names.

Tools write names as they were on another machine: with its folders and backslashes, as
URLs, in capitals, with composed or decomposed characters (macOS). A name leads to a
file only where exactly one fits.
"""

import difflib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from convnext_dense.errors import printable
from convnext_dense.utils.images import list_images
from convnext_dense.utils.text import LONGEST_NAME, few, fold

from .split_paths import IMAGES

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/+", re.IGNORECASE)
_ABSOLUTE = re.compile(r"[a-z]:[\\/]|[\\/~]", re.IGNORECASE)
# Label Studio puts this before the name of an uploaded file.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
# Names among which the nearest to a missing one is looked for.
MOST_NAMES = 20_000


class FittingFile(NamedTuple):
    """What a name leads to.

    Attributes:
        file: below the folder, with '/'; None if no file fits, or several do.
        is_exact: whether it is the file's own name.
        why: why no file fits, for messages; empty if one does.
    """

    file: str | None
    is_exact: bool = False
    why: str = ""


class ImageNames:
    """The image files of a folder, by the names that tools may write for them.

    Args:
        folder: it is looked through once.

    Attributes:
        files: below the folder, sorted, with '/'.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A folder, a pipe and a link to nothing may have such names, too.
        self.files = [f for f in list_images(folder) if os.path.isfile(folder / f)]
        self._above = fold(os.path.abspath(folder)).split("/")
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for file in self.files:
            self._by_name[fold(file).rpartition("/")[2]].append(file)

    def find(self, name: str) -> FittingFile:
        """The file that a name of an annotation file means.

        It is the file of that path below the folder. Without one, it is the only file
        that differs in capitals or in the composition of characters; a name without
        folders may lie in one below. A name with folders leads only to a file in such
        folders, except that a path of another machine, or a URL, may have any.
        """
        if (file := self._exact(name)) is not None:
            return FittingFile(file, is_exact=True)
        parts, elsewhere = _parts(name)
        if not parts:
            return FittingFile(None, why="it is no name of a file")
        files = self._by_name.get(parts[-1], [])
        if not files:
            files = self._by_name.get(_UPLOADED.sub("", parts[-1], count=1), [])
            parts = [*parts[:-1], fold(files[0]).rpartition("/")[2]] if files else parts
        if not files:
            return FittingFile(None, why=self._nearest(parts[-1]))
        equal = {file: self._equal_parts(parts, file) for file in files}
        most = max(equal.values())
        best = [file for file in files if equal[file] == most]
        if len(best) > 1:  # on a disk that tells capitals apart
            plain = unicodedata.normalize("NFC", name)
            alike = [f for f in best if plain.endswith(unicodedata.normalize("NFC", f))]
            best = alike if len(alike) == 1 else best
        if len(best) > 1:
            return FittingFile(None, why=f"{few(best)} fit")
        others = parts[: len(parts) - most]
        # Where a data set is copied, folders such as images/ often get another name.
        if elsewhere or most > 1 or all(other in IMAGES for other in others):
            return FittingFile(best[0])
        why = (
            f"{printable(best[0], 100)} is not in a folder {printable(others[-1], 40)}"
        )
        return FittingFile(None, why=why)

    def _exact(self, name: str) -> str | None:
        """The path below the folder that is the name; None without such a file."""
        path = os.path.normpath(self.folder / name)
        folder = os.path.normpath(self.folder)
        if os.path.isfile(path) and path.startswith(folder + os.sep):
            return Path(path).relative_to(folder).as_posix()
        return None

    def _equal_parts(self, parts: Sequence[str], file: str) -> int:
        """How many parts at the end of a name and of a file's path are equal."""
        path = [*self._above, *fold(file).split("/")]
        pairs = zip(reversed(parts), reversed(path), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(parts))

    def _nearest(self, name: str) -> str:
        """Which file has the nearest name."""
        names = [n for n, _ in zip(self._by_name, range(MOST_NAMES), strict=False)]
        nearest = difflib.get_close_matches(name[:LONGEST_NAME], names, 1)
        if nearest:
            return f"the nearest is {printable(self._by_name[nearest[0]][0], 100)}"
        return "" if self.files else "the folder has no images"


def _parts(name: str) -> tuple[list[str], bool]:
    """The folders and the file of a name, folded.

    Returns:
        the parts, and whether they begin on another machine: a path from the root of a
        disk, or a URL.
    """
    elsewhere = bool(_URL.match(name) or _ABSOLUTE.match(name))
    if _URL.match(name) or "?d=" in name:  # Label Studio: /data/local-files/?d=FILE
        try:
            url = urlsplit(name)
            name = parse_qs(url.query).get("d", [unquote(url.path)])[0]
        except ValueError:  # such as an address with half a bracket
            return [], elsewhere
    elif "%" in name:
        name = unquote(name)
    parts = re.split(r"[\\/]+", fold(name.strip()))
    return [part for part in parts if part not in ("", ".", "..")], elsewhere
