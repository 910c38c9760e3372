"""Draw the rows of a benchmark as bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_dense.errors import InputError
from convnext_dense.utils import files

from .peers import OURS
from .rows import Row, ratio
from .steps import COMPILED, EAGER, GRAPHS, REDUCE_OVERHEAD
from .table import Groups

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.axes import Axes

COLORS = {
    OURS: "#6baed6",
    "timm": "#d9d9d9",
    "torchvision": "#bdbdbd",
    "transformers": "#a6a6a6",
    "mmpretrain": "#8c8c8c",
}
HATCHES = {EAGER: "", COMPILED: "///", REDUCE_OVERHEAD: "xxx", GRAPHS: "..."}
PANELS = {
    "ms": "time of a step",
    "host_ms": "host time of a step",
    "kernel_ms": "kernel time of a step",
    "kept": "bytes kept for the backward pass",
    "peak": "bytes at the peak",
}


def draw(groups: Groups, file: str | Path, title: str) -> None:
    """Draw the times and bytes of all rows, as ratios to the best peer's.

    A figure that no row has, such as kernel time on a CPU, gets no panel. Neither does
    the host time on a CPU, which equals the time of the step.

    Args:
        groups: the heading and the rows of each setting.
        file: the image file to write; its suffix names the format.
        title: text above the panels.

    Raises:
        InputError: matplotlib does not write the format, or the file cannot be
            written.
    """
    from matplotlib.figure import Figure  # slow to import, so only when needed
    from matplotlib.patches import Patch

    all_rows = [row for _, rows in groups for row in rows]
    on_gpu = any(row.figures.kernel_ms for row in all_rows)
    panels = [
        panel
        for panel in PANELS
        if any(ratio(rows, row, panel) for _, rows in groups for row in rows)
        and (on_gpu or panel != "host_ms")
    ] or ["ms"]
    figure = Figure(layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if Path(file).suffix[1:].lower() not in formats:
        raise InputError(f"no picture in {file}: give it one of .{', .'.join(formats)}")
    bars = sum(len(rows) + 1 for _, rows in groups)
    figure.set_size_inches(4 + 3 * len(panels), 1.8 + 0.2 * bars)
    figure.suptitle(
        f"{title}\nratios to the best of the other libraries, 1", fontsize=9
    )
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _bars(ax, groups, panel)
        ax.set_title(PANELS[panel], fontsize=10)
    names = {(row.library, row.execution): row.name for row in all_rows}
    handles = [
        Patch(label=name, **_look(library, execution))
        for (library, execution), name in names.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    with files.whole(file) as partial:
        figure.savefig(partial, dpi=110)


def _look(library: str, execution: str) -> dict:
    """The colour and hatch of a bar."""
    return dict(
        facecolor=COLORS[library], hatch=HATCHES[execution], edgecolor="#525252", lw=0.4
    )


def _bars(ax: "Axes", groups: Groups, panel: str) -> None:
    """Draw the bars of a panel, grouped by setting."""
    place = 0
    ticks = []
    for _, rows in groups:
        ticks.append(place + (len(rows) - 1) / 2)
        for row in rows:
            _bar(ax, place, rows, row, panel)
            place += 1
        place += 1
    ax.axvline(1, color="#d9d9d9", zorder=0)
    ax.set_yticks(ticks, [heading for heading, _ in groups], fontsize=8)
    ax.set_ylim(place - 1, -1)  # the first setting on top
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.12)
    ax.set_xlim(left=0)


def _bar(ax: "Axes", place: int, rows: Sequence[Row], row: Row, panel: str) -> None:
    """Draw a row's bar and its ratio, if it has the figure."""
    length = ratio(rows, row, panel)
    if length:
        ax.barh(place, length, height=0.85, **_look(row.library, row.execution))
        ax.text(length, place, f" {length:.2f}", va="center", size=7)
