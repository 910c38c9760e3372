"""tools/inspect_data.py: say, draw and mend what is in somebody's data."""

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from convnext_dense.datasets.custom import summary
from convnext_dense.datasets.custom.prepare import Options, examine
from convnext_dense.datasets.custom.splits import Part
from convnext_dense.errors import InputError
from convnext_dense.utils import files

from . import page


def inspect(options: Options, html: str | None, fix: str | None, seed: int) -> bool:
    """Print what there is and what is wrong; whether training can start on it.

    Args:
        html: file to draw it into.
        fix: new folder for a cleaned copy of the annotations.

    Raises:
        InputError: there is no such data, or a file cannot be written.
    """
    if fix and Path(fix).exists():
        raise InputError(f"--fix {fix} is there already: name a new folder")
    if fix:
        files.check_folder(fix, "--fix")
    parts = examine(options, seed=seed)
    for part in parts:
        print("\n".join(summary.lines(part)))
    _print_table(parts)
    if html:
        page.write(html, parts)
        print(f"drawn: {html}")
    if fix:
        _fix(parts, Path(fix))
    return not any(part.findings.stop for part in parts)


def _print_table(parts: list[Part]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("class", no_wrap=True)
    columns = ["images"] if parts[0].objects is None else ["images", "objects"]
    for part in parts:
        for column in columns:
            table.add_column(f"{part.name} {column}", justify="right")
        table.add_column("pixels, %", justify="right")
    for row in summary.table(parts):
        cells = []
        for split in row["splits"]:
            cells += [str(split[column]) for column in columns]
            cells.append(f"{100 * split['pixels']:.2f}")
        table.add_row(row["name"], *cells)
    Console(markup=False).print(table)


def _fix(parts: list[Part], folder: Path) -> None:
    flag = "json" if parts[0].scope == "mmdet" else "labels"
    command = []
    for part in parts:
        folder.mkdir(parents=True, exist_ok=True)
        command += [f"--{part.name}-{flag}", str(part.fixed(folder))]
        command += [f"--{part.name}-images", str(part.folder)]
    if flag == "labels":
        command += ["--classes", *parts[0].classes]
    print(f"cleaned; to train on it:\n  tools/train.py CONFIG {shlex.join(command)}")
