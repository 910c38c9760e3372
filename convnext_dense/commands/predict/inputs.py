"""Find the files to predict from the files, folders and patterns a user names."""

import functools
import glob
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from convnext_dense.errors import InputError

from .recognition import Media, recognize

DRAWN = ("pictures", "crops", "panoptic")  # folders of --out with pictures
_OF_DESKTOPS = ("thumbs.db", "desktop.ini", "icon\r")  # in any folder; not named


class Source(NamedTuple):
    """A file to predict.

    Attributes:
        path: absolute path of the file.
        file_name: its path relative to the folder that contains all files to predict.
        name: ``file_name`` without its suffix, made unique; its results are named so.
        media: whether it is an image, an animation or a video.
    """

    path: Path
    file_name: str
    name: str
    media: Media

    @property
    def is_video(self) -> bool:
        """Whether the file has frames: a video or an animation."""
        return self.media is not Media.IMAGE

    @property
    def picture(self) -> str:
        """Path of the image or video with the predictions drawn, below ``--out``."""
        return f"pictures/{self.name}{'.mp4' if self.is_video else '.jpg'}"

    def still(self, frame: int) -> str:
        """Name of an image, or of a frame of a video, for files with its results.

        Args:
            frame: number of the frame from 1, of a video.
        """
        if self.is_video:  # no image's folder has this name: the video file has it
            return f"{self.file_name}/{frame:06}"
        return self.name

    def labels(self, frame: int) -> str:
        """Path of the label map, below ``--out``; ``frame`` as for ``still``."""
        return f"labels/{self.still(frame)}.png"


class Selection(NamedTuple):
    """The files that the user names.

    Attributes:
        sources: those to predict.
        left_out: those in folders and patterns that are neither images nor videos.
        folders: subfolders of the folders, whose files are not taken.
        results: drawings, crops and label maps of an earlier prediction.
    """

    sources: list[Source]
    left_out: list[str]
    folders: list[str]
    results: list[str]


def find(inputs: Sequence[str], out: Path) -> Selection:
    """Find the files that ``inputs`` name, each once, in order.

    - A file is taken, whatever its name.
    - Of a folder, the images and videos directly inside it are taken.
    - Of a pattern such as ``photos/**/*.jpg``, the matching images and videos are
      taken, except those below ``out``.

    Args:
        inputs: files, folders and patterns.
        out: absolute path of the folder for the results.

    Raises:
        InputError: an input names no image or video.
    """
    media: dict[Path, Media] = {}
    left_out, folders, results = list[str](), list[str](), list[str]()
    for name in map(os.path.expanduser, inputs):
        if os.path.lexists(name) and not os.path.isdir(name):  # also 'photo[1].jpg'
            path = Path(os.path.abspath(name))
            media.setdefault(path, recognize(path) or Media.IMAGE)
            continue
        usable = False
        for file in _candidates(name, out):
            path = Path(os.path.abspath(file))
            if os.path.isdir(file):
                folders.append(file)
            elif path in media:
                usable = True
            elif _is_result(path):
                usable = True
                results.append(file)
            elif content := recognize(path):
                usable = True
                media[path] = content
            elif path.name.lower() not in _OF_DESKTOPS:
                left_out.append(file)
        if not usable:
            raise InputError(_nothing(name))
    if not media:
        raise InputError(
            f"all {len(results)} images are results of an earlier prediction, such as "
            f"{results[0]}: name the images themselves"
        )
    unique = (list(dict.fromkeys(names)) for names in (left_out, folders, results))
    return Selection(list(_named(media)), *unique)


def _nothing(name: str) -> str:
    """Why an input that is no file leads to no file."""
    if os.path.isdir(name):
        return (
            f"the folder {name} has no images or videos. To take those of its "
            f"subfolders, write '{name.rstrip('/')}/**/*'"
        )
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", name):
        return f"{name} is the address of a file elsewhere: download it, and name that"
    if name == "-":
        return "standard input (-) is not read: name a file"
    if name.isdecimal():
        return f"no file is called {name}; cameras are not read: record a video"
    return f"no file, folder or pattern matches {name}"


def _candidates(name: str, out: Path) -> list[str]:
    """The files and folders in a folder, or the files of a pattern, sorted."""
    if os.path.isdir(name):
        paths = [os.path.join(name, file) for file in os.listdir(name)]
        paths = [p for p in paths if os.path.abspath(p) != str(out)]
    else:
        paths = [p for p in _expand(name) if not os.path.isdir(p)]
        paths = [p for p in paths if out not in Path(os.path.abspath(p)).parents]
    # Names that start with a dot are skipped: macOS writes ._photo.jpg for photo.jpg.
    return sorted(p for p in paths if not os.path.basename(p).startswith("."))


def _is_result(path: Path) -> bool:
    """Whether a file is a picture of an earlier prediction, by the files beside it."""
    return any(
        folder.name in DRAWN and _has_results(folder.parent) for folder in path.parents
    )


@functools.cache
def _has_results(folder: Path) -> bool:
    """Whether a folder has the json files that a prediction writes."""
    names = ("predictions.json", "panoptic.json")
    return (folder / "images.json").is_file() and any(
        (folder / name).is_file() for name in names
    )


def _expand(pattern: str) -> Iterator[str]:
    """The paths that match a pattern, as ``glob.glob(recursive=True)`` finds them.

    But '**' takes each folder once. Links lead glob to a folder again and again, by
    2^40 ways if two of them lead to their own folder.
    """
    names = pattern.replace(os.sep, "/").split("/")
    if "**" not in names:
        yield from glob.glob(pattern)
        return
    place = names.index("**")
    tail = "/".join(names[place + 1 :] or ["*"]).lstrip("/")
    bases = glob.glob("/".join([*names[:place], ""])) if place else [""]
    for base in bases:
        for folder in _folders(base):
            yield from _expand(os.path.join(glob.escape(folder), tail))


def _folders(base: str) -> Iterator[str]:
    """A folder and all below it, each once, also through links; hidden ones not."""
    real, linked = [base], list[str]()
    seen: set[tuple[int, int]] = set()
    while real or linked:
        # Links last: a folder's own path is better than that of a link.
        folder = real.pop() if real else linked.pop()
        try:
            status = os.stat(folder or ".")
            entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
        except OSError:  # not a folder, not readable, or a loop of links
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        yield folder
        for entry in entries:
            if not entry.name.startswith("."):
                path = os.path.join(folder, entry.name)
                if entry.is_symlink():
                    linked.append(path)
                elif entry.is_dir():
                    real.append(path)


def _named(media: Mapping[Path, Media]) -> Iterator[Source]:
    """Yield a ``Source`` for each path, with names that differ."""
    root = os.path.commonpath([path.parent for path in media])
    taken: set[str] = set()
    for path in media:
        file = path.relative_to(root)
        # a.jpg and a.png would have results of one name; so would A.jpg, where the
        # disk ignores case.
        numbered = (f"{file}-{number}" for number in itertools.count(2))
        names = itertools.chain([str(file.with_suffix("")), str(file)], numbered)
        name = next(name for name in names if name.lower() not in taken)
        taken.add(name.lower())
        yield Source(path, str(file), name, media[path])
