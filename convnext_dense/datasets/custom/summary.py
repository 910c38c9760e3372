"""What a split holds, in lines for the terminal and the log."""

from .problems import few
from .splits import Part, images_with, totals


def lines(part: Part) -> list[str]:
    """How much there is, and what is wrong."""
    counts = {"images": len(part.files), "classes": len(part.classes), **part.counts}
    facts = [f"{what}: {number}" for what, number in counts.items()]
    if part.sizes:
        facts.append(f"pixels: {size_range(part.sizes)}")
    wrong = [f"  {line}" for line in part.findings.lines()]
    return [f"{part.name}: {', '.join(facts)}", f"  {_classes(part)}", *wrong]


def size_range(sizes: list[tuple[int, int]]) -> str:
    """'640 x 480', or the smallest and the largest by area."""
    low, high = (pick(sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
    text = f"{low[0]} x {low[1]}"
    return text if low == high else f"{text} to {high[0]} x {high[1]}"


def _classes(part: Part) -> str:
    """The classes with most objects, or most pixels, and how many they have."""
    counts = totals(part.objects or part.pixels, len(part.classes))
    order = counts.argsort(kind="stable")[::-1]
    if part.objects is None:
        share = 100 / max(1, counts.sum())
        return few([f"{part.classes[i]} {counts[i] * share:.1f} %" for i in order], 8)
    return few([f"{part.classes[i]} {counts[i]}" for i in order], 8)


def table(parts: list[Part]) -> list[dict]:
    """A row a class: objects, images and share of the annotated pixels, by split."""
    rows = [dict(name=name, splits=[]) for name in parts[0].classes]
    for part in parts:
        number = len(part.classes)
        pixels = totals(part.pixels, number)
        images = images_with(part.objects or part.pixels, number)
        objects = totals(part.objects, number) if part.objects is not None else None
        for label, row in enumerate(rows):
            row["splits"].append(
                dict(
                    images=int(images[label]),
                    objects=None if objects is None else int(objects[label]),
                    pixels=float(pixels[label] / max(1, pixels.sum())),
                )
            )
    return rows
