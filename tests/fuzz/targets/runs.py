"""Finds the checkpoint from which a run resumes, and resumes a small run."""

import functools
import io
import shutil
import tempfile
from pathlib import Path
from random import Random
from unittest import mock

import torch
from mmengine.utils import ManagerMixin

from convnext_dense.datasets import shapes
from convnext_dense.patches.checkpoint_finding import (
    find_latest_checkpoint,
    last_saved,
)

from ...helpers import small_runs
from ...helpers.mmengine_state import dump_configs_without_yapf, forget_instances
from ..case import Files, Link, Pipe
from ..mutations import values
from . import contents, formats
from .checkpoint_files import mutate_files
from .target import Target


@functools.cache
def _work_dirs() -> list[Files]:
    run = contents.run_checkpoint()
    second = {**run, "meta": {**run["meta"], "iter": 6}}
    data, later = formats.zip_file(run), formats.zip_file(second)
    return [
        {"iter_3.pth": data, "iter_6.pth": later, "last_checkpoint": b"iter_6.pth"},
        {"iter_3.pth": data, "iter_6.pth": later},
        {"iter_3.pth": formats.legacy_file(run), "last_checkpoint": b"iter_3.pth"},
        {"best.pth": data, "weights.pth": formats.zip_file(contents.classifier())},
    ]


_LAST = (
    *(b"", b"\n", b"iter_9.pth", b"/etc/hostname", b"/dev/zero", b"..", b".", b"/"),
    *(
        b"\0",
        b"\xff",
        b"a\nb",
        b"~",
        b"a" * 5000,
        b"iter_3.pth\0",
        b"/tmp",
        b"/proc/self",
    ),
    *(b"../iter_3.pth", b"last_checkpoint", b"/dev/stdin", b"x" * 10**6),
)


def _mutate_work_dir(files: Files, rng: Random) -> Files:
    name = rng.choice(list(files))
    match rng.randrange(6):
        case 0:
            return {**files, "last_checkpoint": rng.choice(_LAST)}
        case 1:
            special = rng.choice((Pipe(), Link("/dev/zero"), Link("."), Link(name)))
            return {**files, rng.choice((name, "new.pth", "last_checkpoint")): special}
        case 2:
            return {n: c for n, c in files.items() if n != name} or files
        case 3:
            return {**files, values.word(rng)[:100] + ".pth": files[name]}
        case _:
            chosen = {name: files[name]}
            if name.endswith(".pth"):
                (changed,) = mutate_files({"c.pth": files[name]}, rng).values()
                chosen = {name: changed}
            return {**files, **chosen}


def _find(folder: Path) -> None:
    last_saved(folder)
    path = find_latest_checkpoint(str(folder))
    target = Path(path).resolve() if path else folder
    if folder.resolve() not in (target, *target.parents):
        raise AssertionError(f"it resumes from {path!r}, outside the work dir")


@functools.cache
def _finished_run() -> list[Files]:
    """The files of a small run, trained once; in a folder, since data sets need one."""
    root = Path(tempfile.mkdtemp(prefix="convnext_dense_fuzz_"))
    try:
        shapes.draw(root / "shapes", seed=1, counts={"train": 4, "val": 2})
        dump_configs_without_yapf()
        _train(root / "run", root / "shapes", 2, resume=False)
        checkpoint = (root / "run/iter_2.pth").read_bytes()
        pictures = {
            f"shapes/{path.relative_to(root / 'shapes')}": path.read_bytes()
            for path in sorted((root / "shapes").rglob("*"))
            if path.is_file()
        }
    finally:
        shutil.rmtree(root)
    return [
        {"run/iter_2.pth": checkpoint, "run/last_checkpoint": b"iter_2.pth", **pictures}
    ]


def _train(work_dir: Path, data: Path, iterations: int, resume: bool) -> None:
    options = [
        f"train_cfg.max_iters={iterations}",
        "train_cfg.val_interval=100",
        "default_hooks.checkpoint.interval=1",
        "val_dataloader.batch_size=1",
    ]
    forget_instances(ManagerMixin)
    cfg = small_runs.small("iterations", work_dir, data, options=options)
    # It asks compilers for their versions.
    with mock.patch("mmengine.runner.runner.collect_env", dict):
        small_runs.train(cfg, resume=resume)


def _mutate_run(files: Files, rng: Random) -> Files:
    """Change values in the checkpoint of the run."""
    name = "run/iter_2.pth"
    if rng.random() < 0.1:
        return {**files, "run/last_checkpoint": rng.choice(_LAST)}
    content = torch.load(io.BytesIO(files[name]), weights_only=False)
    key = rng.choice([k for k in content if k != "state_dict"] * 3 + ["state_dict"])
    changed = {key: content.pop(key)}
    values.change(changed, rng, contents.anything)
    return {**files, name: formats.zip_file({**content, **changed})}


def _resume(folder: Path) -> None:
    _train(folder / "run", folder / "shapes", 3, resume=True)


TARGETS_HERE = (
    Target("work_dir", _work_dirs, _mutate_work_dir, _find, ("last_checkpoint",)),
    Target(
        "resume",
        _finished_run,
        _mutate_run,
        _resume,
        changes=("run/",),
        share=2,
        seconds=40,
        memory=700,
    ),
)
