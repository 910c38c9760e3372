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

PLAIN = {
    "has no attribute 'loss_cls'": "it trains, but does not predict: mmdet reads "
    "`loss_cls` of SSDHead, which has none",
    "eps must be positive": "its BatchNorm has eps=0, which torch 2.11 refuses",
    "mat1 and mat2": "its decoder gives 1024 channels to a layer that takes 512",
    "install Detectron2": "it needs Detectron2",
    "To use VPD": "it needs the package ldm of Stable Diffusion",
    "GET was unable to find an engine": "in the backward pass cuDNN reports `GET was "
    "unable to find an engine`; the cause is not known",
    "indices should be either on cpu": "mmdet's PointAssigner indexes a tensor on the "
    "CPU with one on the GPU",
    "mmpretrain.models": "it needs the package mmpretrain",
    "install fairscale": "it needs the package fairscale",
    "no attribute batch_encode_plus": "it needs a transformers before 5",
    "'super' object has no attribute 'init_weights'": "mmseg initialises its head from "
    "CLIP's checkpoint only",
}
"""Reasons in plain words, by what the exception says."""


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


def markdown(sweeps: Iterable[dict]) -> str:
    """The counts and the failures of sweeps, for each set of mmdet and mmseg.

    A result of a later sweep replaces the same one of an earlier sweep.
    """
    stacks: dict[str, dict] = {}
    for sweep in sweeps:
        maintained = "onedl-mmdetection" in sweep["packages"]
        name = "maintained stack" if maintained else "classic stack"
        rows = stacks.setdefault(name, {})
        for row in sweep["rows"]:
            results = {k: row[k] for k in ("shipped", "convnext") if row[k]}
            rows[row["family"]] = {**rows.get(row["family"], row), **results}
    blocks = []
    for name, rows in stacks.items():
        sweep = dict(rows=list(rows.values()))
        blocks.append(f"### {name.capitalize()}\n\n```\n{summary(sweep)}\n```")
        blocks.append(failures(sweep))
    return "\n\n".join(blocks)


def _cell(result: dict | None) -> str:
    if not result:
        return ""
    if result["works"]:
        return f"trains {result.get('note', '')}".rstrip()
    for words, plain in PLAIN.items():
        if words in result["reason"]:
            return plain
    return result["reason"].replace("|", "/")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
