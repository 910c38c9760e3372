"""An HTML page about custom data: numbers, problems, figures, sample images."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from convnext_dense.datasets.custom import summary
from convnext_dense.datasets.custom.split_paths import IMAGES
from convnext_dense.datasets.custom.splits import Split, totals
from convnext_dense.errors import InputError, printable
from convnext_dense.reports import pages
from convnext_dense.reports.drawing import Drawer
from convnext_dense.reports.fonts import drawn_with
from convnext_dense.utils.text import label

SAMPLES = 12  # images drawn of each split
NAMES_SHOWN = 40  # of each problem
MAX_CLASSES = 60  # in the figure of counts
MOST_BINS = 60  # in the figure of the objects in an image
NAME_LENGTH = 20  # characters of a class in the figure of counts


def write(file: str, splits: list[Split]) -> None:
    """Write the page about ``splits``.

    Raises:
        InputError: the file cannot be written.
    """
    with drawn_with(splits[0].classes):
        classes = pages.figure(_draw_classes(splits))
    pages.write(
        file,
        "data_report.html",
        title=f"Data: {printable(_name([split.folder for split in splits]))}",
        folders=[
            (split.name, printable(f"{split.folder}; read from {split.source}"))
            for split in splits
        ],
        with_objects=splits[0].objects is not None,
        splits=[
            dict(
                name=split.name,
                facts=_facts(split),
                problems=[
                    (problem, problem.advice(split.problems.fixable), names)
                    for problem, names in split.problems
                ],
                samples=_samples(split),
            )
            for split in splits
        ],
        names_shown=NAMES_SHOWN,
        classes_drawn=MAX_CLASSES,
        rows=[dict(row, name=printable(row["name"])) for row in summary.table(splits)],
        classes=classes,
        sizes=list(map(pages.figure, _draw_sizes(splits))),
    )


def _name(folders: list[Path]) -> str:
    """The name of the folder that has all images.

    If it is only 'images' or the like, the name of the folder above it.
    """
    folder = Path(os.path.commonpath(folders))
    return folder.parent.name if folder.name.lower() in IMAGES else folder.name


def _facts(split: Split) -> list[tuple[str, object]]:
    """The numbers at the top of a split's section."""
    facts: list[tuple[str, object]] = [("images", len(split.files))]
    facts += split.counts.items()
    facts.append(("classes", len(split.classes)))
    if split.sizes:
        facts.append(("pixels, width x height", summary.size_range(split.sizes)))
    return facts


def _samples(split: Split) -> Iterator[tuple[str, Markup]]:
    """Names of images, and the images with their annotations.

    Each next one is that with most classes that are not drawn yet; among equals the
    order is random.
    """
    order = list(range(len(split.files)))
    random.Random(0).shuffle(order)
    pixels = split.pixels
    chosen: list[int] = []
    seen: set[int] = set()
    while order and len(chosen) < SAMPLES:
        new = [len(set(pixels[i]) - seen) for i in order]
        best = order.pop(int(np.argmax(new)))
        chosen.append(best)
        seen |= set(pixels[best])
    drawer = Drawer(split.scope, dict(classes=split.classes))
    files = split.files
    for i in chosen:
        name = printable(files[i])
        try:
            yield name, pages.picture(drawer.truth(*split.sample(i)))
        except InputError as error:  # too large to draw, or gone since
            yield name, escape(str(error))


def _draw_classes(splits: list[Split]) -> Figure:
    """Bars of the objects, or the share of pixels, of each class.

    The most frequent class of the training split comes first.
    """
    classes = splits[0].classes
    number = len(classes)
    counts = [totals(split.objects or split.pixels, number) for split in splits]
    unit = "objects"
    if splits[0].objects is None:
        counts = [100 * count / max(1, count.sum()) for count in counts]
        unit = "share of the pixels, %"
    order = np.argsort(-counts[0], kind="stable")[:MAX_CLASSES]
    figure = Figure(figsize=(max(5, 0.22 * len(order) + 1), 4), layout="constrained")
    axes = figure.subplots()
    place, width = np.arange(len(order)), 0.8 / len(splits)
    for i, (split, count) in enumerate(zip(splits, counts, strict=True)):
        color = ("#3182bd", "#fdae6b")[i]
        axes.bar(place + i * width, count[order], width, label=split.name, color=color)
    names = [_short(classes[i]) for i in order]
    axes.set_xticks(place + 0.4 - width / 2, names, rotation=90, fontsize=8)
    most = max(count.max(initial=0) for count in counts)
    if number and most > 50 * max(1, np.median(counts[0])):
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter("{x:g}")  # not powers of ten
    axes.set_ylabel(unit)
    axes.margins(x=0.01)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _short(name: str) -> str:
    """A class's name, cut to ``NAME_LENGTH``, as text for matplotlib."""
    if len(name) > NAME_LENGTH:
        name = name[: NAME_LENGTH - 1] + "…"
    return label(name)


def _draw_sizes(splits: list[Split]) -> list[Figure]:
    """Width and height of the images; the number of objects in an image."""
    drawn = []
    styles: list[Any] = [  # keyword arguments
        dict(label=split.name, color=color)
        for split, color in zip(splits, ("#3182bd", "#e6550d"), strict=False)
    ]
    figure, axes = _panel()
    for split, style in zip(splits, styles, strict=True):
        width, height = np.array(split.sizes).reshape(-1, 2).T
        axes.scatter(width, height, s=14, alpha=0.5, **style)
    axes.set(xlabel="width of the images, pixels", ylabel="height, pixels")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    drawn.append(figure)
    if splits[0].objects is not None:
        figure, axes = _panel()
        bins = _bins(splits)
        for split, style in zip(splits, styles, strict=True):
            numbers = [counter.total() for counter in split.objects or ()]
            shares = np.full(len(numbers), 1 / max(1, len(numbers)))
            axes.hist(numbers, bins.tolist(), weights=shares, histtype="step", **style)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="objects in an image", ylabel="share of the images")
        axes.legend(frameon=False)
        drawn.append(figure)
    return drawn


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bins(splits: list[Split]) -> np.ndarray:
    """The edges of bins for the objects in an image: few bins for few images."""
    numbers = [counter.total() for split in splits for counter in split.objects or ()]
    most = max(numbers, default=0)
    count = min(MOST_BINS, max(10, round(2 * len(numbers) ** 0.5)))
    width = -(-(most + 1) // count)  # whole, so that each has as many numbers
    return np.arange(-0.5, most + width, width)
