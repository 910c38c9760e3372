"""Pairs images with label maps by their names.

Tools name the two files of a pair alike (``a.jpg``, ``a.png``), add a word to the label
map (``a_mask.png``), or name both with words (``image_1.jpg``, ``mask_1.png``).
"""

import difflib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from convnext_dense.errors import InputError
from convnext_dense.utils.images import SUFFIXES as IMAGE_SUFFIXES
from convnext_dense.utils.text import few

from .label_files import LOSSY_SUFFIXES, SUFFIXES
from .label_words import (
    COLORED,
    NO_CLASSES,
    OBJECT_NUMBERS,
    TOKEN,
    VERSIONS,
    core_of,
    core_of_label_map,
    folded,
    has_label_word,
    stem_of,
    stripped,
    suffix,
    without_label_words,
)

# What other files beside images are.
OTHER_FILES = {
    ".txt": "perhaps YOLO labels: give their data set's folder as --data, for a "
    "detector",
    ".xml": "perhaps Pascal VOC's boxes: give their data set's folder as --data, for a "
    "detector",
    ".json": "perhaps labelme's polygons or COCO's: give their data set's folder as "
    "--data, for a detector",
    ".npz": "archives of arrays: save each label map with numpy.save as .npy",
    ".mat": "MATLAB's: save the label maps as PNG",
}
NEAREST_OF = 2000  # names among which the nearest one is looked for

Key = Callable[[str], Hashable]


@dataclass
class Pairing:
    """Images and their label maps.

    Attributes:
        pairs: the label map of each image.
        by_words: the images whose label maps have other names than they.
        images: those without a label map.
        maps: label maps without an image.
        versions: for label maps with several versions, the one that is used and the
            words of the others.
    """

    images: list[str]
    maps: list[str]
    pairs: dict[str, str] = field(default_factory=dict)
    by_words: list[str] = field(default_factory=list)
    versions: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, pairs: Iterable[tuple[str, str]], by_words: bool = False) -> None:
        """Move images and label maps that belong together to ``pairs``."""
        new = dict(pairs)
        self.pairs |= new
        if by_words:
            self.by_words += new
        taken = set(new.values())
        self.images = [name for name in self.images if name not in new]
        self.maps = [name for name in self.maps if name not in taken]


def pair(images: Sequence[str], maps: Sequence[str], colored: bool = False) -> Pairing:
    """Pair each image with its label map.

    Args:
        images, maps: paths, relative and with '/'.
        colored: whether label maps in colours are the ones to take, of several
            versions.

    Raises:
        InputError: two label maps fit one image, or two images one label map.
    """
    maps, versions = _one_version(maps, colored)
    result = Pairing(list(images), maps, versions=versions)

    def match(image_key: Key, map_key: Key, by_words: bool = False) -> None:
        pairs = list(_match(result.images, result.maps, image_key, map_key))
        result.add(pairs, by_words)

    match(stem_of, stem_of)
    match(str, stem_of, by_words=True)  # im0.jpg and im0.jpg.png
    match(folded, folded, by_words=True)
    _check_alone(result)
    stems = {folded(name) for name in result.images}
    match(folded, partial(without_label_words, stems=stems), by_words=True)
    match(core_of, core_of, by_words=True)
    result.add(_by_ending(result.images, result.maps), by_words=True)
    for place in (0, -1):  # train_1.jpg and mask_1.png
        words = {(core_of(name) or ("",))[place] for name in result.images}
        if len(words) == 1 and words.pop().isalpha():
            match(partial(core_of, without=place), core_of_label_map, by_words=True)
    if all("/" not in name for name in result.maps):  # and images in folders
        match(_base(folded), _base(folded), by_words=True)
        stems = {folded(PurePosixPath(name).name) for name in result.images}
        bare = partial(without_label_words, stems=stems)
        match(_base(folded), bare, by_words=True)
    result.by_words.sort()
    return result


