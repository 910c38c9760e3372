"""Formats of annotations that are not COCO's: their content, names, and what to do.

There is a table for each type of file; the first entry that fits is taken. ``{folder}``
in the advice stands for the folder of the data set.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

LOOKED_AT = 50  # entries of a list

_CVAT = "in CVAT, export the task again as 'COCO 1.0'"
_VIA = (
    "in VIA, choose Annotation > Export Annotations (COCO format); a VIA 1 project can "
    "be opened in VIA 2 first"
)
_ROBOFLOW = "in Roboflow, export the version again in the format COCO"
READ = "--data {folder} reads it"
CONVERT = "convert it to a COCO file"


class Format(NamedTuple):
    """A format of annotations.

    Attributes:
        name: with an article: 'a VIA project'.
        advice: what to do instead.
    """

    name: str
    advice: str


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


JSON: tuple[tuple[Callable[[Any], bool], Format], ...] = (
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
        Format("a labelme file of one image", READ),
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
        Format("a CreateML file", f"{_ROBOFLOW}, or {CONVERT}"),
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
        Format("a Labelbox export", f"{CONVERT} with Labelbox's converter"),
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
            f"{CONVERT}",
        ),
    ),
    (
        _entries_with("name", "labels"),
        Format("a BDD100K file", f"{CONVERT} with bdd100k.label.to_coco"),
    ),
    (
        _keys("type", "features"),
        Format(
            "a GeoJSON file, whose coordinates are of a map",
            f"{CONVERT} with boxes and polygons in pixels",
        ),
    ),
)

# By the outermost tag of an XML file.
XML: tuple[tuple[Callable[[Any], bool], Format], ...] = (
    (
        lambda e: e.tag == "annotation" and e.find("object/polygon/pt") is not None,
        Format(
            "an annotation of LabelMe's web tool",
            f"import it in CVAT as 'LabelMe 3.0', then {_CVAT.partition(', ')[2]}",
        ),
    ),
    (
        lambda e: e.tag == "annotation" and e.find("object/trackid") is not None,
        Format("an ImageNet VID annotation (Pascal VOC XML)", READ),
    ),
    (lambda e: e.tag == "annotation", Format("a Pascal VOC file of one image", READ)),
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
        Format("a dlib (imglab) file", CONVERT),
    ),
)

# By the words in the first line of a CSV file.
CSV: tuple[tuple[set[str], Format], ...] = (
    ({"region_shape_attributes"}, Format("a VIA table of annotations", _VIA)),
    (
        {"ImageID", "LabelName", "XMin"},
        Format(
            "an Open Images table",
            f"{CONVERT}, or download the data with FiftyOne and export it as "
            "COCODetectionDataset",
        ),
    ),
    (
        {"class", "filename", "xmin", "ymax"},
        Format("a table of boxes (TensorFlow's CSV)", f"{_ROBOFLOW}, or {CONVERT}"),
    ),
    ({"image", "label", "xmin"}, Format("a VoTT table of boxes", CONVERT)),
    (
        {"image_id", "bbox"},
        Format("a table of boxes", CONVERT),
    ),
)

SUFFIXES: dict[str, Format] = {
    ".tfrecord": Format("a TFRecord file", f"{_ROBOFLOW}, or {CONVERT}"),
    ".record": Format("a TFRecord file", f"{_ROBOFLOW}, or {CONVERT}"),
    ".parquet": Format("a Parquet table", CONVERT),
    ".zip": Format("an archive", "unpack it, and give what is in it"),
    ".tar": Format("an archive", "unpack it, and give what is in it"),
    ".gz": Format("a compressed file", "unpack it, and give what is in it"),
    ".7z": Format("an archive", "unpack it, and give what is in it"),
    ".rar": Format("an archive", "unpack it, and give what is in it"),
    ".mat": Format("a MATLAB file", CONVERT),
    ".vott": Format(
        "a VoTT project",
        "in VoTT, export the project as Pascal VOC, which --data FOLDER reads",
    ),
    ".xlsx": Format("a spreadsheet", CONVERT),
}

DOTA = Format(
    "a DOTA file of oriented boxes",
    f"{CONVERT}: the detectors here have upright boxes",
)
KITTI = Format("a KITTI label file", CONVERT)
YOLO_LABELS = Format("a YOLO label file of one image", READ)
MOT = Format("a MOT table of tracks", CONVERT)
# A COCO file, as far as its keys say.
COCO = Format("a COCO file", "")
IMAGE_LIST = Format(
    "a list of images", "give the annotations of these images, or --data {folder}"
)
