"""Reads lists of classes: names, and the values that they have in label maps.

Read are lines of names (labelme's labels.txt), lines with ids, tables with a heading
(Roboflow's _classes.csv, ADE20K's objectInfo150.txt), JSON (labels by id, COCO's and
Label Studio's categories, Supervisely's meta.json) and YAML (data.yaml).
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from convnext_dense.errors import InputError, printable
from convnext_dense.utils.files import read_text
from convnext_dense.utils.json_files import parse_json
from convnext_dense.utils.yaml_files import parse_yaml

from .label_maps import (
    IGNORED,
    IGNORED_NAMES,
    MOST_CLASSES,
    check_classes,
    color_lines,
)

# Names that tools write beside label maps, for --data.
FILES = ("_classes.csv", "labels.txt", "class_names.txt")
COLOR_FILES = ("labelmap.txt", "obj_class_to_machine_color.json")

NOT_A_CLASS = "__ignore__"  # labelme's name of what is not labelled
MOST_LINES = 10 * MOST_CLASSES  # longer files are refused without looking closer
LARGEST_ID = 2**31 - 2

# The headings of columns, the surest first.
_IDS = (
    *("pixel value", "pixel", "value", "id", "idx", "index", "class id", "class_id"),
    *("label id", "label_id", "class index", "number", "label", "class"),
)
_NAMES = (
    *("name", "class name", "class_name", "label name", "label_name", "names"),
    *("class", "label", "category", "title", "classes", "labels", "categories"),
)
_KEYS = ("names", "classes", "categories", "id2label", "label2id", "labels")
_ID_FIRST = re.compile(r"(-?\d{1,19})\s*[:=,;\t ]\s*(\S.*)")
_ID_LAST = re.compile(r"(\S.*?)\s*[:=,;\t]\s*(-?\d{1,19})")
_ID_AFTER_SPACE = re.compile(r"(\S.*?) +(\d{1,19})")
_ON_COMMAND_LINE = re.compile(r"(\d{1,19})[:=](\S.*)")
_FILE_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml", ".names")

Entries = list[tuple[int | None, str]]  # id and name


class ClassList(NamedTuple):
    """Classes of label maps.

    Attributes:
        classes: the names, in the order of their ids.
        ids: the value of each class in the label maps; None for 0, 1, 2, ...
    """

    classes: tuple[str, ...]
    ids: list[int] | None = None


def class_list(values: Sequence[str]) -> ClassList:
    """The classes that --classes gives, or those in the file that it names.

    Args:
        values: names, ``ID:NAME`` for each class, or one file.

    Raises:
        InputError: the file cannot be read or understood, an id or a name is given
            twice, or a name cannot be one.
    """
    # Not a file alone: reading a pipe, a device or a folder says what is wrong.
    if len(values) == 1:
        if os.path.exists(values[0]):
            return read_class_list(values[0])
        if values[0].lower().endswith(_FILE_ENDINGS):
            raise InputError(f"--classes {values[0]}: there is no such file")
    matches = [_ON_COMMAND_LINE.fullmatch(value) for value in values]
    entries: Entries = [(None, value) for value in values]
    if all(matches):
        entries = [(int(match[1]), match[2]) for match in matches if match]
    return _checked("--classes", entries)


def read_class_list(file: str | Path) -> ClassList:
    """The classes in a file, see the formats at the top of this module.

    Raises:
        InputError: as ``class_list``.
    """
    source = f"--classes {file}"
    try:
        text = read_text(file)
    except InputError as error:
        raise InputError(f"--classes {error}") from error
    if text.lstrip().startswith(("{", "[")):
        entries = _of_content(parse_json(text, source), source)
    elif str(file).lower().endswith((".yaml", ".yml")):
        entries = _of_content(parse_yaml(text, source, as_text=True), source)
    else:
        lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
        lines = [(n, line) for n, line in lines if line and not line.startswith("#")]
        if not lines:
            raise InputError(f"{source} has no names: write one on each line")
        if len(lines) > MOST_LINES:
            check_classes(source, [line for _, line in lines])
        entries = _of_lines(lines, source)
    return _checked(source, entries)


def _checked(source: str, entries: Entries) -> ClassList:
    """Classes in the order of their ids, without what is no class."""
    kept: Entries = []
    for number, name in entries:
        ignored = name.lower() in (*IGNORED_NAMES, "void", "unlabeled", "unlabelled")
        if name == NOT_A_CLASS or (number is not None and number < 0):
            continue  # negative values are ignored
        if number == IGNORED and ignored:
            continue
        kept.append((number, name))
    if not kept:
        raise InputError(f"{source} has no classes: write a name on each line")
    check_classes(source, [name for _, name in kept])
    by_id = {number: name for number, name in kept if number is not None}
    if not by_id:
        return ClassList(tuple(name for _, name in kept))
    names: dict[int | None, str] = {}
    for number, name in kept:
        if number in names:
            raise InputError(
                f"{source}: {names[number]} and {name} both have the id {number}: give "
                "each class its own"
            )
        names[number] = name
        if number is not None and number > LARGEST_ID:
            raise InputError(
                f"{source}: {name} has the id {number}, which is too large"
            )
    ids = sorted(by_id)
    classes = tuple(by_id[number] for number in ids)
    return ClassList(classes, None if ids == list(range(len(ids))) else ids)


def _not_understood(source: str, line: int, text: str, why: str) -> InputError:
    return InputError(
        f"{source}, line {line}: {printable(text, 60)!r} {why}. Write a name on each "
        "line, or an id and a name such as '0 road'"
    )


def _of_lines(lines: list[tuple[int, str]], source: str) -> Entries:
    """Ids and names of the lines of a text, each with its number."""
    texts = [text for _, text in lines]
    number, first = lines[0]
    if table := _table(texts, source, number):
        return table
    colors = color_lines(texts)
    if colors and colors >= len(texts) - 1:
        file = source.removeprefix("--classes ")
        raise InputError(
            f"{source} is a colour map: it has a colour for each class. Give it as "
            f"--color-map {file}"
        )
    if len(lines) > 1 and first.lower() in (*_IDS, *_NAMES):
        raise _not_understood(source, number, first, "looks like a heading: remove it")
    for form in (_ID_FIRST, _ID_LAST):
        matches = [form.fullmatch(text) for text in texts]
        place = (1, 2) if form is _ID_FIRST else (2, 1)
        if all(matches):
            return [(int(m[place[0]]), m[place[1]]) for m in matches if m]
        if 2 * sum(map(bool, matches)) >= len(lines):
            n, text = lines[matches.index(None)]
            raise _not_understood(
                source, n, text, "has no id, and other lines have one"
            )
    if numbered := _numbered(texts):
        return numbered
    for n, text in lines:
        if any(character in text for character in "{}<>\t;"):
            raise _not_understood(source, n, text, "is not the name of a class")
    commas = {text.count(",") for text in texts}
    if len(commas) == 1 and commas != {0}:
        raise _not_understood(source, number, first, "has several columns or names")
    return [(None, text) for text in texts]


def _numbered(texts: Sequence[str]) -> Entries:
    """Ids and names of lines such as 'road 0', if the ids count the lines."""
    matches = [_ID_AFTER_SPACE.fullmatch(text) for text in texts]
    entries: Entries = [(int(match[2]), match[1]) for match in matches if match]
    ids = sorted(number for number, _ in entries if number is not None)
    counts = ids in (list(range(len(texts))), list(range(1, len(texts) + 1)))
    different = len({name for _, name in entries}) == len(texts)
    return entries if counts and different else []


def _table(texts: Sequence[str], source: str, first: int) -> Entries:
    """Ids and names of a table whose first line names its columns; else nothing.

    Args:
        first: the number of the first line, for messages.
    """
    for delimiter in ("\t", ",", ";", None):
        rows = _rows(texts[:1], delimiter)
        heads = [cell.lower() for cell in next(rows)]
        name = next((heads.index(head) for head in _NAMES if head in heads), None)
        ids = [heads.index(head) for head in _IDS if head in heads]
        ids = [column for column in ids if column != name]
        if len(heads) < 2 or name is None or not ids:
            continue
        entries: Entries = []
        rows = _rows(texts[1:], delimiter, len(heads))
        for n, row in enumerate(rows, first + 1):
            try:
                entries.append((int(row[ids[0]]), row[name]))
            except (ValueError, IndexError):
                raise _not_understood(
                    source, n, " ".join(row), f"does not fit the heading {texts[0]!r}"
                ) from None
        return entries
    return []


def _rows(
    texts: Iterable[str], delimiter: str | None, columns: int = 0
) -> Iterator[list[str]]:
    """The cells of each line; without a delimiter, spaces divide them."""
    if delimiter is None:
        yield from (text.split(None, max(columns - 1, -1)) for text in texts)
        return
    try:
        for row in csv.reader(texts, delimiter=delimiter, skipinitialspace=True):
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise InputError(f"--classes: a line cannot be read: {error}") from error


def _of_content(content: Any, source: str) -> Entries:
    """Ids and names of what a JSON or YAML file holds."""
    for key in _KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict | list):
            content = content[key]
            break
    pairs: list[tuple[Any, Any]] = []
    if isinstance(content, list):
        pairs = [_of_item(item) for item in content]
        if any(number is None for number, _ in pairs):
            pairs = [(None, name) for _, name in pairs]
    elif isinstance(content, dict):
        pairs = list(content.items())
        if all(_integer(number) is None for number, _ in pairs):
            pairs = [(number, name) for name, number in pairs]
    numbers = [_integer(number) for number, _ in pairs]
    names = [name for _, name in pairs]
    in_order = isinstance(content, list) and all(n is None for n, _ in pairs)
    readable = in_order or None not in numbers
    if not pairs or not readable or not all(isinstance(n, str) for n in names):
        raise InputError(
            f'{source} is not a list of classes: write ["road", "car"] or {{"0": '
            '"road", "1": "car"}; a file with colours is given as --color-map'
        )
    return list(zip(numbers, names, strict=True))


def _of_item(item: Any) -> tuple[Any, Any]:
    """Id and name of an item of a list; without an id, the place counts.

    Supervisely's classes have a title, and ids that are not in label maps.
    """
    if isinstance(item, dict):
        if "title" in item:
            return None, item["title"]
        return item.get("id"), item.get("name")
    return None, item


def _integer(value: Any) -> int | None:
    """A whole number that is given as a number or as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value.strip()):
        return int(value)
    return value if isinstance(value, int) else None