def separate(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Divide the files of one folder into photographs and label maps.

    A file is a label map if its name is another file's and a label word, if a JPEG has
    its name, or if it has a label word and no other file adds one to its name.

    Args:
        names: paths, relative and with '/'.
    """
    names = [name for name in names if suffix(name) in {*IMAGE_SUFFIXES, *SUFFIXES}]
    stems = {folded(name) for name in names}
    bases = {name: stems.intersection(stripped(name)) for name in names}
    all_bases = set().union(*bases.values())
    jpegs = {
        folded(name)
        for name in names
        if suffix(name) in LOSSY_SUFFIXES and not bases[name]
    }

    # JPEGs such as mask_1.jpg beside image_1.jpg.
    cores = {core_of(name) for name in names if not has_label_word(name)}
    worded = {folded(n) for n in names if has_label_word(n) and core_of(n) in cores}
    worded -= {folded(n) for n in names if suffix(n) not in LOSSY_SUFFIXES}

    def is_map(name: str) -> bool:
        if suffix(name) in LOSSY_SUFFIXES and folded(name) in all_bases:
            return False
        if bases[name] or suffix(name) not in IMAGE_SUFFIXES:
            return True
        if suffix(name) in LOSSY_SUFFIXES:
            return folded(name) in worded
        if folded(name) in jpegs:
            return True
        return folded(name) not in all_bases and has_label_word(name)

    maps = {name for name in names if is_map(name)}
    return [n for n in names if n not in maps], [n for n in names if n in maps]


def pair_folders(
    folder: Path, labels: Path, name: str, colored: bool = False
) -> tuple[Pairing, list[str]]:
    """Pair the images in and below a folder with the label maps of another.

    Both may be one folder, or one may be in the other.

    Args:
        name: of the split, for messages.
        colored: as for ``pair``.

    Returns:
        the pairs, and label maps in the folder of the images that are not used.

    Raises:
        InputError: names are ambiguous, there are no pairs, or half of the images or
            of the label maps have no partner.
    """
    if os.path.samefile(folder, labels):
        images, maps = separate(_files_below(folder))
    else:
        images = _files_below(folder, labels)
        images = [image for image in images if suffix(image) in IMAGE_SUFFIXES]
        maps = _files_below(labels, folder)
    exact = [file for file in maps if suffix(file) in SUFFIXES]
    lossy = [file for file in maps if suffix(file) in LOSSY_SUFFIXES]
    result = pair(images, exact, colored)
    # JPEGs are paired, too: reading them says why they cannot be label maps.
    in_jpegs = pair(result.images, lossy)
    result.add(in_jpegs.pairs.items())
    maps_among_images = set(separate(result.images + list(result.pairs))[1])
    not_photographs = [image for image in result.images if image in maps_among_images]
    result.images = [image for image in result.images if image not in not_photographs]
    if not result.pairs:
        raise InputError(_no_pairs(folder, labels, name, images, exact))
    _check_half(result, folder, name)
    _check_numbers(result, name)
    return result, not_photographs


def _files_below(folder: Path, without: Path | None = None) -> list[str]:
    """The files in and below a folder, relative and with '/', sorted.

    Args:
        without: a folder whose files are left out, if it is below ``folder``.
    """
    files: Iterable[Path] = (
        path
        for path in folder.rglob("*")
        if path.suffix and not path.name.startswith(".")
    )
    if without is not None and folder in without.parents:
        files = (path for path in files if without not in path.parents)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _no_pairs(
    folder: Path,
    labels: Path,
    name: str,
    images: Sequence[str],
    maps: Sequence[str],
) -> str:
    """What the folders have, where no image has a label map."""
    message = (
        f"the {name} data has no pairs: {folder} has {len(images)} images"
        f"{_such_as(images)} and {labels} {len(maps)} label maps"
        f"{_such_as(maps)} with no name in common"
    )
    others = Counter(map(suffix, _files_below(labels)))
    for ending in (*IMAGE_SUFFIXES, *SUFFIXES):
        others.pop(ending, None)
    if others and not maps:
        counted = (f"{number} {ending}" for ending, number in others.most_common(3))
        message += f". {labels} has {', '.join(counted)} files"
        for ending in others:
            if ending in OTHER_FILES:
                message += f"; {ending} files are {OTHER_FILES[ending]}"
    readable = ", ".join(SUFFIXES)
    if images and maps and (alike := nearest(images[0], maps)):
        message += f". The name most like {images[0]} is {alike}"
    return (
        f"{message}. Label maps are {readable} files, each with the name of its image"
    )


def _such_as(names: Sequence[str]) -> str:
    return f" ({few(names, 2)})" if names else ""


def _check_half(result: Pairing, folder: Path, name: str) -> None:
    """Check that most of the data has partners.

    Pascal VOC has label maps for a sixth of its images. Two splits may share a folder
    of label maps, which then has more than there are images.

    Raises:
        InputError: half of the images or of the label maps have none.
    """
    paired = len(result.pairs)
    left, kept = len(result.images), len(result.maps)
    if left >= paired and "JPEGImages" not in folder.parts:
        what, others, file = "images have no label map", result.maps, result.images[0]
        total, left_out = paired + left, left
    elif kept >= paired and left:
        what, others, file = "label maps have no image", result.images, result.maps[0]
        total, left_out = paired + kept, kept
    else:
        return
    alike = nearest(file, others)
    near = f"; the name most like it is {alike}" if alike else ""
    raise InputError(
        f"the {name} data: {left_out} of {total} {what}, such as {file}{near}. Give "
        "both files of a pair one name, or move files without a partner into another "
        "folder"
    )


def _check_numbers(result: Pairing, name: str) -> None:
    """Check that images and label maps of other words count alike.

    Where images count from 0 and label maps from 1, equal numbers do not belong
    together.

    Raises:
        InputError: as many images as label maps are left.
    """
    left = len(result.images)
    if not left or left != len(result.maps):
        return
    if all(stem_of(image) not in file for image, file in result.pairs.items()):
        raise InputError(
            f"the {name} data: {result.images[0]} has no label map, and "
            f"{result.maps[0]} no image. The others would be paired by their numbers: "
            "if label maps count from another number than images, rename them; if "
            "not, move files without a partner into another folder"
        )


def nearest(name: str, others: Sequence[str]) -> str | None:
    """The path of ``others`` whose name is most like that of ``name``; None if none is.

    Only the first ``NEAREST_OF`` are compared.
    """
    stems = {folded(other): other for other in others[:NEAREST_OF]}
    matches = difflib.get_close_matches(folded(name), stems, 1, 0)
    return stems[matches[0]] if matches else None


def _base(key: Callable[[str], str]) -> Key:
    """A key of the name without its folders."""
    return lambda name: key(PurePosixPath(name).name)


def _match(
    images: Sequence[str], maps: Sequence[str], image_key: Key, map_key: Key
) -> Iterator[tuple[str, str]]:
    """The pairs whose keys are equal; empty keys fit nothing.

    Raises:
        InputError: a key has several images or several label maps.
    """
    by_key: dict[Hashable, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for names, key, place in ((images, image_key, 0), (maps, map_key, 1)):
        for name in names:
            by_key[key(name)][place].append(name)
    for key, (with_key, maps_with_key) in by_key.items():
        if not (key and with_key and maps_with_key):
            continue
        if len(with_key) > 1:
            raise InputError(
                f"{few(with_key)} are images of one name, and the label map "
                f"{maps_with_key[0]} fits all of them: rename the images and their "
                "label maps, or remove the images that are copies"
            )
        _check_one(with_key[0], maps_with_key)
        yield with_key[0], maps_with_key[0]


def _check_one(image: str, maps: Sequence[str]) -> None:
    if len(maps) > 1:
        raise InputError(
            f"{few(maps)} are label maps that fit one image, {image}: move those that "
            "are not to be trained on into another folder"
        )


def _check_alone(result: Pairing) -> None:
    """Check that no other label map has a paired image's name and a label word.

    Raises:
        InputError: one has.
    """
    paired = {folded(image): image for image in result.pairs}
    for label_map in result.maps:
        image = paired.get(without_label_words(label_map, paired))
        if image:
            _check_one(image, [result.pairs[image], label_map])


def _by_ending(images: Sequence[str], maps: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs in which all label maps add the same text to the image's name.

    Raises:
        InputError: two label maps fit one image.
    """
    stems = {folded(image): image for image in images}
    fits: list[tuple[str, str, str]] = []  # added text, image, label map
    for label_map in maps:
        path = PurePosixPath(folded(label_map))
        tokens = TOKEN.findall(path.name)
        for place in range(1, len(tokens)):
            stem = str(path.with_name("".join(tokens[:place])))
            if stem in stems:
                fits.append(("".join(tokens[place:]), stems[stem], label_map))
    votes = Counter(added for added, _, _ in fits)

    def is_ending(text: str) -> bool:
        """Whether it is not the rest of a longer number, or of another name."""
        if text[0].isalnum():
            return text.isalpha()
        return votes[text] > 1 or not any(map(str.isdigit, text))

    endings = [text for text in votes if is_ending(text)]
    if not endings:
        return
    best = max(endings, key=votes.__getitem__)
    by_image: dict[str, list[str]] = defaultdict(list)
    for added, image, label_map in fits:
        if added in endings and 2 * votes[added] >= votes[best]:
            by_image[image].append(label_map)
    for image, candidates in by_image.items():
        _check_one(image, candidates)
    yield from ((image, name) for added, image, name in fits if added == best)


def _one_version(
    maps: Sequence[str], colored: bool
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The label maps of one version, and which versions there are.

    Returns:
        the label maps to use, and for each with other versions its name and the words
        of those.
    """
    words = {name: TOKEN.findall(folded(name))[-1] for name in maps}
    plain = [n for n in maps if words[n] not in {*VERSIONS, *NO_CLASSES}]
    bases = {key: n for n in plain for key in (folded(n), *stripped(n))}
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in maps:
        word = words[name]
        if word in (*VERSIONS, *NO_CLASSES):
            base = folded(name)[: -len(word)].rstrip("_-. ")
            groups[base][word].append(name)
    kept = set(plain)
    versions: list[tuple[str, list[str]]] = []
    for base, group in groups.items():
        if base in bases:
            group[""] = [bases[base]]
    numbers = Counter(word for group in groups.values() for word in group)
    order = sorted(VERSIONS, key=lambda word: word not in COLORED if colored else 0)
    several = [word for word in order if word in numbers]
    best = max(several, key=numbers.__getitem__, default="")
    for group in groups.values():
        if any(word in VERSIONS for word in group):
            used = group.get(best, [])
            others = [word for word in group if word != best]
        else:  # no better version than a_depth.png: it may be the ending of all
            used = [n for w in group if w not in OBJECT_NUMBERS for n in group[w]]
            others = []
        kept.update(used)
        kept.difference_update(name for word in others for name in group[word])
        shown = [stem_of(group[w][0])[-len(w) :] if w else "no word" for w in others]
        versions += [(name, shown) for name in used if shown]
    return [name for name in maps if name in kept], versions
