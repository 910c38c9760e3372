"""Prints, draws and cleans custom data for convnext-dense inspect-data."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from convnext_dense.datasets.custom import summary
from convnext_dense.datasets.custom.prepare import Options, examine
from convnext_dense.datasets.custom.splits import Split
from convnext_dense.errors import InputError, printable
from convnext_dense.utils import files, outputs, partials
from convnext_dense.utils.outputs import Folder

ROWS_SHOWN = 1500  # of the table of classes; rich takes milliseconds for each


def inspect(
    options: Options,
    html: str | None,
    fix: str | None,
    seed: int,
    overwrite: bool = False,
) -> bool:
    """Print what the data contains and which problems it has.

    Args:
        options: where the data is.
        html: the file of a page about it.
        fix: a new folder for a cleaned copy of the annotations.
        seed: draws the validation split of data that has none.
        overwrite: whether ``html`` may replace a file that is not of the data.

    Returns:
        whether training can start on the data.

    Raises:
        InputError: the data is missing, or a file cannot be written, exists or is of
            the data.
    """
    if fix and os.path.lexists(fix):
        raise InputError(f"--fix {fix} exists already: name a new folder")
    written = [outputs.Output("--html", html)]
    if fix:
        files.check_folder(fix, "--fix")
        # A COCO file, or label maps.
        suffixes = (".json",) if options.train_json else (".json", ".png")
        written.append(outputs.Output("--fix", Folder(Path(fix), suffixes)))
    outputs.check(written, options.inputs(), overwrite)
    splits = examine(options, seed=seed)
    for split in splits:
        print("\n".join(summary.lines(split)))
    _print_table(splits)
    if html:
        from . import page  # importing matplotlib is slow

        page.write(html, splits)
        print(f"the page is {printable(html)}")
    if fix:
        _fix(splits, Path(fix))
    return not any(split.problems.stop for split in splits)


def _print_table(splits: list[Split]) -> None:
    """A row for each class, with its numbers in each split."""
    table = Table(box=None, header_style="bold")
    table.add_column("class", no_wrap=True)
    columns = ["images"] if splits[0].objects is None else ["images", "objects"]
    for split in splits:
        for column in columns:
            table.add_column(f"{split.name} {column}", justify="right")
        table.add_column("pixels, %", justify="right")
    rows = summary.table(splits)
    for row in rows[:ROWS_SHOWN]:
        cells = []
        for numbers in row["splits"]:
            cells += [str(numbers[column]) for column in columns]
            cells.append(f"{100 * numbers['pixels']:.2f}")
        table.add_row(printable(row["name"]), *cells)
    Console(markup=False).print(table)
    if len(rows) > ROWS_SHOWN:
        print(f"and {len(rows) - ROWS_SHOWN} more classes, which --html FILE shows")


def _fix(splits: list[Split], folder: Path) -> None:
    """Write cleaned annotations, and print the command that trains on them.

    Raises:
        InputError: nothing to train on would be left, or a file cannot be written.
    """
    for split in splits:
        if not split.problems.fixable:
            raise InputError(
                f"--fix {folder} was not written: nothing of the {split.name} split "
                "would be left to train on. Correct the errors above in its files"
            )
    flag = "json" if splits[0].scope == "mmdet" else "labels"
    command = []
    with _new_folder(folder) as filled:
        for split in splits:
            annotations = folder / split.fixed(filled).relative_to(filled)
            command += [f"--{split.name}-{flag}", str(annotations)]
            command += [f"--{split.name}-images", str(split.folder)]
    if flag == "labels":
        command += ["--classes", *splits[0].classes]
    options = shlex.join(command)
    print(
        f"the cleaned annotations are in {printable(str(folder))}; to train on them:\n"
        f"  convnext-dense train CONFIG {printable(options, len(options))}"
    )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which becomes ``folder`` when it is filled.

    Raises:
        InputError: it cannot be made or filled; nothing is left of it.
    """
    try:
        with files.no_empty_folders(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with partials.folder(folder.parent) as temporary:
                filled = temporary / folder.name
                filled.mkdir()
                try:
                    yield filled
                except InputError as error:  # its message has the temporary name
                    raise InputError(
                        str(error).replace(str(filled), str(folder))
                    ) from error
                filled.rename(folder)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"--fix {folder} could not be written: {why}") from error
