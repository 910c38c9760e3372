"""Recognises annotation files of other formats than COCO's, to say what to do instead.

A table for each type of file: how the format is recognised, its name, and what to do.
``{path}`` in the advice stands for the file, ``{folder}`` for the data set's folder.
"""

import csv
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from convnext_dense.errors import InputError

from .files import read_bytes, read_text
from .json_files import parse_json, read_json
from .xml_files import read_xml

LARGEST = 50_000_000  # bytes; COCO files are larger, those of one image never
HEAD = 65_536  # bytes of a text file that are looked at
PROBED = 5  # files of each type that are looked at in a folder
LOOKED_AT = 50  # entries of a list

_CVAT = "in CVAT, export the task again as 'COCO 1.0'"
_VIA = (
    "in VIA, choose Annotation > Export Annotations (COCO format); a VIA 1 project can "
    "be opened in VIA 2 first"
)
_ROBOFLOW = "in Roboflow, export the version again in the format COCO"
_READ = "--data {folder} reads it"
_CONVERT = "convert it to a COCO file"


class Format(NamedTuple):
    """A format of annotations.

    Attributes:
        name: with an article: 'a VIA project'.
        advice: what to do instead.
    """

    name: str
    advice: str


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


def _keys(*keys: str) -> Callable[[Any], bool]:
    """Whether a JSON object has all keys."""
    return lambda c: isinstance(c, dict) and all(key in c for key in keys)


def _entries_with(*keys: str) -> Callable[[Any], bool]:
    """Whether a JSON list holds objects that have all keys."""
    return lambda c: _all_have(c, keys)


def _all_have(entries: Any, keys: tuple[str, ...]) -> bool:
    if not isinstance(entries, list) or not entries:
        return False
    return all(
        isinstance(entry, dict) and all(key in entry for key in keys)
        for entry in entries[:LOOKED_AT]
    )


def _is_via_1(content: Any) -> bool:
    """VIA 1, and what VIA 2 exports as JSON: objects of files by 'name + size'."""
    if not isinstance(content, dict) or not content:
        return False
    first = list(content.values())[:LOOKED_AT]
    return _all_have(first, ("filename", "regions"))


def _is_panoptic(content: Any) -> bool:
    return isinstance(content, dict) and _all_have(
        content.get("annotations"), ("segments_info",)
    )


def _is_captions(content: Any) -> bool:
    """Captions, and nothing to detect."""
    if not isinstance(content, dict):
        return False
    annotations = content.get("annotations")
    return _all_have(annotations, ("caption",)) and not _all_have(
        annotations, ("bbox",)
    )


def _is_keypoints_only(content: Any) -> bool:
    """Keypoints without boxes. COCO's own have boxes and masks, and can be used."""
    if not isinstance(content, dict):
        return False
    annotations = content.get("annotations")
    return _all_have(annotations, ("keypoints",)) and not any(
        _all_have(annotations, (key,)) for key in ("bbox", "segmentation")
    )


def _is_questions(content: Any) -> bool:
    return isinstance(content, dict) and (
        _all_have(content.get("questions"), ("question",))
        or _all_have(content.get("annotations"), ("question_id",))
    )


def _is_label_studio(content: Any) -> bool:
    if not isinstance(content, list):
        return False
    return _all_have(content, ("data", "annotations")) or _all_have(
        content, ("data", "completions")
    )


def _is_label_studio_min(content: Any) -> bool:
    """JSON-MIN: the values of a task, and of whom and when."""
    return _all_have(content, ("id", "annotator")) or _all_have(
        content, ("annotation_id", "lead_time")
    )


