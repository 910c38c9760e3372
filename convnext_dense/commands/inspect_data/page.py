"""A page on somebody's data: counts, sizes, what is wrong, sample images."""

import os
import random
from pathlib import Path

import numpy as np

from convnext_dense.datasets.custom import summary
from convnext_dense.datasets.custom.layouts import IMAGES
from convnext_dense.datasets.custom.splits import Part, totals
from convnext_dense.reports import pages
from convnext_dense.reports.drawing import Drawer

SAMPLES = 12  # images of each split
SHOWN = 40  # names of each kind of trouble
MOST_CLASSES = 60  # in the figure of counts


def write(file: str, parts: list[Part]) -> None:
    """Draw ``parts`` into an HTML file.

    Raises:
        InputError: it cannot be written.
    """
    pages.write(
        file,
        "data_report.html",
        title=f"Data: {_name([part.folder for part in parts])}",
        folders=[(part.name, part.folder) for part in parts],
        with_objects=parts[0].objects is not None,
        parts=[
            dict(
                name=part.name,
                facts=_facts(part),
                findings=list(part.findings),
                samples=_samples(part),
            )
            for part in parts
        ],
        shown=SHOWN,
        rows=summary.table(parts),
        classes=pages.figure(_classes(parts)),
        sizes=pages.figure(_sizes(parts)),
    )


def _name(folders: list[Path]) -> str:
    """The folder that both splits' images are in; 'images' would tell nobody."""
    folder = Path(os.path.commonpath(folders))
    return folder.parent.name if folder.name in IMAGES else folder.name


def _facts(part: Part) -> list[tuple[str, str]]:
    facts = [("images", len(part.files)), *part.counts.items()]
    facts.append(("classes", len(part.classes)))
    if part.sizes:
        facts.append(("pixels, width x height", summary.size_range(part.sizes)))
    return facts


def _samples(part: Part):
    """Images drawn with their annotations: at random, but new classes first."""
    order = list(range(len(part.files)))
    random.Random(0).shuffle(order)
    chosen, seen = [], set()
    while order and len(chosen) < SAMPLES:
        new = [len(set(part.pixels[i]) - seen) for i in order]
        best = order.pop(int(np.argmax(new)))
        chosen.append(best)
        seen |= set(part.pixels[best])
    drawer = Drawer(part.scope, dict(classes=part.classes))
    for i in chosen:
        yield part.files[i], pages.picture(drawer.truth(*part.sample(i)))


def _classes(parts: list[Part]):
    """Objects, or share of the pixels, of each class, most frequent first."""
    from matplotlib.figure import Figure

    number = len(parts[0].classes)
    counts = [totals(part.objects or part.pixels, number) for part in parts]
    what = "objects"
    if parts[0].objects is None:
        counts = [100 * count / max(1, count.sum()) for count in counts]
        what = "share of the pixels, %"
    order = np.argsort(-counts[0], kind="stable")[:MOST_CLASSES]
    figure = Figure(figsize=(max(5, 0.22 * len(order) + 1), 4), layout="constrained")
    axes = figure.subplots()
    place, width = np.arange(len(order)), 0.8 / len(parts)
    for i, (part, count) in enumerate(zip(parts, counts, strict=True)):
        color = ("#3182bd", "#fdae6b")[i]
        axes.bar(place + i * width, count[order], width, label=part.name, color=color)
    names = [_short(parts[0].classes[i]) for i in order]
    axes.set_xticks(place + 0.4 - width / 2, names, rotation=90, fontsize=8)
    if max(count.max() for count in counts) > 50 * max(1, np.median(counts[0])):
        axes.set_yscale("symlog", linthresh=1)
    axes.set_ylabel(what)
    axes.margins(x=0.01)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _short(name: str) -> str:
    # Matplotlib would read what is between two dollar signs as a formula.
    name = name.replace("$", r"\$")
    return name if len(name) <= 20 else name[:19] + "…"


def _sizes(parts: list[Part]):
    """Width and height of the images; objects an image."""
    from matplotlib.figure import Figure

    with_objects = parts[0].objects is not None
    figure = Figure(figsize=(4.5 * (1 + with_objects), 4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 1 + with_objects))
    for part, color in zip(parts, ("#3182bd", "#e6550d"), strict=False):
        sizes = np.array(part.sizes).reshape(-1, 2)
        axes[0].scatter(*sizes.T, s=14, alpha=0.5, label=part.name, color=color)
        if with_objects:
            numbers = [counter.total() for counter in part.objects]
            bins = np.arange(max(numbers, default=0) + 2) - 0.5
            drawn = dict(bins=bins, histtype="step", density=True, color=color)
            axes[1].hist(numbers, label=part.name, **drawn)
    axes[0].set(xlabel="width, pixels", ylabel="height, pixels", title="images")
    axes[0].set_xlim(left=0)
    axes[0].set_ylim(bottom=0)
    if with_objects:
        axes[1].set(xlabel="objects an image", ylabel="share of the images")
    for one in axes:
        one.legend(frameon=False)
        one.spines[["top", "right"]].set_visible(False)
    return figure
