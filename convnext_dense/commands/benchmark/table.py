"""Write the rows of a benchmark as a text table and as JSON."""

import json
from collections.abc import Sequence

from .rows import Row, ratio

# The heading and the rows of each setting.
Groups = Sequence[tuple[str, Sequence[Row]]]


def to_text(rows: Sequence[Row]) -> str:
    """The rows of a setting as a table, with ratios to the best peer.

    A column that is empty in all rows is left out.
    """
    cells = [_cells(rows, row) for row in rows]
    headings = [name for name in cells[0] if any(line[name] for line in cells)]
    lines = [[_title(name) for name in headings]]
    lines += [[line[name] for name in headings] for line in cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = 2  # the first columns, name and layout, are left-aligned; figures right
    return "\n".join(
        "  "
        + "  ".join(
            text.ljust(width) if i < texts else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cells(rows: Sequence[Row], row: Row) -> dict[str, str]:
    """A row's cells, by column."""
    figures = row.figures

    def ratio_of(figure: str) -> str:
        return _number(ratio(rows, row, figure), ".2f")

    return {
        "": row.name,
        "layout": row.layout,
        "ms": _number(figures.ms, ".2f"),
        "ratio of ms": ratio_of("ms"),
        "floor": _number(row.floor, ".0%"),
        "host ms": _number(figures.host_ms, ".2f"),
        "kernel ms": _number(figures.kernel_ms, ".2f"),
        "launches": _number(figures.launches, ".0f"),
        "images/s": _number(row.images_per_second, ".1f"),
        "kept MB": _number(figures.kept, ".4g", 1e-6),
        "ratio of kept": ratio_of("kept"),
        "peak MB": _number(figures.peak, ".4g", 1e-6),
        "ratio of peak": ratio_of("peak"),
        "backbone ms": _number(row.backbone_ms, ".2f"),
        "share": _number(row.share, ".0%"),
    }


def _title(heading: str) -> str:
    """A column's title; ratios have a short one, as they follow their figure."""
    return heading.partition(" of ")[0]


def _number(value: float | None, format_spec: str, scale: float = 1) -> str:
    """A formatted number; empty for None."""
    return "" if value is None else format(value * scale, format_spec)


def to_json(about: str, groups: Groups) -> str:
    """All figures as JSON; memory is in bytes, time in milliseconds.

    Args:
        about: the machine and the versions.
        groups: the heading and the rows of each setting.
    """
    measured = [
        {"setting": heading, "rows": [_plain(rows, row) for row in rows]}
        for heading, rows in groups
    ]
    return json.dumps({"about": about, "measured": measured}, indent=1) + "\n"


def _plain(rows: Sequence[Row], row: Row) -> dict:
    """A row's figures and ratios as a flat dict."""
    fields = row._asdict()
    figures = fields.pop("figures")._asdict()
    ratios = {
        f"{figure}_ratio": ratio(rows, row, figure) for figure in ("ms", "kept", "peak")
    }
    return {
        **fields,
        **figures,
        **ratios,
        "images_per_second": row.images_per_second,
        "backbone_share": row.share,
    }
