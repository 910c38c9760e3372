"""Kill training runs, resume them, and compare them with runs that were not stopped.

    python -m tests.programs.kill_points [--every N] [--random N] [--jobs N] [--seed N]

It kills at every moment that ``moments`` lists (with --every 5, at each fifth) and at
``--random`` random times. It does so on each path: by epochs and by iterations, with
and without data-loader workers, all with averaged weights. It prints how many kills it
tried, how many runs ended bit for bit identical, and the first differences.
"""

import argparse
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import torch
from mmengine.hooks import Hook

from convnext_dense.datasets import shapes
from convnext_dense.errors import STOPPED
from convnext_dense.reports.run.hook import RunReportHook
from convnext_dense.utils import files

from ..helpers import small_runs
from ..helpers.mmengine_state import dump_configs_without_yapf

# Training loop, data-loader workers, iterations whose gradients a step accumulates.
PATHS = [
    *(("epochs", 0, 1), ("epochs", 2, 1), ("epochs", 0, 2)),
    *(("iterations", 0, 1), ("iterations", 2, 1)),
]
ITERATIONS = {"epochs": 9, "iterations": 9}
SAVES = 3  # by interval; the best ones come in between


def moments(loop):
    """The moments to kill at: arguments of ``_die_at``."""
    steps = range(1, ITERATIONS[loop] + 1)
    return [
        *(("SIGKILL", "in step", n) for n in steps),
        *(("SIGKILL", "after step", n) for n in steps),
        *(("SIGKILL", "in validation", n) for n in (1, 2, 3)),
        *(
            ("SIGKILL", f"{place} of a file", n)
            for place in FILE_PLACES
            for n in (1, 2, 3, 5)
        ),
        *(("torn", "after step", n) for n in (7, 8)),
        *(("SIGTERM", "in step", n) for n in steps),
        *(("SIGTERM", "in validation", n) for n in (1, 2, 3)),
        *(("SIGTERM to all", "in step", n) for n in (2, 5)),
        *(("SIGINT to all", "in step", n) for n in (3, 6)),
        ("SIGINT to all", "in validation", 2),
    ]


FILE_PLACES = ("half", "end", "after the end")


class _Die(Hook):
    """Sends the signal when the run comes to a place: an iteration or a validation."""

    priority = "VERY_HIGH"

    def __init__(self, place, number, send):
        self.place, self.number, self.send = place, number, send
        self.validations = 0

    def before_train_iter(self, runner, **_):
        if self.place == "in step" and runner.iter + 1 == self.number:
            self.send()

    def before_val_epoch(self, runner):
        self.validations += 1

    def after_val_iter(self, runner, batch_idx, **_):
        at = self.validations == self.number and batch_idx == 0
        if self.place == "in validation" and at:
            self.send()


class _DieAfter(_Die):
    priority = "LOWEST"

    def before_train_iter(self, runner, **_):
        pass

    def after_train_iter(self, runner, **_):
        if runner.iter + 1 == self.number:
            self.send()


def _die_at(what, place, number):
    """Prepare this process to die at a moment; returns hooks for its run."""
    name, _, to_all = what.partition(" to ")
    number_of = signal.SIGKILL if name == "torn" else signal.Signals[name]

    def send():
        if to_all:
            os.killpg(0, number_of)
        else:
            os.kill(os.getpid(), number_of)

    if place == "half of a file":
        save, count = torch.save, iter(range(1, 100))

        def save_half(content, file):
            start = file.tell()
            save(content, file)
            if next(count) == number:
                file.truncate(start + (file.tell() - start) // 2)
                file.flush()
                send()

        torch.save = save_half
        return []
    if place.endswith("of a file"):
        # It is called before and after a checkpoint gets its name.
        to_disk, count = files._to_disk, iter(range(1, 100))
        at = 2 * number - (place == "end of a file")

        def to_disk_and_die(path):
            to_disk(path)
            if next(count) == at:
                send()

        files._to_disk = to_disk_and_die
        return []
    hook_class = _DieAfter if place == "after step" else _Die
    return [hook_class(place, number, send)]


def run(path, data, work_dir, moment=None, seconds=None):
    """Train or resume in a forked process; its exit code, or minus its signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            log = os.open(f"{work_dir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            warnings.simplefilter("ignore")
            RunReportHook.after_train = lambda *_: None  # the page: it takes a while
            loop, workers, accumulated = path
            cfg = small_runs.small(loop, work_dir, data, workers, ema=True)
            cfg.optim_wrapper.accumulative_counts = accumulated
            hooks = _die_at(*moment) if moment else []
            small_runs.train(cfg, resume=True, hooks=hooks)
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tear(work_dir):
    """Cut off a third of the newest checkpoint, as a power failure may."""
    newest = max(Path(work_dir).glob("*.pth"), key=lambda f: f.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size * 2 // 3)


def attempt(path, data, reference, work_dir, moment):
    """Kill a run and resume it; the differences from ``reference``."""
    if isinstance(moment, float):
        run(path, data, work_dir, seconds=moment)
    else:
        code = run(path, data, work_dir, moment)
        stopped = STOPPED if moment[0].startswith(("SIGTERM", "SIGINT")) else -9
        if code != stopped:
            return [f"exit code {code} instead of {stopped}"]
        if moment[0] == "torn":
            tear(work_dir)
    code = run(path, data, work_dir)
    if code:
        return [f"exit code {code} when it went on"]
    left = [path.name for path in Path(work_dir).glob(".*")]
    left += [path.name for path in Path(work_dir).glob("interrupted.pth")]
    different = small_runs.differences(reference, work_dir) + left
    shutil.rmtree(work_dir)
    return different


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dump_configs_without_yapf()
    for toolbox in ("mmdet", "mmseg"):  # once, not in each process
        import_module(f"{toolbox}.utils").register_all_modules(False)
    gc.freeze()
    draw = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp())
    data = folder / "data"
    shapes.draw(data, seed=1, counts={"train": 6, "val": 5})
    failed = False
    with ProcessPoolExecutor(args.jobs, get_context("fork")) as pool:
        for number, path in enumerate(PATHS):
            loop, workers, accumulated = path
            reference = folder / "_".join(map(str, path))
            began = time.time()
            if pool.submit(run, path, data, reference).result():
                sys.exit(Path(f"{reference}.log").read_text())
            seconds = time.time() - began
            chosen = moments(loop)
            # Each path begins elsewhere: few points are then of many kinds.
            chosen = chosen[11 * number % args.every :: args.every] + [
                draw.uniform(0, seconds) for _ in range(args.random)
            ]
            results = [
                pool.submit(
                    *(attempt, path, data, reference),
                    *(Path(f"{reference}_{turn}"), moment),
                )
                for turn, moment in enumerate(chosen)
            ]
            same = 0
            for turn, (moment, result) in enumerate(zip(chosen, results, strict=True)):
                different = result.result()
                same += not different
                if different:
                    failed = True
                    print(f"{moment}: {different[:5]}; log: {reference}_{turn}.log")
            print(
                f"by {loop}, {workers} workers, {accumulated} iterations a step: "
                f"{len(chosen)} kill points, "
                f"{same} ended identical",
                flush=True,
            )
    if failed:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
