"""Recognises annotation files of other formats than COCO's, to say what to do instead.

``annotation_tables`` lists the formats.
"""

import csv
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from convnext_dense.errors import InputError

from .annotation_tables import (
    COCO,
    CONVERT,
    CSV,
    DOTA,
    IMAGE_LIST,
    JSON,
    KITTI,
    MOT,
    SUFFIXES,
    XML,
    YOLO_LABELS,
    Format,
)
from .files import read_bytes, read_text
from .json_files import parse_json, read_json
from .xml_files import read_xml

LARGEST = 50_000_000  # bytes; COCO files are larger, those of one image never
HEAD = 65_536  # bytes of a text file that are looked at
PROBED = 5  # files of each type that are looked at in a folder
FOLDERS = 50  # folders in a folder that are looked at


class Recognised(NamedTuple):
    """A file or folder, its format, and what to do instead; as text a sentence."""

    path: str
    name: str
    advice: str

    @property
    def is_read(self) -> bool:
        """Whether ``--data`` reads the format."""
        return self.advice.startswith("--data ")

    def __str__(self) -> str:
        return f"{self.path} is {self.name}: {self.advice}"


def of_json(content: Any) -> Format | None:
    """The format of a JSON file's content; None for COCO's and unknown ones."""
    return next((format for fits, format in JSON if fits(content)), None)


def of_file(path: str | os.PathLike) -> Recognised | None:
    """The format of a file, if it is none of COCO's and known."""
    format = _format_of(path)
    if format is None or format is COCO:
        return None
    return _filled(format, Path(path), _data_folder(Path(path)))


def may_be_coco(path: str | os.PathLike) -> bool:
    """Whether a JSON file has a key of COCO files, or is too large for others."""
    return _format_of(path) is COCO


def _format_of(path: str | os.PathLike) -> Format | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return _of_file(os.fspath(path), status.st_size, status.st_mtime_ns)


def of_folder(folder: Path) -> Recognised | None:
    """The format of the annotations in a folder, or in folders in it.

    The first file that is recognised decides.
    """
    for file in _samples(folder):
        if recognised := of_file(file):
            path = f"{folder} has {os.path.relpath(file, folder)}, which"
            return recognised._replace(path=path)
    return None


def refuse_other_formats(path: Path, content: Any) -> None:
    """Raise an InputError if the content of a JSON file is of another format."""
    if format := of_json(content):
        raise InputError(str(_filled(format, path, _data_folder(path))))


def _filled(format: Format, path: Path, folder: Path) -> Recognised:
    advice = format.advice.replace("{folder}", str(folder))
    return Recognised(str(path), format.name, advice)


def _data_folder(path: Path) -> Path:
    """The data set's folder of an annotation file: above Annotations/ or labels/."""
    folder = path.parent
    for _ in range(2):
        if re.fullmatch(r"(?i)annotations?|labels?|xmls?|ann|json", folder.name):
            return folder.parent
        if folder.parent.name.lower() not in ("annotations", "labels"):
            break
        folder = folder.parent
    return folder


def _samples(folder: Path) -> Iterator[Path]:
    """Some files of each type in a folder, and in the folders in it."""
    folders = [folder]
    for _ in range(3):
        below = []
        for parent in folders:
            try:
                entries = sorted(parent.iterdir())
            except OSError:
                continue
            number: dict[str, int] = {}
            for path in entries:
                if path.name[0] == ".":
                    continue
                if path.is_dir():
                    below.append(path)
                    continue
                suffix = path.suffix.lower()
                number[suffix] = number.get(suffix, 0) + 1
                if number[suffix] <= PROBED:
                    yield path
        folders = below[:FOLDERS]


@functools.lru_cache(maxsize=1000)
def _of_file(path: str, size: int, changed: int) -> Format | None:
    """``of_file`` for a file of this size that was changed then."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if re.search(r"\.tfrecord-\d+-of-\d+$", path):
        return SUFFIXES[".tfrecord"]
    try:
        match suffix:
            case ".json" | ".geojson":
                return _of_json_file(path) if size <= LARGEST else COCO
            case ".jsonl" | ".ndjson" if size <= LARGEST:
                first = read_text(path).partition("\n")[0]
                return of_json([parse_json(first, path)]) or Format(
                    "a file of JSON lines", CONVERT
                )
            case ".xml" if size <= LARGEST:
                root = read_xml(path)
                return next((format for fits, format in XML if fits(root)), None)
            case ".csv" | ".tsv":
                return _of_csv(_head(path))
            case ".txt":
                return _of_text(_head(path))
            case ".yaml" | ".yml":
                return _of_yaml(_head(path), path)
    except InputError:
        pass
    return None


def _of_json_file(path: str) -> Format | None:
    content = read_json(path)
    if format := of_json(content):
        return format
    is_coco = isinstance(content, dict) and not {"images", "annotations"}.isdisjoint(
        content
    )
    return COCO if is_coco else None


def _head(path: str) -> list[str]:
    """The first lines of a text file."""
    return read_bytes(path)[:HEAD].decode("utf-8", "replace").splitlines()


def _of_csv(lines: list[str]) -> Format | None:
    for line in lines[:1]:
        words = {word.strip() for word in next(csv.reader([line]), [])}
        for needed, format in CSV:
            if needed <= words:
                return format
        return Format("a table", f"{CONVERT}: images, annotations and categories")
    return None


def _of_text(lines: list[str]) -> Format | None:
    """Of label files: by the number of values on a line, and which are numbers."""
    lines = [line for line in lines if line.strip()]
    lines = [line for line in lines if not re.match(r"(imagesource|gsd):", line)]
    if not lines:
        return None
    values = lines[0].split()
    numbers = [_is_number(value) for value in values]
    if len(values) in (9, 10) and all(numbers[:8]) and not numbers[8]:
        return DOTA
    if len(values) in (15, 16) and not numbers[0] and all(numbers[1:]):
        return KITTI
    if len(values) >= 5 and all(numbers) and values[0].isdigit():
        return YOLO_LABELS
    cells = lines[0].split(",")
    if len(cells) >= 9 and all(_is_number(cell) for cell in cells):
        return MOT
    if re.search(r"(?i)\.(jpe?g|png|bmp|tiff?|webp)$", lines[0].strip()):
        return IMAGE_LIST
    return None


def _of_yaml(lines: list[str], path: str) -> Format | None:
    keys = {line.partition(":")[0].strip() for line in lines if ":" in line}
    if "names" in keys and keys & {"train", "val", "valid"}:
        return Format("a description of YOLO data", f"--data {path} reads it")
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
