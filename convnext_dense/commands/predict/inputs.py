"""What a user names (files, folders, patterns) -> the files to predict."""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from convnext_dense.errors import InputError

# What is taken from folders; also what cannot be decoded, so that it is told of.
IMAGES = {
    *(".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe"),
    *(".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff"),
    ".webp",
}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


class Source(NamedTuple):
    """A file to predict.

    Attributes:
        path: where it is.
        file_name: below the folder that all files have in common.
        name: the same without its suffix, and of this file alone: for its results.
    """

    path: Path
    file_name: str
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS

    @property
    def picture(self) -> str:
        """Where in the results its picture is, or a video with its frames' pictures."""
        return f"pictures/{self.name}{'.mp4' if self.is_video else '.jpg'}"

    def labels(self, frame: int) -> str:
        """Where in the results its label map is, or that of a video's frame, from 1."""
        if self.is_video:  # no image is in a folder of this name: the video has it
            return f"labels/{self.file_name}/{frame:06}.png"
        return f"labels/{self.name}.png"


def find(given: Sequence[str], out: Path) -> list[Source]:
    """The files that ``given`` names, each once, in order.

    A file is taken whatever it is called; of a folder, its images and videos but
    not those of folders in it; of a pattern such as ``photos/**/*.jpg``, the images
    and videos that match, but not those below ``out``.

    Args:
        out: the folder of the results, absolute.

    Raises:
        InputError: one of ``given`` names nothing, or a result would replace a file
            that is to be read.
    """
    paths: dict[Path, None] = {}  # an ordered set
    for one in map(os.path.expanduser, given):
        found = _matches(one, out)
        if not found:
            raise InputError(
                f"{one} is a folder without images or videos; for those of the folders "
                f"in it: '{one.rstrip('/')}/**/*'"
                if os.path.isdir(one)
                else f"there is no file and no folder {one}, and nothing matches it"
            )
        paths.update((Path(os.path.abspath(path)), None) for path in found)
    sources = list(_named(paths))
    for source in sources:
        for result in out / source.picture, out / source.labels(1):
            if result in paths:
                raise InputError(
                    f"--out {out}: the result of {source.path} would replace {result}, "
                    "which is to be read; choose another folder"
                )
    return sources


def _matches(given: str, out: Path) -> list[str]:
    if os.path.lexists(given) and not os.path.isdir(given):  # also 'photo[1].jpg'
        return [given]
    if os.path.isdir(given):
        found = [os.path.join(given, name) for name in os.listdir(given)]
    else:
        found = glob.glob(given, recursive=True)
        found = [p for p in found if out not in Path(os.path.abspath(p)).parents]
    # '._photo.jpg' is what a Mac puts beside a photo.jpg.
    return sorted(
        path
        for path in found
        if os.path.splitext(path)[1].lower() in IMAGES | VIDEOS
        and not os.path.basename(path).startswith(".")
        and not os.path.isdir(path)
    )


def _named(paths: Iterable[Path]) -> Iterator[Source]:
    root = os.path.commonpath([path.parent for path in paths])
    taken = set()
    for path in paths:
        file = path.relative_to(root)
        # a.jpg and a.png, or on many disks A.jpg, need names that differ in more.
        numbered = (f"{file}-{number}" for number in itertools.count(2))
        names = itertools.chain([str(file.with_suffix("")), str(file)], numbered)
        name = next(name for name in names if name.lower() not in taken)
        taken.add(name.lower())
        yield Source(path, str(file), name)
