"""Kill commands at every change they make to a folder, then run them again.

    python -m tests.programs.kill_commands [COMMAND ...] [--every N] [--random N]

A command runs in a forked process that kills itself (SIGKILL) before its N-th change:
a file opened for writing, a rename, a removal, a new folder. With ``--random`` it is
also killed at random times, which reach what compiled libraries write. After each kill

- every input is unchanged, byte by byte;
- every file with a final name is whole: it is the file of a run without a kill;
- the same command succeeds, and leaves the files of a run without a kill and no others.

It prints how many kills it tried, and the first differences.
"""

import argparse
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from mmengine.utils import ManagerMixin

from convnext_dense import commands
from convnext_dense.datasets import shapes

from ..bad_inputs.weights import save, small_config
from ..helpers.mmengine_state import dump_configs_without_yapf, forget_instances
from ..helpers.runs import NOTHING_SAVED, options

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {
    *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"),
    *("os.link", "os.symlink"),
}
_DATA = "data/shapes"
_JSON, _IMAGES = f"{_DATA}/annotations/instances_{{}}.json", f"{_DATA}/images/{{}}"
_SPLITS = [
    word
    for split in ("train", "val")
    for word in (
        *(f"--{split}-json", _JSON.format(split)),
        *(f"--{split}-images", _IMAGES.format(split)),
    )
]
_QUICK = options(
    *("train_cfg.max_epochs=1", "train_cfg.val_interval=1", *NOTHING_SAVED),
    *("train_dataloader.batch_size=2", "val_dataloader.dataset.indices=1"),
    *("train_dataloader.num_workers=0", "val_dataloader.num_workers=0"),
)


class Command(NamedTuple):
    """A command to kill.

    Attributes:
        arguments: of the command, in a folder that ``inputs`` has filled.
        varying: names of outputs, or parts of them, whose content differs between any
            two runs, such as logs.
        asks_for_new: folders that must not exist, as the command's message says; they
            are removed before it runs again.
        slow: whether to leave it out unless it is named.
    """

    arguments: list
    varying: tuple[str, ...] = ()
    asks_for_new: tuple[str, ...] = ()
    slow: bool = False


COMMANDS = {
    "convert_checkpoint": Command(["x.pth", "y.safetensors", "--to", "timm"]),
    "inspect_data": Command(
        [*_SPLITS, "--fix", "clean", "--html", "page.html"], ("page.html",), ("clean",)
    ),
    "predict": Command(["x.pth", _IMAGES.format("val"), "--out", "out"]),
    "test": Command(
        ["c.py", "x.pth", "--work-dir", "run", "--out", "results.pkl"],
        ("run/", "results.pkl"),
    ),
    "report": Command(
        ["old", "--checkpoint", "x.pth", "--out", "report.html"], ("report.html",)
    ),
    "train": Command(["c.py", *_SPLITS, "--work-dir", "run", *_QUICK], ("run/",)),
    "export": Command(
        ["c.py", "--backbone", "--out", "net.pt2"], ("net.pt2",), slow=True
    ),
}


def inputs(folder):
    """Write the inputs of all commands into a folder."""
    folder.mkdir()
    shapes.draw(folder / _DATA, seed=1, counts={"train": 4, "val": 2})
    save(folder, "det")
    small_config(folder, "det")
    (folder / "old/20200101_000000/vis_data").mkdir(parents=True)
    shutil.copy(folder / "c.py", folder / "old/c.py")
    scalars = [dict(lr=0.1, loss=1.0 / n, iter=n, step=n, epoch=1) for n in (1, 2)]
    (folder / "old/20200101_000000/vis_data/scalars.json").write_text(
        "".join(json.dumps(row) + "\n" for row in scalars)
    )


