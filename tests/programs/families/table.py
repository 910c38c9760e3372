"""The table of a sweep: for people, as JSON and as Markdown."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from .catalogue import LEFT_OUT, Family
from .step import Result

PACKAGES = (
    *("torch", "onedl-mmdetection", "mmdet", "onedl-mmsegmentation", "mmsegmentation"),
    *("onedl-mmpretrain", "mmpretrain", "onedl-mmcv", "mmcv-lite", "mmcv"),
    "transformers",
)


class Row(NamedTuple):
    """A family and what was seen of it.

    Attributes:
        family: the family.
        shipped: the result of the model as shipped; None if left out.
        convnext: the result with ConvNeXt; None if left out.
    """

    family: Family
    shipped: Result | None = None
    convnext: Result | None = None


def as_json(rows: Iterable[Row], device: str, seconds: float) -> dict:
    """A sweep as it is written to a JSON file."""
    return dict(
        packages={name: number for name in PACKAGES if (number := _version(name))},
        python=platform.python_version(),
        device=device,
        seconds=round(seconds),
        rows=[
            dict(
                family=row.family.name,
                config=row.family.config.name,
                left_out=LEFT_OUT.get(row.family.name, ""),
                shipped=row.shipped and row.shipped._asdict(),
                convnext=row.convnext and row.convnext._asdict(),
            )
            for row in rows
        ],
    )


def line(name: str, variant: str, result: Result) -> str:
    """A result in a line, for a sweep that is under way."""
    state = "trains" if result.works else "fails "
    seconds = f"{result.seconds:5.1f} s ({result.cpu_seconds:.1f} CPU)"
    return f"{name:28} {variant:8} {state} {seconds:18} {result.reason}".rstrip()


def summary(sweep: dict) -> str:
    """The numbers of a sweep, a line for each toolbox."""
    lines = []
    for toolbox in ("mmdet", "mmseg"):
        rows = [r for r in sweep["rows"] if r["family"].startswith(toolbox)]
        tried = [r for r in rows if not r["left_out"]]
        if tried:
            works = {
                key: sum(bool(r[key] and r[key]["works"]) for r in tried)
                for key in ("shipped", "convnext")
            }
            lines.append(
                f"{toolbox}: {len(tried)} models, {works['shipped']} train as shipped, "
                f"{works['convnext']} with ConvNeXt; {len(rows) - len(tried)} left out"
            )
    return "\n".join(lines)


def failures(sweep: dict) -> str:
    """A Markdown table of the models that do not work, with the reasons."""
    lines = ["| family | as shipped | with ConvNeXt |", "|---|---|---|"]
    for row in sweep["rows"]:
        if row["left_out"]:
            lines.append(f"| {row['family']} | left out: {row['left_out']} | |")
            continue
        cells = [_cell(row[key]) for key in ("shipped", "convnext")]
        if not set(cells) <= {"", "trains"}:
            lines.append(f"| {row['family']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(result: dict | None) -> str:
    if not result:
        return ""
    return "trains" if result["works"] else result["reason"].replace("|", "/")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
