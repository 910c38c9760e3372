"""Runs tools in two processes with the environment that torchrun sets: ``pair``.

The processes are forked from a process that has only imported modules. A training run
writes its report page only if its work dir is called page.

Configs of the tests import this module for its hooks and transforms: ``Gradients``
keeps the gradients of the first step, ``InfiniteLoss`` makes a loss infinite, and
``ResizeByNumber`` makes images of several sizes.
"""

import functools
import multiprocessing
import os
import runpy
import socket
import sys
import warnings
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from mmengine.utils import ManagerMixin

from convnext_dense.engine.launch import joined
from convnext_dense.reports.run.hook import RunReportHook

from .mmengine_state import dump_configs_without_yapf, forget_instances
from .paths import ROOT


@HOOKS.register_module(force=True)
class Gradients(Hook):
    """Writes the gradients and the image paths of the first step.

    Args:
        file: of rank 0; another rank adds its number to the end of the name.
    """

    def __init__(self, file: str):
        self.file = file + f".{get_rank()}" * (get_rank() > 0)

    def before_train(self, runner) -> None:
        optimizer = runner.optim_wrapper.optimizer
        step = optimizer.step

        def keep_and_step(*args, **kwargs):
            model = getattr(runner.model, "module", runner.model)
            torch.save({n: p.grad for n, p in model.named_parameters()}, self.file)
            optimizer.step = step
            return step(*args, **kwargs)

        optimizer.step = keep_and_step

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx:
            return
        images = [sample.img_path for sample in data_batch["data_samples"]]
        torch.save(images, f"{self.file}.images")


@HOOKS.register_module(force=True)
class InfiniteLoss(Hook):
    """Makes the loss of rank 1 infinite in iteration 2; its gradients stay finite."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        model = getattr(runner.model, "module", runner.model)
        if batch_idx == 0:
            self.parse = model.parse_losses
        infinite = dict(loss_more=torch.tensor(float("inf")))
        now = batch_idx == 1 and get_rank() == 1
        added = infinite if now else {}
        model.parse_losses = lambda losses: self.parse(losses | added)


@TRANSFORMS.register_module(force=True)
class ResizeByNumber:
    """Resizes an image to the scale that the number in its file name selects."""

    def __init__(self, scales):
        self.steps = [
            TRANSFORMS.build(dict(type="Resize", scale=scale)) for scale in scales
        ]

    def __call__(self, results):
        number = int(Path(results["img_path"]).stem)
        return self.steps[number % len(self.steps)](results)


def free_port():
    """A port of this machine that nothing listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def pair(tools, cwd, code=0):
    """Run tools one after another, each in both processes.

    Args:
        tools: the name and the arguments of each.
        cwd: the folder to run in.
        code: the exit code that both processes must have.

    Returns:
        The output of rank 0 and of rank 1.
    """
    start = _fork_server()
    variables = dict(WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, MASTER_ADDR="127.0.0.1")
    variables.update(MASTER_PORT=free_port(), OMP_NUM_THREADS=1)
    commands = [[str(argument) for argument in tool] for tool in tools]
    both, files = [], []
    for rank in (0, 1):
        files.append(Path(cwd, f"said.{rank}"))
        variables.update(RANK=rank, LOCAL_RANK=rank)
        environment = {name: str(value) for name, value in variables.items()}
        arguments = (environment, commands, cwd, files[-1])
        both.append(start.Process(target=_run, args=arguments))
        both[-1].start()
    try:
        for process in both:
            process.join(timeout=300)
    finally:
        for process in both:
            process.kill()
    said = [file.read_text() for file in files]
    ends = "\n".join(text[-2000:] for text in said)
    assert [process.exitcode for process in both] == [code] * 2, ends
    return said


@functools.cache
def _fork_server():
    """The context that forks processes from one that has imported this module."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        # Before the installed packages, one of which has a package named tests, too.
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()
    return start


def _run(environment, commands, cwd, file):
    """Run the commands in a forked process; its output goes to ``file``."""
    with open(file, "w") as out:
        for number in (1, 2):
            os.dup2(out.fileno(), number)
    os.environ.update(environment)
    os.chdir(cwd)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT / "tools"))
    write = RunReportHook.after_train
    with joined(Config(dict(launcher="pytorch"))):
        for name, *arguments in commands:
            sys.argv = [name, *arguments, "--launcher", "pytorch"]
            forget_instances(ManagerMixin)
            page = "page" in arguments
            RunReportHook.after_train = write if page else lambda *_: None
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
            print(f"{name} is over", flush=True)


dump_configs_without_yapf()
for toolbox in ("mmdet", "mmseg"):  # once, not in each process
    import_module(f"{toolbox}.utils").register_all_modules(False)
