"""What the readers of all formats share: the content of a COCO file, and problems."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext_dense.utils import files
from convnext_dense.utils.image_content import in_turn, open_image
from convnext_dense.utils.images import ORIENTATION

from ..problems import ProblemType, dropped, error, warning

BAD_FILE = error("annotation files that cannot be read", "export them again")
BAD_OBJECT = dropped("objects that cannot be read", "correct them in the file")
NO_IMAGE = error(
    "annotation files without an image",
    "add the images, or remove these files",
)
TWO_IMAGES = error(
    "annotation files that fit two images",
    "give a file and its image the same name, also inside the file",
)
NO_FILE = error(
    "images of the split's list without an annotation file",
    "add the files, or remove these images from the list",
)
NOT_ANNOTATED = warning(
    "images without an annotation file",
    "not used; an image without objects needs a file, too",
)


@dataclass
class Reading:
    """A split that was read.

    Attributes:
        content: as in a COCO file, with images, annotations and categories.
        source: what was read, for the report.
        problems: the type of each problem that the reader met, and what has it.
    """

    content: dict
    source: str
    problems: list[tuple[ProblemType, str]] = field(default_factory=list)


class Content:
    """Collects images and objects, and numbers them.

    Args:
        folder: of the images; their names are relative to it.
        classes: names in the order of their labels; None sorts the names of all
            objects.
    """

    def __init__(self, folder: Path, classes: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.problems: list[tuple[ProblemType, str]] = []
        self._classes = classes
        self._images: list[dict] = []
        self._objects: list[tuple[str | int, dict]] = []

    def add_image(self, path: Path, size: tuple[int, int] | None = None) -> int:
        """Add an image, and return its id.

        Args:
            size: width and height in pixels, if the annotations say them.
        """
        try:
            name = path.relative_to(self.folder).as_posix()
        except ValueError:  # it is not there: the check of images says so
            name = str(path)
        entry: dict[str, Any] = dict(id=len(self._images) + 1, file_name=name)
        if size:
            entry["width"], entry["height"] = size
        self._images.append(entry)
        return entry["id"]

    def add_object(
        self,
        image_id: int,
        label: str | int,
        corners: Sequence[float],
        where: str,
        mask: list | dict | None = None,
        crowd: bool = False,
    ) -> None:
        """Add an object.

        Args:
            label: the name of its class, or its index in ``classes``.
            corners: left, top, right and bottom in pixels.
            where: its file and place there, which messages name; of no other object.
            mask: polygons, or compressed run lengths.
            crowd: neither background nor trained on.
        """
        left, top, right, bottom = corners
        entry: dict[str, Any] = dict(
            id=where,
            image_id=image_id,
            bbox=[left, top, right - left, bottom - top],
            iscrowd=int(crowd),
        )
        if mask:
            entry["segmentation"] = mask
        self._objects.append((label, entry))

    def problem(self, problem_type: ProblemType, name: str) -> None:
        """Note that ``name``, such as a line of a file, has a problem."""
        self.problems.append((problem_type, name))

    def reading(self, source: str) -> Reading:
        """All that was added, as a COCO file has it."""
        classes = self._classes
        if classes is None:
            classes = sorted({str(label) for label, _ in self._objects})
        ids = {name: number for number, name in enumerate(classes, 1)}
        annotations = [
            dict(entry, category_id=label if isinstance(label, int) else ids[label])
            for label, entry in self._objects
        ]
        categories = [
            dict(id=i, name=name)
            for i, name in enumerate(classes, 0 if self._classes is not None else 1)
        ]
        content = dict(
            images=self._images, annotations=annotations, categories=categories
        )
        return Reading(content, source, self.problems)


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of an image as viewers show it, in pixels, from its header.

    None if the file is no image; the check of images says what is wrong with it.
    """
    try:
        with open_image(files.read_bytes(path)) as image:
            width, height = image.size
            # Of PNG files, the tags may follow the pixels, which Pillow reads then.
            with in_turn(width, height):
                orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's readers raise errors of many types
        return None
    turned = isinstance(orientation, int) and 5 <= orientation <= 8
    return (height, width) if turned else (width, height)


def bounds(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of polygons, lists of x, y, x, y, ..."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
