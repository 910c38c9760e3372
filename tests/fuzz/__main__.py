"""Give mutated files to the package for a time, and watch what it does with them.

    python -m tests.fuzz --minutes 60
    python -m tests.fuzz --replay FILE

It prints what it finds, and a table at the end. Exit code 1 if something was found.
"""

import argparse
import gc
import os
import sys
import tempfile
import warnings
from pathlib import Path

# Before torch and OpenCV are imported: a forked process has no threads of its parent.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (0)")
    parser.add_argument("--cases", type=int, help="of each target, at most")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="not all targets")
    parser.add_argument(
        "--findings",
        type=Path,
        default=Path("work_dirs/fuzz"),
        metavar="FOLDER",
        help="for the files of findings (work_dirs/fuzz)",
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one finding")
    args = parser.parse_args()

    warnings.filterwarnings("ignore")
    from . import workers
    from .campaign import Campaign, replay
    from .targets import ALL

    names = [args.replay.name.partition("-")[0]] if args.replay else args.targets
    unknown = set(names or ()) - set(ALL)
    if unknown:
        parser.error(f"no target {', '.join(unknown)}: there are {', '.join(ALL)}")
    targets = {name: ALL[name] for name in names or ALL}
    workers.one_thread()
    workers.warm_up(targets)
    gc.collect()
    gc.freeze()  # what is shared with the forked processes stays as it is
    with tempfile.TemporaryDirectory(prefix="convnext_dense_fuzz_") as folder:
        scratch = Path(folder, "worker")
        if args.replay:
            outcome = replay(targets, args.replay, scratch)
            print(outcome.details)
            print(f"{outcome.verdict}: {outcome.reason}")
            return int(outcome.verdict == "finding")
        campaign = Campaign(targets, args.seed, args.findings, scratch)
        try:
            campaign.run(60 * args.minutes, args.cases, args.first)
        except KeyboardInterrupt:
            print("interrupted")
        print(campaign.table())
        return int(bool(campaign.findings))


if __name__ == "__main__":
    sys.exit(main())