# The first that fits is taken.
_JSON: tuple[tuple[Callable[[Any], bool], Format], ...] = (
    (
        _is_panoptic,
        Format(
            "a COCO panoptic file",
            "give the instances file of the same data (instances_*.json), or its label "
            "maps as --train-labels",
        ),
    ),
    (
        _is_captions,
        Format(
            "a COCO captions file, without boxes",
            "give the instances file of the same data (instances_*.json)",
        ),
    ),
    (
        _is_keypoints_only,
        Format(
            "a file of keypoints without boxes",
            "give the instances file of the same data, or one whose objects have bbox",
        ),
    ),
    (
        _is_questions,
        Format(
            "a file of questions or answers about images (VQA)",
            "give the instances file of the same data (instances_*.json)",
        ),
    ),
    (
        _keys("categories", "items", "info"),
        Format("a Datumaro file", f"{_CVAT}, or run datum convert with -f coco"),
    ),
    (
        lambda c: _keys("shapes")(c) and ("imagePath" in c or "imageData" in c),
        Format("a labelme file of one image", _READ),
    ),
    (_keys("_via_img_metadata"), Format("a VIA 2 project", _VIA)),
    (
        lambda c: _keys("project", "metadata", "view")(c),
        Format("a VIA 3 project", "in VIA, export it as COCO"),
    ),
    (_is_via_1, Format("a VIA file of annotations", _VIA)),
    (
        _is_label_studio,
        Format(
            "a Label Studio export in its own JSON",
            "in Label Studio, export the project again as COCO",
        ),
    ),
    (
        _is_label_studio_min,
        Format(
            "a Label Studio export in JSON-MIN",
            "in Label Studio, export the project again as COCO",
        ),
    ),
    (
        lambda c: _keys("classes")(c) and ("projectType" in c or "tags" in c),
        Format(
            "Supervisely's meta.json, the classes of a project",
            "in Supervisely, run the app Export to COCO on the project",
        ),
    ),
    (
        _keys("objects", "size", "tags"),
        Format(
            "a Supervisely annotation of one image",
            "in Supervisely, run the app Export to COCO on the project",
        ),
    ),
    (
        lambda c: _keys("asset", "regions")(c) or _keys("assets", "tags")(c),
        Format(
            "a VoTT file",
            "in VoTT, export the project as Pascal VOC, which --data FOLDER reads",
        ),
    ),
    (
        lambda c: _keys("samples")(c) and isinstance(c["samples"], list),
        Format(
            "a FiftyOne data set (samples.json)",
            "in Python, dataset.export(export_dir=DIR, "
            "dataset_type=fiftyone.types.COCODetectionDataset), then --data DIR",
        ),
    ),
    (
        _entries_with("image", "annotations"),
        Format("a CreateML file", f"{_ROBOFLOW}, or {_CONVERT}"),
    ),
    (
        lambda c: (
            _entries_with("image_id", "category_id", "score")(c)
            or _entries_with("image_id", "category_id", "bbox")(c)
        ),
        Format(
            "a COCO results file, a list of predictions",
            "give the file of annotations, which has images and categories",
        ),
    ),
    (
        lambda c: (
            _entries_with("data_row")(c)
            or _entries_with("Labeled Data")(c)
            or _keys("data_row", "projects")(c)
        ),
        Format("a Labelbox export", f"{_CONVERT} with Labelbox's converter"),
    ),
    (
        _keys("item", "annotations", "version"),
        Format("a V7 Darwin file of one image", "in V7, export the dataset as COCO"),
    ),
    (
        _keys("imgHeight", "imgWidth", "objects"),
        Format(
            "a Cityscapes file of polygons",
            "give the label maps (*_labelTrainIds.png) as --train-labels, or "
            f"{_CONVERT}",
        ),
    ),
    (
        _entries_with("name", "labels"),
        Format("a BDD100K file", f"{_CONVERT} with bdd100k.label.to_coco"),
    ),
    (
        _keys("type", "features"),
        Format(
            "a GeoJSON file, whose coordinates are of a map",
            f"{_CONVERT} with boxes and polygons in pixels",
        ),
    ),
)

# By the outermost tag of an XML file.
_XML: tuple[tuple[Callable[[Any], bool], Format], ...] = (
    (
        lambda e: e.tag == "annotation" and e.find("object/polygon/pt") is not None,
        Format(
            "an annotation of LabelMe's web tool",
            f"import it in CVAT as 'LabelMe 3.0', then {_CVAT.partition(', ')[2]}",
        ),
    ),
    (
        lambda e: e.tag == "annotation" and e.find("object/trackid") is not None,
        Format("an ImageNet VID annotation (Pascal VOC XML)", _READ),
    ),
    (lambda e: e.tag == "annotation", Format("a Pascal VOC file of one image", _READ)),
    (
        lambda e: e.tag == "annotations" and e.find("track") is not None,
        Format("a CVAT file (CVAT for video)", _CVAT),
    ),
    (
        lambda e: e.tag == "annotations" and e.find("image") is not None,
        Format("a CVAT file (CVAT for images)", _CVAT),
    ),
    (
        lambda e: e.tag == "annotations" and e.find("version") is not None,
        Format("a CVAT file without images", _CVAT),
    ),
    (
        lambda e: e.tag == "dataset" and e.find("images") is not None,
        Format("a dlib (imglab) file", _CONVERT),
    ),
)

