"""Where the data of a split is, and the words that name splits and their folders."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .formats.content import Reading

# Whole words of names, in the order in which they are looked for: 'test-dev' is a test
# split, and 'dev' alone is a validation split.
SPLIT_WORDS = {
    "train": ("train", "training", "trainval", "trn", "valminusminival"),
    "val": ("val", "valid", "validation", "validate", "minival"),
    "test": ("test", "testing", "tst"),
}
_LAST_WORDS = {"dev": "val"}
# The words by which tools and people name folders of images, in small letters.
IMAGES = frozenset(
    (
        *("images", "image", "imgs", "img", "img_dir", "jpegimages", "data"),
        "leftimg8bit",
    )
)
# What may stand before or after the word of a split without a gap: 'trainset'.
_CONTENT = (
    "set|split|data|dataset|images?|imgs?|labels?|masks?|json|coco|instances"
    "|annotations?|annos?|anns?|gt"
)
_COMPOUND = re.compile(
    rf"(?:{_CONTENT})?(?P<split>%s)(?:{_CONTENT})?"
    % "|".join(word for words in SPLIT_WORDS.values() for word in words)
)


@dataclass
class SplitPaths:
    """Where the data of one split is.

    Attributes:
        annotations: a COCO file, or a folder of label maps; for other formats the file
            or folder that messages name.
        images: the folder of images.
        read: reads annotations that are neither a COCO file nor label maps.
        not_read: what else there is in the folder, for the report.
    """

    annotations: Path
    images: Path
    read: "Callable[[], Reading] | None" = None
    not_read: str = ""


# Keys are 'train' and, unless a validation split must be drawn, 'val'.
DatasetPaths = dict[str, SplitPaths]


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, divided where letters end or cases change.

    >>> words_of("instances_train2017.json"), words_of("trainSet")
    (['instances', 'train', 'json'], ['train', 'set'])
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.findall(r"[^\W\d_]+", parted)]


def split_of(path: str | PurePath) -> str | None:
    """'train', 'val' or 'test', if a file or a folder above it has a word for it.

    The last name with such a word decides. Words within other words do not count.

    Args:
        path: relative to the data set.

    >>> split_of("train/labels"), split_of("valid.json"), split_of("carnival.json")
    ('train', 'val', None)
    """
    for name in reversed(PurePath(path).parts):
        if split := _split_of_name(name):
            return split
    return None


def _split_of_name(name: str) -> str | None:
    words = words_of(name)
    matches = [match["split"] for word in words if (match := _COMPOUND.fullmatch(word))]
    for split, split_words in SPLIT_WORDS.items():
        if any(word in split_words for word in matches):
            return split
    return next((_LAST_WORDS[word] for word in words if word in _LAST_WORDS), None)
