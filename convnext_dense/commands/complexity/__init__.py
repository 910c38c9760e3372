"""Count a model's parameters and multiply-adds, and compare them with the paper's.

Every model in the paper's COCO and ADE20K tables (tables 3 and 4 of arXiv 2201.03545):
  convnext-dense complexity

One config, or several:
  convnext-dense complexity CONFIG [CONFIG ...] [--shape H W]

Exit code 1 if a count differs from the paper's. Needs no data, no weights and no GPU.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import CONFIG, add_overwrite_argument, output_file

if TYPE_CHECKING:  # imported when needed: it imports torch
    from .counting import Complexity

# How far multiply-adds may be from the paper's, which are rounded, in percent.
# Parameters agree if they round to the paper's number of millions.
MACS_TOLERANCE = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the configs, ``--shape``, ``--json`` and ``--overwrite``."""
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help=CONFIG)
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="height and width of the image in pixels (default: the paper's for a "
        "model of its tables, else 800 1280 for a detector, 512 2048 for a segmentor)",
    )
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write the counts to a JSON file",
    )
    add_overwrite_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Print a row for each config; return 1 if a count differs from the paper's."""
    from convnext_dense.config import shipped
    from convnext_dense.config.inputs import config_inputs
    from convnext_dense.config.options import load_config
    from convnext_dense.utils import files, outputs

    from . import counting

    published = json.loads((shipped.folder() / "paper.json").read_text())
    del published["_about"]
    paper = {name: row for name, row in published.items() if "flops" in row}
    configs = args.configs or list(paper)
    loaded = [load_config(str(config)) for config in configs]
    outputs.check(
        [outputs.Output("--json", args.json)],
        [file for cfg in loaded for file in config_inputs(cfg)],
        args.overwrite,
    )
    width = max(len(Path(config).stem) for config in configs)
    print(
        f"{'':{width}}  {'image':>10}  {'parameters, M':>19}  {'multiply-adds, G':>25}"
    )
    print(f"{'':{width}}  {'':10}  {'here':>9} {'paper':>9}  {'here':>8} {'paper':>8}")
    rows = []
    for config, cfg in zip(configs, loaded, strict=True):
        name = Path(config).stem
        expected = None if args.shape else paper.get(name)
        shape = args.shape or (expected and expected["shape"])
        counted = counting.measure(cfg, shape)
        rows.append(_compare(name, counted, expected))
        print(_line(rows[-1], width))
    if args.json:
        with files.whole(args.json) as partial:
            partial.write_text(json.dumps(rows, indent=1) + "\n")
    differing = [row["config"] for row in rows if row.get("agrees") is False]
    if differing:
        print(f"differs from the paper: {', '.join(differing)}", file=sys.stderr)
        return 1
    return 0


def _compare(name: str, counted: "Complexity", published: dict | None) -> dict:
    """A config's counts, and the paper's (a row of paper.json) if it has them."""
    row: dict[str, Any] = {
        "config": name,
        "shape": list(counted.shape),
        "params": counted.params,
        "macs": counted.macs,
    }
    if published:
        difference = 100 * (counted.macs / 1e9 / published["flops"] - 1)
        row.update(
            paper_params=published["params"] * 10**6,
            paper_macs=published["flops"] * 10**9,
            macs_difference_percent=round(difference, 3),
            agrees=round(counted.params / 1e6) == published["params"]
            and abs(difference) <= MACS_TOLERANCE,
        )
    return row


def _line(row: dict, width: int) -> str:
    """The table's line for a row of ``_compare``; names are ``width`` wide."""
    height, wide = row["shape"]
    line = f"{row['config']:{width}}  {f'{height}x{wide}':>10}"
    if "agrees" not in row:
        return f"{line}  {row['params'] / 1e6:9.2f} {'':9}  {row['macs'] / 1e9:8.1f}"
    return (
        f"{line}  {row['params'] / 1e6:9.2f} {row['paper_params'] / 1e6:9.0f}"
        f"  {row['macs'] / 1e9:8.1f} {row['paper_macs'] / 1e9:8.0f}"
        f" {row['macs_difference_percent']:+6.2f} %"
        + ("" if row["agrees"] else "  <- differs")
    )
