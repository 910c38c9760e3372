"""The command line of the sweep: ``python -m tests.programs.families``."""

import os

# Before torch is imported: each process computes with one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

from . import table
from .catalogue import LEFT_OUT, TOOLBOXES, families
from .shrinking import CHANGES
from .workers import Job, import_toolboxes, run_all


def main() -> None:
    """Sweep, print a line for each run and a table at the end, and write the JSON."""
    args = _parse_args()
    warnings.filterwarnings("ignore")
    if args.table:
        print(table.markdown(json.loads(path.read_text()) for path in args.table))
        return
    chosen = families(args.toolbox or TOOLBOXES, args.names)
    rows = {family.name: table.Row(family) for family in chosen}
    variants = {"shipped": [False], "convnext": [True]}.get(args.only, [False, True])
    jobs = [
        Job(family, with_convnext)
        for family in chosen
        if family.name not in LEFT_OUT
        for with_convnext in variants
    ]
    start = time.monotonic()
    sweep = table.as_json(rows.values(), args.device, 0.0)
    if args.device == "cpu":
        import_toolboxes()
    for job, result in run_all(jobs, args.jobs, args.device, args.timeout, args.limit):
        variant = "convnext" if job.with_convnext else "shipped"
        name = job.family.name
        rows[name] = rows[name]._replace(**{variant: result})
        print(table.line(name, variant, result), flush=True)
        if args.trace and result.trace:
            print(result.trace)
        sweep = table.as_json(rows.values(), args.device, time.monotonic() - start)
        if args.out:  # a sweep that is killed keeps what it has
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(sweep, indent=1) + "\n")
    print()
    print(table.failures(sweep))
    print()
    print(table.summary(sweep))
    print(f"{sweep['seconds']} s. Changed: {'; '.join(CHANGES)}.")


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tests.programs.families", description=__doc__)
    parser.add_argument("names", nargs="*", help="families; all by default")
    parser.add_argument("--toolbox", choices=TOOLBOXES, action="append")
    parser.add_argument("--only", choices=("shipped", "convnext"))
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--timeout", type=float, default=120, help="seconds of a run")
    parser.add_argument("--limit", type=float, default=7200, help="seconds of all runs")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--table",
        type=Path,
        nargs="+",
        metavar="FILE.json",
        help="print the Markdown table of sweeps, later files over earlier ones",
    )
    parser.add_argument("--trace", action="store_true", help="show exceptions' stacks")
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    main()