# By the words in the first line of a CSV file.
_CSV: tuple[tuple[set[str], Format], ...] = (
    ({"region_shape_attributes"}, Format("a VIA table of annotations", _VIA)),
    (
        {"ImageID", "LabelName", "XMin"},
        Format(
            "an Open Images table",
            f"{_CONVERT}, or download the data with FiftyOne and export it as "
            "COCODetectionDataset",
        ),
    ),
    (
        {"class", "filename", "xmin", "ymax"},
        Format("a table of boxes (TensorFlow's CSV)", f"{_ROBOFLOW}, or {_CONVERT}"),
    ),
    ({"image", "label", "xmin"}, Format("a VoTT table of boxes", _CONVERT)),
    (
        {"image_id", "bbox"},
        Format("a table of boxes", _CONVERT),
    ),
)

_SUFFIXES: dict[str, Format] = {
    ".tfrecord": Format("a TFRecord file", f"{_ROBOFLOW}, or {_CONVERT}"),
    ".record": Format("a TFRecord file", f"{_ROBOFLOW}, or {_CONVERT}"),
    ".parquet": Format("a Parquet table", _CONVERT),
    ".zip": Format("an archive", "unpack it, and give what is in it"),
    ".tar": Format("an archive", "unpack it, and give what is in it"),
    ".gz": Format("a compressed file", "unpack it, and give what is in it"),
    ".7z": Format("an archive", "unpack it, and give what is in it"),
    ".rar": Format("an archive", "unpack it, and give what is in it"),
    ".mat": Format("a MATLAB file", _CONVERT),
    ".vott": Format(
        "a VoTT project",
        "in VoTT, export the project as Pascal VOC, which --data FOLDER reads",
    ),
    ".xlsx": Format("a spreadsheet", _CONVERT),
}

_DOTA = Format(
    "a DOTA file of oriented boxes",
    f"{_CONVERT}: the detectors here have upright boxes",
)
_KITTI = Format("a KITTI label file", _CONVERT)
_YOLO_LABELS = Format("a YOLO label file of one image", _READ)
_MOT = Format("a MOT table of tracks", _CONVERT)
# A COCO file, as far as its keys say.
_COCO = Format("a COCO file", "")
_IMAGE_LIST = Format(
    "a list of images", "give the annotations of these images, or --data {folder}"
)


def of_json(content: Any) -> Format | None:
    """The format of a JSON file's content; None for COCO's and unknown ones."""
    return next((format for fits, format in _JSON if fits(content)), None)


def of_file(path: str | os.PathLike) -> Recognised | None:
    """The format of a file, if it is none of COCO's and known."""
    format = _format_of(path)
    if format is None or format is _COCO:
        return None
    return _filled(format, Path(path), _data_folder(Path(path)))


def may_be_coco(path: str | os.PathLike) -> bool:
    """Whether a JSON file has a key of COCO files, or is too large for others."""
    return _format_of(path) is _COCO


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
        folders = below[:LOOKED_AT]


@functools.lru_cache(maxsize=1000)
def _of_file(path: str, size: int, changed: int) -> Format | None:
    """``of_file`` for a file of this size that was changed then."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if re.search(r"\.tfrecord-\d+-of-\d+$", path):
        return _SUFFIXES[".tfrecord"]
    try:
        match suffix:
            case ".json" | ".geojson":
                return _of_json_file(path) if size <= LARGEST else _COCO
            case ".jsonl" | ".ndjson" if size <= LARGEST:
                first = read_text(path).partition("\n")[0]
                return of_json([parse_json(first, path)]) or Format(
                    "a file of JSON lines", _CONVERT
                )
            case ".xml" if size <= LARGEST:
                root = read_xml(path)
                return next((format for fits, format in _XML if fits(root)), None)
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
    return _COCO if is_coco else None


def _head(path: str) -> list[str]:
    """The first lines of a text file."""
    return read_bytes(path)[:HEAD].decode("utf-8", "replace").splitlines()


def _of_csv(lines: list[str]) -> Format | None:
    for line in lines[:1]:
        words = {word.strip() for word in next(csv.reader([line]), [])}
        for needed, format in _CSV:
            if needed <= words:
                return format
        return Format("a table", f"{_CONVERT}: images, annotations and categories")
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
        return _DOTA
    if len(values) in (15, 16) and not numbers[0] and all(numbers[1:]):
        return _KITTI
    if len(values) >= 5 and all(numbers) and values[0].isdigit():
        return _YOLO_LABELS
    cells = lines[0].split(",")
    if len(cells) >= 9 and all(_is_number(cell) for cell in cells):
        return _MOT
    if re.search(r"(?i)\.(jpe?g|png|bmp|tiff?|webp)$", lines[0].strip()):
        return _IMAGE_LIST
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
