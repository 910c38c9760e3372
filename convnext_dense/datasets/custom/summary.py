"""A split as lines of text for the terminal and the log, and as a table."""

from convnext_dense.errors import printable
from convnext_dense.utils.text import few

from .splits import Split, images_with, totals

CLASSES_SHOWN = 8  # in a line of text


def lines(split: Split) -> list[str]:
    """The numbers of a split, its most frequent classes, and its problems."""
    counts = {"images": len(split.files), "classes": len(split.classes), **split.counts}
    facts = [f"{name}: {number}" for name, number in counts.items()]
    if split.sizes:
        facts.append(f"pixels: {size_range(split.sizes)}")
    problems = [f"  {line}" for line in split.problems.lines()]
    return [
        f"{split.name}: {', '.join(facts)}",
        f"  {_classes(split)}",
        f"  read from {printable(split.source)}",
        *problems,
    ]


def size_range(sizes: list[tuple[int, int]]) -> str:
    """'640 x 480', or the smallest and the largest size by area."""
    low, high = (pick(sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
    text = f"{low[0]} x {low[1]}"
    return text if low == high else f"{text} to {high[0]} x {high[1]}"


def _classes(split: Split) -> str:
    """The classes with most objects, or most pixels, and how many they have."""
    classes = split.classes  # computed at each access
    counts = totals(split.objects or split.pixels, len(classes))
    order = counts.argsort(kind="stable")[::-1]
    if split.objects is None:
        shares = 100 * counts / max(1, counts.sum())
        texts = [f"{classes[i]} {shares[i]:.1f} %" for i in order]
    else:
        texts = [f"{classes[i]} {counts[i]}" for i in order]
    return few(texts, CLASSES_SHOWN)


def table(splits: list[Split]) -> list[dict]:
    """A row for each class, with its numbers in each split.

    Returns:
        rows of ``name`` and ``splits``; for each split ``images`` and ``objects``
        (numbers; objects are None for label maps) and ``pixels`` (the share of all
        annotated pixels, 0 to 1).
    """
    rows: list[dict] = [dict(name=name, splits=[]) for name in splits[0].classes]
    for split in splits:
        number = len(split.classes)
        pixels = totals(split.pixels, number)
        images = images_with(split.objects or split.pixels, number)
        objects = totals(split.objects, number) if split.objects is not None else None
        for label, row in enumerate(rows):
            row["splits"].append(
                dict(
                    images=int(images[label]),
                    objects=None if objects is None else int(objects[label]),
                    pixels=float(pixels[label] / max(1, pixels.sum())),
                )
            )
    return rows
