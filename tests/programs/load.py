"""Measure what a training uses: memory, files, threads, processes, shared memory.

``python -m tests.programs.load TASK DATA WORK_DIR`` trains on tiny pictures for 280
epochs and writes what the process uses after each one to WORK_DIR/taken.json.
"""

import argparse
import gc
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.hooks import Hook

from convnext_dense.config.options import load_config
from convnext_dense.datasets import shapes
from convnext_dense.engine.runner import run

from ..helpers.runs import DET, SEG

CONFIGS = {"detection": DET, "segmentation": SEG}

# Options that make the models of CONFIGS smaller still.
NARROW = [
    "model.backbone._delete_=True",
    "model.backbone.type=ConvNeXt",
    "model.backbone.arch.depths=[1,1,1,1]",
    "model.backbone.arch.channels=[8,16,32,64]",
]
SMALL = {
    "detection": [
        *NARROW,
        "model.neck.in_channels=[8,16,32,64]",
        # PyTorch keeps memory for each new number of objects that a mask head meets.
        "model.roi_head.mask_head=None",
        "val_evaluator.metric=bbox",
    ],
    "segmentation": [
        *NARROW,
        "model.decode_head.in_channels=[8,16,32,64]",
        "model.auxiliary_head.in_channels=32",
    ],
}


class Taken(NamedTuple):
    """What this process and its children use at one moment.

    Attributes:
        memory: MB of all of them. Shared memory counts once; files that are only read,
            such as libraries, do not count.
        files: open files, sockets and pipes of this process.
        threads: threads of this process.
        processes: its children, and theirs.
        shared: named pieces of shared memory, also those that ended processes left.
    """

    memory: float
    files: int
    threads: int
    processes: int
    shared: int


def taken() -> Taken:
    """Measure this process and its children now; Linux only."""
    children = _children(os.getpid())
    return Taken(
        sum(map(_memory, (os.getpid(), *children))),
        len(os.listdir("/proc/self/fd")) - 1,  # that of the listing itself
        len(os.listdir("/proc/self/task")),
        len(children),
        sum(_shared({os.getpid(), *children}, name) for name in os.listdir("/dev/shm")),
    )


def _shared(processes: set[int], name: str) -> bool:
    """Whether shared memory belongs to ``processes`` or to an ended process."""
    owner = re.search(r"_(\d+)_", name)
    return bool(
        owner and (int(owner[1]) in processes or not Path("/proc", owner[1]).exists())
    )


def _children(process: int) -> list[int]:
    children = []
    with suppress(OSError):  # a thread, or the process, has just ended
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                for child in map(int, (thread / "children").read_text().split()):
                    children += [child, *_children(child)]
    return children


def _memory(process: int) -> float:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0
    parts = re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB", text, re.MULTILINE)
    return sum(map(int, parts)) / 1000


class Watch(Hook):
    """Notes what the run uses, every ``interval`` iterations.

    It collects Python's garbage before each of the first ``warm_up`` notes: the first
    collection writes to every object, so that workers no longer share its memory.
    """

    priority = "LOWEST"

    def __init__(self, interval: int, warm_up: int):
        self.interval, self.warm_up = interval, warm_up
        self.notes: list[Taken] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.every_n_train_iters(runner, self.interval):
            if len(self.notes) < self.warm_up:
                gc.collect()
            self.notes.append(taken())


def small_config(task: str, data: Path, work_dir: Path, *options: str) -> Config:
    """An atto-sized model and batches of two images of 64 x 64 pixels.

    Args:
        task: 'detection', which goes by epochs, or 'segmentation', by iterations.
        data: the built-in data set.
        options: as ``--cfg-options``.
    """
    settings = [f"data_root={data}", "param_scheduler=[]"]
    for split, resize in (("train", 2), ("val", 1), ("test", 1)):
        settings += [
            f"{split}_dataloader.batch_size=2",
            f"{split}_dataloader.dataset.pipeline.{resize}.scale=(64,64)",
        ]
    if task == "segmentation":
        settings.append("model.data_preprocessor.size=(64,64)")
    settings += options
    return load_config(str(CONFIGS[task]), settings, str(work_dir))


def train(
    task: str,
    persistent: bool,
    data: Path,
    work_dir: Path,
    epochs: int = 280,
    every: int = 5,
    warm_up: int = 80,
    workers: int = 2,
    hooks: Sequence[Hook] = (),
    options: Sequence[str] = (),
) -> list[Taken]:
    """Train with validations; what the process used at the end of each epoch.

    Args:
        task: 'detection' or 'segmentation'.
        persistent: whether workers stay for the whole run; otherwise each epoch and
            each validation starts new ones.
        data: the built-in data set.
        work_dir: of the run.
        epochs: how many to train.
        every: epochs between validations, and between checkpoints.
        warm_up: epochs left out at the start. PyTorch keeps memory for each new number
            of objects that a mask head meets, which happens for about sixty epochs.
        workers: of each data loader.
        hooks: in addition to those of every run.
        options: as ``--cfg-options``.
    """
    length = len(list((data / "images/train").iterdir())) // 2
    unit = 1 if task == "detection" else length
    settings = [
        f"train_cfg.{'max_epochs' if unit == 1 else 'max_iters'}={epochs * unit}",
        f"train_cfg.val_interval={every * unit}",
        f"default_hooks.checkpoint.interval={every * unit}",
        f"default_hooks.logger.interval={length}",
        "train_dataloader.sampler.type=DefaultSampler",  # whose epochs end
    ]
    for split in ("train", "val"):
        settings += [
            f"{split}_dataloader.num_workers={workers}",
            f"{split}_dataloader.persistent_workers={persistent}",
        ]
    watch = Watch(length, warm_up)
    cfg = small_config(task, data, work_dir, *settings, *options)
    run(cfg, "train", hooks=[watch, *hooks])
    return watch.notes[warm_up:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=CONFIGS)
    parser.add_argument("data", type=Path, help="the built-in data set")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--persistent", action="store_true")
    args = parser.parse_args()
    if not args.data.exists():
        shapes.draw(args.data, seed=1, counts={"train": 8, "val": 2})
    notes = train(args.task, args.persistent, args.data, args.work_dir)
    (args.work_dir / "taken.json").write_text(json.dumps([n._asdict() for n in notes]))


if __name__ == "__main__":
    main()