def look(folder):
    """The digest of every file in a folder, by name; folders have none."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        for path in folder.rglob("*")
    }


def run(name, folder, kill_before=None, seconds=None, again=False):
    """Run a command in a forked process in a folder.

    Args:
        again: whether the command may replace what an earlier run has completed.

    Returns:
        its exit code, or minus its signal; and the number of changes it made.
    """
    count_file = folder.with_suffix(".count")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
            os.ftruncate(log, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(folder)
            forget_instances(ManagerMixin)
            count = _count_changes(folder, kill_before)
            sys.argv = [name, *map(str, COMMANDS[name].arguments)]
            if again and name != "train":
                sys.argv.append("--overwrite")
            try:
                commands.run(name)
            except SystemExit as stop:
                code = stop.code or 0
            count_file.write_text(str(count[0]))
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, int(count_file.read_text()) if not code else 0


def _count_changes(folder, kill_before):
    """Count this process's changes in a folder, and die before the given one."""
    count, process, inside = [0], os.getpid(), str(folder) + "/"

    def note(event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | bytes) or os.getpid() != process:
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(inside):
            return
        count[0] += 1
        if count[0] == kill_before:
            os.kill(process, signal.SIGKILL)

    sys.addaudithook(note)
    return count


def problems(name, folder, before, whole, killed):
    """What is wrong in a folder after a command was killed, or has run again.

    Args:
        before: ``look`` at the inputs.
        whole: ``look`` at a folder after a run without a kill.
        killed: whether the command was killed; a part of its files may be missing.
    """
    varying = COMMANDS[name].varying
    after = look(folder)
    wrong = [f"{n}: an input changed" for n, d in before.items() if after.get(n) != d]
    for file, digest in after.items():
        hidden = any(piece.startswith(".") for piece in file.split("/"))
        varies = any(file.startswith(start) for start in varying)
        if hidden:
            if not killed:
                wrong.append(f"{file}: was left")
        elif varies:
            if digest == _EMPTY and not file.endswith((".log", "scalars.json")):
                wrong.append(f"{file}: is empty")
        elif whole.get(file) != digest:
            wrong.append(f"{file}: is not that of a run without a kill")
    if not killed:
        expected = {n for n in whole if not n.startswith("run/2")}
        wrong += [f"{file}: is missing" for file in expected - after.keys()]
    return wrong


_EMPTY = hashlib.sha256(b"").hexdigest()


def attempt(name, start, folder, whole, **kill):
    """Kill a command and run it again; what is wrong afterwards."""
    shutil.copytree(start, folder)
    before = look(folder)
    code, _ = run(name, folder, **kill)
    wrong = [] if code in (-9, 0) else [f"exit code {code}"]
    wrong += problems(name, folder, before, whole, killed=True)
    for path in COMMANDS[name].asks_for_new:
        shutil.rmtree(folder / path, ignore_errors=True)
    code, _ = run(name, folder, again=True)
    if code:
        log = folder.with_suffix(".log").read_text()
        wrong.append(f"exit code {code} of the second run: {log[-500:]}")
    wrong += problems(name, folder, before, whole, killed=False)
    shutil.rmtree(folder)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="*", choices=[[], *COMMANDS])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    # Forked processes would wait for the threads of this one.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    dump_configs_without_yapf()
    import_module("mmdet.utils").register_all_modules(False)
    draw, failed = random.Random(args.seed), False
    top = Path(tempfile.mkdtemp())
    start = top / "inputs"
    inputs(start)
    gc.freeze()
    chosen = args.commands or [n for n, c in COMMANDS.items() if not c.slow]
    for number, name in enumerate(chosen):
        # Every run is in the folder of the same name, which some outputs contain.
        reference = top / "work"
        shutil.copytree(start, reference)
        began = time.time()
        code, changes = run(name, reference)
        seconds = time.time() - began
        if code:
            sys.exit(reference.with_suffix(".log").read_text())
        whole = look(reference)
        shutil.rmtree(reference)
        kills = [
            dict(kill_before=n)
            for n in range(1 + number % args.every, changes + 1, args.every)
        ]
        kills += [dict(seconds=draw.uniform(0, seconds)) for _ in range(args.random)]
        good = 0
        for kill in kills:
            wrong = attempt(name, start, reference, whole, **kill)
            good += not wrong
            if wrong:
                failed = True
                print(f"{name}, {kill}: {wrong[:5]}", flush=True)
        print(
            f"{name}: {changes} changes, {len(kills)} kill points, {good} left "
            "everything whole",
            flush=True,
        )
    shutil.rmtree(top)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
