"""The rows of a benchmark as a table, as JSON and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .backbones import Row
from .peers import OURS

COLORS = {
    OURS: "#08519c",
    "timm": "#bdbdbd",
    "torchvision": "#969696",
    "transformers": "#737373",
    "mmpretrain": "#525252",
}
_HEADER = ("", "layout", "ms", "ratio", "floor", "kept MB", "ratio", "peak MB", "ratio")


def table(rows: Sequence[Row]) -> str:
    """One setting's rows, with ratios to the best peer in each column."""
    lines = [_line(_HEADER)]
    for row in rows:
        cells = [row.library, row.layout, f"{row.ms:.1f}", f"{row.ratio:.2f}"]
        cells.append(f"{row.floor:.0%}" if row.floor else "")
        for column in ("kept", "peak"):
            there = getattr(row, column)
            cells.append(f"{there / 1e6:.4g}" if there else "")
            cells.append(f"{ratio(rows, row, column):.2f}" if there else "")
        lines.append(_line(cells))
    return "\n".join(lines)


def to_json(about: str, groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Everything that was measured; bytes are bytes, times milliseconds."""
    measured = [
        {"setting": heading, "rows": [row._asdict() for row in rows]}
        for heading, rows in groups
    ]
    return json.dumps({"about": about, "measured": measured}, indent=1) + "\n"


def ratio(rows: Sequence[Row], row: Row, column: str) -> float:
    """A row's bytes to those of the peer with the fewest."""
    best = min((getattr(r, column) for r in rows if r.library != OURS), default=0)
    return getattr(row, column) / best if best else 0.0


def _line(cells: Sequence[str]) -> str:
    name, layout, *numbers = cells
    return f"  {name:15}{layout:14}" + "".join(f"{n:>9}" for n in numbers)


def draw(
    groups: Sequence[tuple[str, Sequence[Row]]], file: str | Path, title: str
) -> None:
    """Time, bytes kept and peak of every library, setting by setting.

    Args:
        groups: the heading and the rows of each setting.
        file: where to write the picture; the ending tells the format.
        title: above the picture.

    Raises:
        InputError: the ending is of no format that matplotlib writes.
    """
    from matplotlib.figure import Figure  # slow to import, and only wanted here
    from matplotlib.patches import Patch

    panels = {
        "time of a step": lambda rows, row: row.ratio,
        "bytes kept for the backward pass": lambda rows, r: ratio(rows, r, "kept"),
        "bytes at the peak": lambda rows, row: ratio(rows, row, "peak"),
    }
    bars = sum(len(rows) + 1 for _, rows in groups)
    figure = Figure(figsize=(13, 1.6 + 0.2 * bars), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if Path(file).suffix[1:].lower() not in formats:
        raise InputError(f"no picture in {file}: give it one of .{', .'.join(formats)}")
    figure.suptitle(f"{title}\nall beside the best peer's, 1", fontsize=9)
    axes = figure.subplots(1, len(panels), sharey=True)
    for ax, (heading, value) in zip(axes, panels.items(), strict=True):
        _bars(ax, groups, value)
        ax.set_title(heading, fontsize=10)
    libraries = {row.library for _, rows in groups for row in rows}
    handles = [
        Patch(color=color, label=library)
        for library, color in COLORS.items()
        if library in libraries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(file, dpi=110)


def _bars(ax, groups, value) -> None:
    place, ticks = 0, []
    for _, rows in groups:
        ticks.append(place + (len(rows) - 1) / 2)
        for row in rows:
            length = value(rows, row)
            if length:
                ax.barh(place, length, color=COLORS[row.library], height=0.85)
                ax.text(length, place, f" {length:.2f}", va="center", size=7)
            place += 1
        place += 1
    ax.axvline(1, color="#d9d9d9", zorder=0)
    ax.set_yticks(ticks, [heading for heading, _ in groups], fontsize=8)
    ax.set_ylim(place - 1, -1)  # the first on top
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.12)
    ax.set_xlim(left=0)
