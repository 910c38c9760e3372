"""The words that tools and people add to the names of images and label maps."""

import re
from collections.abc import Container, Iterator
from functools import lru_cache
from pathlib import PurePosixPath

from convnext_dense.utils.images import SUFFIXES as IMAGE_SUFFIXES
from convnext_dense.utils.text import fold

# Words, in small letters, that tools and people add to the names of label maps: 'l' is
# CamVid's, 'lab' FloodNet's, 'manual1' DRIVE's, 'gtfine' and 'labelids' Cityscapes'.
_LABEL_WORDS = """
    mask masks matte label labels lbl lbls lab labelmap seg segs segmap segmentation
    segmentations segmentationclass semantic semseg gt gts groundtruth target targets
    annotation annotations annot anno annos machine l manual1 gtfine gtcoarse labelids
    labeltrainids
"""
LABEL_WORDS = frozenset(_LABEL_WORDS.split())
# Words that they add to the names of photographs: 'sat' is DeepGlobe's.
_IMAGE_WORDS = """
    image images img imgs photo photos picture pictures pic pics frame frames scan rgb
    raw orig original input inputs sat leftimg8bit jpegimages training test
"""
IMAGE_WORDS = frozenset(_IMAGE_WORDS.split())
# Versions of one label map, the best first. '' is a name without such a word.
VERSIONS = ("labeltrainids", "labelids", "", "color", "colors", "colour")
COLORED = VERSIONS[3:]
# Pictures beside label maps that have no classes: they number objects, or are drawn to
# be looked at.
OBJECT_NUMBERS = ("instanceids", "instancetrainids")
NO_CLASSES = (
    *OBJECT_NUMBERS,
    *("instance", "instances", "panoptic", "overlay", "vis", "viz", "visualization"),
    *("preview", "blend", "fuse", "disparity", "depth"),
)
# A word, a number, or what is between them.
TOKEN = re.compile(r"leftimg8bit|manual1|[^\W\d_]+|\d+|[\W_]+")


def suffix(name: str) -> str:
    """The ending of a file's name, such as '.png', in small letters."""
    return PurePosixPath(name).suffix.lower()


def has_label_word(name: str) -> bool:
    """Whether a path has a label word: in a folder, or first or last in the name."""
    path = PurePosixPath(folded(name))
    folders = path.parts[:-1]
    words = {word for folder in folders for word in TOKEN.findall(folder)}
    return not LABEL_WORDS.isdisjoint(words) or any(True for _ in stripped(name))


def stem_of(name: str) -> str:
    """The path without the file's last ending."""
    return str(PurePosixPath(name).with_suffix(""))


@lru_cache(1 << 18)
def folded(name: str) -> str:
    """The path without the file's ending, composed and in small letters.

    An image's ending within the name of a label map is left out, too.
    """
    stem = stem_of(name)
    if suffix(stem) in IMAGE_SUFFIXES:
        stem = stem_of(stem)
    return fold(stem)


def stripped(name: str) -> Iterator[str]:
    """The folded path without label words at the end or beginning of its name."""
    path = PurePosixPath(folded(name))
    words = {*LABEL_WORDS, *VERSIONS, *NO_CLASSES}
    tokens = TOKEN.findall(path.name)
    while len(tokens) > 1:
        if tokens[-1] in words and (len(tokens[-1]) > 1 or not tokens[-2].isalnum()):
            tokens.pop()
        elif tokens[0] in words:
            del tokens[0]
        else:
            break
        while tokens and not tokens[-1].isalnum():
            tokens.pop()
        while tokens and not tokens[0].isalnum():
            del tokens[0]
        if tokens:
            yield str(path.with_name("".join(tokens)))


def without_label_words(name: str, stems: Container[str]) -> str:
    """The first of ``stripped`` that is in ``stems``; empty if none is."""
    return next((stem for stem in stripped(name) if stem in stems), "")


def core_of(name: str, without: int | None = None) -> tuple[str, ...]:
    """The letters and numbers of a path without the words of images and label maps.

    Args:
        without: the place of one more that is left out.
    """
    tokens = TOKEN.findall(folded(name))
    words = (*LABEL_WORDS, *IMAGE_WORDS, *COLORED)
    core = [t for t in tokens if t[0].isalnum() and t not in words]
    if without is not None:
        del core[without]
    return tuple(core)


def core_of_label_map(name: str) -> tuple[str, ...]:
    """The ``core_of`` of a path with a label word; empty for another path."""
    return core_of(name) if has_label_word(name) else ()
