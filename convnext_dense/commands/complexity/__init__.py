"""Parameters and multiply-adds beside the paper's: tools/complexity.py [CONFIG ...].

Without a config: every row of the paper's COCO and ADE20K tables.
"""

import argparse
import json
import sys
from pathlib import Path

from ..arguments import output_file

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
FLOPS_TOLERANCE = 0.5  # per cent; parameters agree when they round to the paper's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "configs", nargs="*", metavar="CONFIG", help="config file of either toolbox"
    )
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="image size; the paper's, where it has the config, if left out",
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write the same to a file"
    )


def main(args: argparse.Namespace) -> int:
    from convnext_dense.config.options import load_config

    from . import counting

    paper = json.loads((CONFIGS / "paper.json").read_text())
    del paper["_about"]
    files = args.configs or [next(CONFIGS.glob(f"*/{name}.py")) for name in paper]
    width = max(len(Path(file).stem) for file in files)
    print(
        f"{'':{width}}  {'image':>10}  {'parameters, M':>19}  {'multiply-adds, G':>25}"
    )
    print(f"{'':{width}}  {'':10}  {'here':>9} {'paper':>9}  {'here':>8} {'paper':>8}")
    rows = []
    for file in files:
        name = Path(file).stem
        published = None if args.shape else paper.get(name)
        shape = args.shape or (published and published["shape"])
        counted = counting.measure(load_config(str(file)), shape)
        rows.append(_compare(name, counted, published))
        print(_line(rows[-1], width))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    off = [row["config"] for row in rows if row.get("agrees") is False]
    if off:
        print(f"not the paper's: {', '.join(off)}", file=sys.stderr)
        return 1
    return 0


def _compare(name, counted, published) -> dict:
    row = {
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
            and abs(difference) <= FLOPS_TOLERANCE,
        )
    return row


def _line(row: dict, width: int) -> str:
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
