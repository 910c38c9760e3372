"""Runs of mmengine that take milliseconds: two weights, six samples, a made-up metric.

They are for what hooks and schedules do. What data, models and checkpoints of the
toolboxes do is tested with ``small_runs``.
"""

import contextlib
import copy
from types import SimpleNamespace
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner, loops
from mmengine.utils import ManagerMixin

from convnext_dense.engine.short_runs import ShortRunHook

from .mmengine_state import forget_instances


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode="tensor"):
        output = self.layer(torch.stack(inputs))
        return dict(loss=(output - 1).square().mean()) if mode == "loss" else [output]


@DATASETS.register_module()
class ToyData(torch.utils.data.Dataset):
    def __init__(self, size=6):
        self.metainfo = dict(classes=("x",))
        self.samples = torch.randn(size, 2, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return dict(inputs=self.samples[index])


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """``score`` is what ``scores`` has for the iteration, or 0."""

    def __init__(self, scores=None):
        super().__init__()
        self.scores = scores or {}

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        iteration = MessageHub.get_current_instance().get_info("iter") + 1
        score = float(self.scores.get(str(iteration), 0.0))
        return dict(score=score, other=score / 2)


SAMPLES = dict(type="DefaultSampler", shuffle=True)
LOADER = dict(
    dataset=dict(type="ToyData"), batch_size=2, num_workers=0, sampler=SAMPLES
)


def config(work_dir, by_epoch=False, **settings):
    """The config of a run of 8 iterations, or of 4 epochs with 3 iterations each.

    Args:
        settings: replace those of the config; of dicts, single items.
    """
    length = dict(max_epochs=4) if by_epoch else dict(max_iters=8)
    cfg = Config(
        dict(
            default_scope="mmengine",
            work_dir=str(work_dir),
            model=dict(type="ToyModel"),
            train_dataloader=copy.deepcopy(LOADER),
            val_dataloader=copy.deepcopy(LOADER),
            train_cfg=dict(
                by_epoch=by_epoch, val_interval=1 if by_epoch else 2, **length
            ),
            val_cfg=dict(),
            val_evaluator=dict(type="ToyMetric"),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9)),
            param_scheduler=[dict(type="PolyLR", by_epoch=by_epoch)],
            default_hooks=dict(
                checkpoint=dict(
                    type="CheckpointHook", by_epoch=by_epoch, interval=1,
                    save_best="score", rule="greater",
                ),
                logger=dict(type="LoggerHook", interval=1),
            ),
            log_processor=dict(by_epoch=by_epoch),
            custom_hooks=[dict(type="ExactResumeHook")],
            randomness=dict(seed=0),
        )
    )  # fmt: skip
    for name, value in settings.items():
        cfg.merge_from_dict({name: value})
    return cfg


class Stop(Exception):
    """Ends a run as a kill does."""


class Kill(Hook):
    """Ends the run before an iteration."""

    priority = "HIGHEST"

    def __init__(self, before):
        self.before = before

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.before:
            raise Stop


def train(cfg, resume=False, kill_before=None, hooks=()):
    """Train or resume as a new process would; return the Runner.

    Without the two seconds that mmengine sleeps at each end of the data, for workers:
    there are none.
    """
    forget_instances(ManagerMixin)
    cfg = copy.deepcopy(cfg)
    cfg.resume = resume
    runner = Runner.from_cfg(cfg)
    for hook in (ShortRunHook(), *hooks):
        runner.register_hook(hook)
    if kill_before:
        runner.register_hook(Kill(kill_before))
    awake = SimpleNamespace(sleep=lambda seconds: None)
    with contextlib.suppress(Stop), mock.patch.object(loops, "time", awake):
        runner.train()
    return runner
