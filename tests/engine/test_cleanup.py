"""A run leaves nothing open in its process; a crash or a signal shows all stacks."""

import copy
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import weakref
from statistics import median

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import VISBACKENDS, DefaultScope
from mmengine.visualization import LocalVisBackend, Visualizer

from convnext_dense import ConvNeXt
from convnext_dense.engine.runner import run
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT
from ..programs import load

LONG = "CONVNEXT_DENSE_LOAD" in os.environ


@VISBACKENDS.register_module()
class OpenVisBackend(LocalVisBackend):
    """Keeps a file open until it is closed, as TensorBoard's backend does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.file = open(os.devnull)  # noqa: SIM115

    def close(self):
        self.file.close()


def short_config(task, data, work_dir, *options):
    """One epoch of three iterations with a persistent worker, and a validation."""
    length = ("max_epochs=1", "max_iters=3")[task == "segmentation"]
    cfg = load.small_config(
        *(task, data, work_dir, *load.SMALL[task]),
        *(f"train_cfg.{length}", f"train_cfg.val_interval={length[-1]}"),
        f"default_hooks.checkpoint.interval={length[-1]}",
        "default_hooks.logger.interval=1",
        *options,
    )
    if task == "detection":
        cfg.test_evaluator.metric = "bbox"
    cfg.visualizer.vis_backends = [dict(type="OpenVisBackend")]
    return cfg


def left():
    """The resources that exist between runs, except memory, and the log handlers."""
    gc.collect()
    return load.taken()._replace(memory=0), len(logging._handlerList)


def instances():
    """The names of mmengine's loggers, visualizers, ... in this process."""
    managers = MMLogger, MessageHub, Visualizer, DefaultScope
    return [list(manager._instance_dict) for manager in managers]


@pytest.mark.parametrize("task", load.CONFIGS)
def test_runs_leave_nothing_in_their_process(task, shapes_root, tmp_path):
    MMLogger.get_current_instance()
    processes = load.taken().processes  # Python has helpers of its own
    before, models, after, memory = instances(), [], [], []
    rounds = 10 if LONG else 3
    for number in range(rounds):
        work_dir = tmp_path / str(number)
        cfg = short_config(task, shapes_root, work_dir)
        runner = run(cfg, "train")
        assert load.taken().processes == processes  # although the Runner still exists
        models.append(weakref.ref(runner.model))
        cfg.load_from = (work_dir / "last_checkpoint").read_text()
        if LONG or number == rounds - 1:
            for mode in ("val", "test"):
                runner = run(cfg, mode)
        del runner
        after.append(left())
        memory.append(load.taken().memory)
        assert instances() == before
        # mmengine names runs by the second, and these begin within one.
        text = "".join(file.read_text() for file in work_dir.glob("*/vis_data/s*.json"))
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["iter"] for row in rows if "iter" in row] == [1, 2, 3]
    assert {model() for model in models} == {None}
    assert set(after[1:]) == {after[-1]}  # the first run starts PyTorch's own threads
    if LONG:
        first, last = median(memory[2:5]), median(memory[-3:])
        print(f"{task}: {first:.0f} -> {last:.0f} MB, {after[1]} -> {after[-1]}")
        assert last < 1.03 * first


class Fail(Hook):
    def __init__(self):
        self.processes = load.taken().processes

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.visualizer = runner.visualizer
        assert load.taken().processes == self.processes + 1
        if batch_idx == 1:
            raise RuntimeError("on purpose")


@pytest.mark.parametrize("persistent", [False, True])
def test_a_run_that_fails_leaves_nothing(persistent, shapes_root, tmp_path):
    stay = f"train_dataloader.persistent_workers={persistent}"
    cfg = short_config("segmentation", shapes_root, tmp_path, stay)
    MMLogger.get_current_instance()
    before, fail = (instances(), left()), Fail()
    with pytest.raises(RuntimeError, match="on purpose"):
        run(cfg, "train", hooks=[fail])
    assert fail.visualizer._vis_backends["OpenVisBackend"].file.closed
    del fail
    assert (instances(), left()) == before


def test_a_run_in_a_thread(shapes_root, tmp_path):
    """A run in a thread works, also after a run that failed with mmengine's lock."""
    cfg = short_config("segmentation", shapes_root, tmp_path)
    wrong = copy.deepcopy(cfg)
    wrong.visualizer.vis_backends = [dict(type="NoVisBackend")]
    with pytest.raises(InputError, match="NoVisBackend"):
        run(wrong, "train")
    done, processes = [], load.taken().processes
    thread = threading.Thread(
        target=lambda: done.append(run(cfg, "train")), daemon=True
    )
    thread.start()
    thread.join(timeout=60)
    assert done[0].iter == 3
    assert load.taken().processes == processes


def gradients(model, x):
    model.zero_grad()
    sum(level.square().mean() for level in model(x)).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_models_of_two_sizes_do_not_disturb_one_another():
    torch.manual_seed(0)
    sizes = ([8, 16, 32, 64], [1, 1, 1, 1], 64), ([12, 24, 48, 96], [1, 1, 2, 1], 96)
    models = [ConvNeXt(dict(channels=c, depths=d)) for c, d, _ in sizes]
    images = [torch.randn(2, 3, side, side) for *_, side in sizes]
    alone = [gradients(*pair) for pair in zip(models, images, strict=True)]
    wrong = []

    def many_times(model, image, expected):
        for _ in range(10):
            got = gradients(model, image)
            if not all(map(torch.equal, got, expected)):
                wrong.append(model)

    threads = [
        threading.Thread(target=many_times, args=args)
        for args in zip(models, images, alone, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_many_sizes_of_images_fill_no_memory():
    rng = random.Random(0)
    model = ConvNeXt(dict(channels=[8, 16, 32, 64], depths=[1, 1, 1, 1]))
    counts = []
    for number in range(100):
        gradients(model, torch.zeros(1, 3, rng.randint(32, 64), rng.randint(32, 64)))
        if number in (20, 99):
            gc.collect()
            counts.append(len(gc.get_objects()))
    assert counts[1] <= counts[0] + 2


TOOL = """
import ctypes, sys, threading
from convnext_dense import commands

def waiting():
    threading.Event().wait()

def main(args):
    threading.Thread(target=waiting, daemon=True).start()
    print("ready", flush=True)
    {}
    print("goes on")

commands.slow = type(sys)("convnext_dense.commands.slow")
commands.slow.main, commands.slow.add_arguments = main, lambda parser: None
sys.modules[commands.slow.__name__] = commands.slow
commands.run("slow")
"""


def start(code, **kwargs):
    command = [sys.executable, "-c", TOOL.format(code)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, text=True, **{**pipes, **kwargs})


def test_a_crash_shows_where_it_was():
    process = start("ctypes.string_at(0)")
    out, err = process.communicate()
    assert process.returncode == -signal.SIGSEGV
    assert "goes on" not in out
    for place in ("Segmentation fault", "string_at", "in main", "in waiting"):
        assert place in err


def test_a_signal_shows_where_it_is_and_it_goes_on():
    process = start("sys.stdin.readline()")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    seen = ""
    while "in main" not in seen or "in waiting" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    out, _ = process.communicate("\n")
    assert (out, process.returncode) == ("goes on\n", 0)


def test_a_tool_without_stderr_runs():
    process = start("pass", stderr=None, preexec_fn=lambda: os.close(2))
    out, _ = process.communicate()
    assert (out, process.returncode) == ("ready\ngoes on\n", 0)
