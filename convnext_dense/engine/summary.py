"""Logs at the start of a run what is trained, on what data, from which weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from convnext_dense.config.flags import LEARNING_RATE, linear_rule
from convnext_dense.config.sections import setting
from convnext_dense.utils.distributed import bare
from convnext_dense.utils.text import count, few


class SummaryHook(Hook):
    """Logs the most important facts of a run before it begins.

    Args:
        mode: 'train', 'val' or 'test'.
        lines: are logged first.
        settings: of the command line, by their keys with dots.
    """

    priority = "HIGHEST"

    def __init__(
        self, mode: str, lines: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        self.mode = mode
        self.lines = lines
        self.settings = settings

    def before_run(self, runner: Runner) -> None:
        """Log a line for each fact."""
        lines: list[str | None] = [*self.lines, _model(runner, self.mode)]
        lines += [_data(runner, self.mode), _weights(runner)]
        if self.mode == "train":
            lines += [_length(runner), _rate(runner, self.settings)]
        file = getattr(runner.logger, "log_file", None)
        if file and self.mode != "val":  # a report validates in a temporary folder
            lines.append(f"the config, the environment and all lines are in {file}")
        for line in filter(None, lines):
            runner.logger.info(line)


def _model(runner: Runner, mode: str) -> str:
    """Names the model, its size and the device."""
    model = bare(runner.model)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    arch = setting(runner.cfg, "model.backbone.arch")
    backbone = getattr(model, "backbone", None)
    name = type(backbone).__name__ if backbone is not None else ""
    if isinstance(arch, str):
        name += f"-{arch}"
    processes = get_world_size()
    return (
        f"{mode}: {type(model).__name__}"
        + (f" with {name}" if name else "")
        + f", {millions:.1f} million parameters, on {get_device()}"
        + (f" x {processes}" if processes > 1 else "")
    )


def _data(runner: Runner, mode: str) -> str:
    """Says how many images and classes there are."""
    splits = ("train", "val") if mode == "train" else (mode,)
    loops = {split: getattr(runner, f"{split}_loop") for split in splits}
    datasets = {split: loop.dataloader.dataset for split, loop in loops.items() if loop}
    counts = [
        f"{count(len(data), 'image')} ({split})" for split, data in datasets.items()
    ]
    meta = getattr(next(iter(datasets.values())), "metainfo", None) or {}
    classes = meta.get("classes") or ()
    names = f"; {len(classes)} classes: {few(classes, 6)}" if classes else ""
    return f"data: {', '.join(counts)}{names}"


def _weights(runner: Runner) -> str:
    """Names the weights with which the run begins."""
    if runner._resume:
        return f"weights: of the run that goes on ({runner._load_from or 'the newest'})"
    if runner._load_from:
        return f"weights: {runner._load_from}"
    init: Any = setting(runner.cfg, "model.backbone.init_cfg")
    checkpoint = init.get("checkpoint") if isinstance(init, Mapping) else None
    if checkpoint:
        return f"weights: the backbone's are {checkpoint}; the rest is random"
    return "weights: random"


def _length(runner: Runner) -> str:
    """Says how long the run trains, and in what steps."""
    loop: Any = runner.train_loop
    facts = [count(loop.max_iters, "step")]
    if isinstance(loop, EpochBasedTrainLoop):
        facts.insert(0, count(loop.max_epochs, "epoch"))
    if images := _images(runner):
        facts.append(f"{count(images, 'image')} a step")
    return f"length: {', '.join(facts)}"


def _images(runner: Runner) -> int:
    """Images of a step, of all processes; 0 if batches have no fixed size.

    A loader with a batch sampler of its own, such as mmdet's AspectRatioBatchSampler,
    has no batch size itself.
    """
    size = getattr(runner.train_dataloader.batch_sampler, "batch_size", None)
    return size * get_world_size() if isinstance(size, int) else 0


def _rate(runner: Runner, settings: Mapping[str, Any]) -> str | None:
    """Says it if the learning rate is for another batch size."""
    images = _images(runner)
    if LEARNING_RATE in settings or runner._resume or not images:
        return None
    return linear_rule(runner.cfg, images)
