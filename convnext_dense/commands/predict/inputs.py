"""Find the files to predict from the files, folders and patterns a user names."""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from convnext_dense.errors import InputError

# Files with these endings are taken from folders. Formats that cannot be decoded are
# among them, so that such files are reported and not skipped silently.
IMAGES = {
    *(".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe"),
    *(".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff"),
    ".webp",
}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


class Source(NamedTuple):
    """A file to predict.

    Attributes:
        path: absolute path of the file.
        file_name: its path relative to the folder that contains all files to predict.
        name: ``file_name`` without its suffix, made unique; its results are named so.
    """

    path: Path
    file_name: str
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the file is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEOS

    @property
    def picture(self) -> str:
        """Path of the image or video with the predictions drawn, below ``--out``."""
        return f"pictures/{self.name}{'.mp4' if self.is_video else '.jpg'}"

    def labels(self, frame: int) -> str:
        """Path of the label map, below ``--out``.

        Args:
            frame: number of the frame from 1, of a video.
        """
        if self.is_video:  # no image's folder has this name: the video file has it
            return f"labels/{self.file_name}/{frame:06}.png"
        return f"labels/{self.name}.png"


def find(inputs: Sequence[str], out: Path) -> list[Source]:
    """Find the files that ``inputs`` name, each once, in order.

    - A file is taken, whatever its name.
    - Of a folder, the images and videos directly inside it are taken.
    - Of a pattern such as ``photos/**/*.jpg``, the matching images and videos are
      taken, except those below ``out``.

    Args:
        inputs: files, folders and patterns.
        out: absolute path of the folder for the results.

    Raises:
        InputError: an input names no file.
    """
    paths: dict[Path, None] = {}  # an ordered set
    for name in map(os.path.expanduser, inputs):
        matches = _matches(name, out)
        if not matches:
            raise InputError(
                f"the folder {name} has no images or videos. To take those of its "
                f"subfolders, write '{name.rstrip('/')}/**/*'"
                if os.path.isdir(name)
                else f"no file, folder or pattern matches {name}"
            )
        paths.update((Path(os.path.abspath(path)), None) for path in matches)
    return list(_named(paths))


def _matches(name: str, out: Path) -> list[str]:
    """The files that one file name, folder or pattern stands for, sorted."""
    if os.path.lexists(name) and not os.path.isdir(name):  # also 'photo[1].jpg'
        return [name]
    if os.path.isdir(name):
        paths = [os.path.join(name, file) for file in os.listdir(name)]
    else:
        paths = glob.glob(name, recursive=True)
        paths = [p for p in paths if out not in Path(os.path.abspath(p)).parents]
    # Names that start with a dot are skipped: macOS writes ._photo.jpg for photo.jpg.
    return sorted(
        path
        for path in paths
        if os.path.splitext(path)[1].lower() in IMAGES | VIDEOS
        and not os.path.basename(path).startswith(".")
        and not os.path.isdir(path)
    )


def _named(paths: Iterable[Path]) -> Iterator[Source]:
    """Yield a ``Source`` for each path, with names that differ."""
    root = os.path.commonpath([path.parent for path in paths])
    taken: set[str] = set()
    for path in paths:
        file = path.relative_to(root)
        # a.jpg and a.png would have results of one name; so would A.jpg, where the
        # disk ignores case.
        numbered = (f"{file}-{number}" for number in itertools.count(2))
        names = itertools.chain([str(file.with_suffix("")), str(file)], numbered)
        name = next(name for name in names if name.lower() not in taken)
        taken.add(name.lower())
        yield Source(path, str(file), name)
