"""Make mmengine read the config inside a checkpoint as data.

mmengine executes that text with ``Config.fromstring`` at two places: a run that
resumes looks for ``gpu_ids`` in it, and an inferencer without a config takes its model
from it.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner._flexible_runner import FlexibleRunner
from torch import distributed, nn

from convnext_dense.checkpoints import loaded_state, run_config, run_state
from convnext_dense.checkpoints.unpickling import TRUST, require_built, trusted
from convnext_dense.errors import InputError
from convnext_dense.utils.text import reason

from . import checkpoint_loading

_VISUALIZERS = {"mmdet": "DetLocalVisualizer", "mmseg": "SegLocalVisualizer"}
# Errors that are no fault of the checkpoint.
_NOT_ITS_FAULT = (MemoryError, torch.cuda.OutOfMemoryError)
if distributed.is_available() and hasattr(distributed, "DistError"):
    _NOT_ITS_FAULT = (*_NOT_ITS_FAULT, distributed.DistError)

_Reader = Callable[[str], dict]
# What Config.fromstring does with the text of a checkpoint, while one is used.
_reader: ContextVar[_Reader | None] = ContextVar("reader", default=None)


def read_as_data() -> None:
    """Replace ``Config.fromstring``, and mark where its text is a checkpoint's."""
    plain = Config.fromstring
    if hasattr(plain, "__wrapped__"):  # installed already
        return

    @functools.wraps(plain)
    def fromstring(cfg_str: str, file_format: str) -> Config:
        read = _reader.get()
        return plain(cfg_str, file_format) if read is None else Config(read(cfg_str))

    Config.fromstring = staticmethod(fromstring)
    for runner in (Runner, FlexibleRunner):
        runner.resume = _resuming(runner.resume)
    BaseInferencer._init_model = _without_running(BaseInferencer._init_model)


def take_checkpoint_as_model() -> None:
    """Replace ``BaseInferencer.__init__``, whose ``model`` may be a checkpoint then."""
    plain = BaseInferencer.__init__
    if hasattr(plain, "__wrapped__"):  # installed already
        return

    @functools.wraps(plain)
    def init(
        self: BaseInferencer,
        model: Any = None,
        weights: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if weights is None and isinstance(model, str) and _is_checkpoint(model):
            model, weights = None, model
        plain(self, model, weights, *args, **kwargs)

    BaseInferencer.__init__ = init


def _is_checkpoint(name: str) -> bool:
    """Whether a name is a checkpoint's, not a config's or that of a toolbox's model."""
    is_config = name.endswith((".py", ".json", ".yaml", ".yml"))
    return not is_config and ("://" in name or os.path.isfile(name))


@contextmanager
def _reading(read: _Reader) -> Iterator[None]:
    token = _reader.set(read)
    try:
        yield
    finally:
        _reader.reset(token)


def _resuming(plain: Callable) -> Callable:
    """A runner's ``resume`` that checks the state of the run in the checkpoint."""

    @functools.wraps(plain)
    def resume(self: Runner, filename: str, *args: Any, **kwargs: Any) -> None:
        try:
            with _reading(_gpu_ids), checkpoint_loading.checked(_state):
                plain(self, filename, *args, **kwargs)
            wrapper = getattr(self, "strategy", self).optim_wrapper
            loaded_state.check_optimizers(wrapper, filename)
            loop = self.train_loop
            if isinstance(loop, IterBasedTrainLoop) and loop.iter > loop.max_iters:
                # mmengine would go through all data of the iterations before.
                raise InputError(
                    f"--resume: {filename} is of iteration {loop.iter}, and this run "
                    f"ends at iteration {loop.max_iters}: raise train_cfg.max_iters"
                )
        except _NOT_ITS_FAULT:
            raise
        except Exception as error:  # other state can make mmengine raise anything
            if hasattr(error, "exit_code"):
                raise
            raise InputError(
                f"--resume: the state of the run in {filename} does not fit this run: "
                f"{reason(error)}. Resume with the config with which the run began. To "
                "start from the weights alone: --cfg-options load_from=FILE"
            ) from error

    return resume


def _state(content: Any, source: str) -> Any:
    """The content of a run's checkpoint, of which everything is used."""
    if isinstance(content, Mapping) and "message_hub" in content:
        require_built(content, "", f"--resume: {source}")
    return run_state.checked(content, source)


def _gpu_ids(text: object) -> dict:
    """The only setting that a run which resumes looks for."""
    try:
        return run_config.parse(str(text), dict(gpu_ids=(list, tuple)))
    except run_config.NotData:
        return {}


def _without_running(plain: Callable) -> Callable:
    """``BaseInferencer._init_model`` that takes a model from a checkpoint as data."""

    @functools.wraps(plain)
    def init_model(
        self: BaseInferencer, cfg: Any, weights: str | None, device: str = "cpu"
    ) -> nn.Module:
        if cfg or trusted():
            return plain(self, cfg, weights, device)
        content: dict = {}  # of the checkpoint, when Config.fromstring is called

        def read(text: object) -> dict:
            try:
                return _prediction(text, self.scope, content)
            except run_config.NotData as problem:
                raise InputError(
                    f"the config in {weights} was not used: {problem}. None of its "
                    "code was run. Name the config as model=FILE or, if you trust the "
                    f"checkpoint's author, set {TRUST}=1 in the environment"
                ) from problem

        def keep(checkpoint: dict, source: str) -> dict:
            content.update(checkpoint)
            return checkpoint

        with _reading(read), checkpoint_loading.checked(keep):
            return plain(self, cfg, weights, device)

    return init_model


def _prediction(text: object, scope: str | None, content: dict) -> dict:
    """The settings that an inferencer needs, checked.

    Args:
        text: of the config.
        scope: the inferencer's toolbox, or None.
        content: of the checkpoint.

    Raises:
        NotData: a setting could run code, open a file, or take too much memory.
    """
    if not isinstance(text, str):
        raise run_config.NotData("it is not text")
    settings = run_config.parse(text, run_config.PREDICTION)
    scope = settings.get("default_scope", scope)
    dataset = settings.get("test_dataloader", {}).get("dataset")
    if scope not in _VISUALIZERS or "model" not in settings:
        raise run_config.NotData("it has no model of MMDetection or MMSegmentation")
    if not isinstance(dataset, dict) or not isinstance(dataset.get("pipeline"), list):
        raise run_config.NotData("it has no test_dataloader.dataset.pipeline")
    run_config.import_modules(settings)
    model = run_config.without_weights(settings["model"])
    pipeline = [
        step
        for step in dataset["pipeline"]
        if not isinstance(step, dict) or "Annotations" not in str(step.get("type"))
    ]
    weights = content.get("state_dict", content)
    run_config.check_prediction(model, pipeline, scope, weights)
    return dict(
        default_scope=scope,
        model=model,
        # mmdet's inferencer builds the data set for its palette.
        test_dataloader=dict(
            dataset=dict(
                type="BaseDetDataset" if scope == "mmdet" else "BaseSegDataset",
                pipeline=pipeline,
            )
        ),
        visualizer=dict(type=_VISUALIZERS[scope], name="visualizer"),
    )
