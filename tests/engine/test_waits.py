"""Training steps do not wait for a GPU because of this package's hooks."""

import math
from itertools import pairwise

import pytest
import torch
from mmengine.hooks import Hook

from convnext_dense.engine.watch.finite import StepNumbers

from ..helpers import small_runs, synchronisations, toy_runs


def parameters(**gradients):
    named = []
    for name, gradient in gradients.items():
        parameter = torch.nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient
        named.append((name, parameter))
    return named


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_not_finite(value, dtype):
    bad = torch.ones(3, 4, dtype=dtype)
    bad[1, 2] = value
    named = parameters(a=torch.ones(2, dtype=dtype), b=bad, c=torch.ones(0))
    numbers = StepNumbers(torch.tensor(1.0), named)
    assert not numbers.are_finite()
    assert numbers.not_finite() == ["b"]
    numbers = StepNumbers(torch.tensor(value), named[:1])
    assert not numbers.are_finite()
    assert numbers.not_finite() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_large_gradients_are_finite(dtype):
    """Their sum is not."""
    large = torch.full((4,), torch.finfo(dtype).max / 2, dtype=dtype)
    assert StepNumbers(1.0, parameters(a=large)).are_finite()


def test_a_loss_scaler_gets_a_spoilt_gradient():
    gradient = torch.tensor([1.0, -2.0])
    StepNumbers(torch.tensor(3.0), None).spoil(gradient)
    assert gradient.tolist() == [1.0, -2.0]
    StepNumbers(torch.tensor(math.inf), None).spoil(gradient)
    assert gradient.isnan().all()


class NaNGradient(Hook):
    """The fourth iteration's gradient of the weight is NaN; the weight is noted."""

    def before_train(self, runner):
        self.weights = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.weights.append(runner.model.layer.weight.detach().clone())
        if batch_idx == 3:
            weight = runner.model.layer.weight
            self.handle = weight.register_hook(lambda gradient: gradient * math.nan)
        if batch_idx == 4:
            self.handle.remove()


@pytest.mark.parametrize(
    "clip",
    [None, dict(max_norm=1.0), dict(type="value", clip_value=0.1)],
    ids=["unclipped", "norm", "value"],
)
def test_clipping_does_not_hide_a_gradient(tmp_path, clip):
    """The step is skipped. The model has no buffers."""
    cfg = toy_runs.config(tmp_path, optim_wrapper=dict(clip_grad=clip))
    cfg.custom_hooks = [dict(type="WatchHook")]
    noted = NaNGradient()
    toy_runs.train(cfg, hooks=[noted])
    taken = [not a.equal(b) for a, b in pairwise(noted.weights)]
    assert taken == [True] * 3 + [False] + [True] * 3
    message = "iteration 4 is not finite: losses are finite; gradients of layer.weight"
    assert small_runs.log(tmp_path).count(message) == 1


class Waits(Hook):
    """Notes what waits for the GPU from the sixth iteration on."""

    priority = "HIGHEST"

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 5:
            self.noting = synchronisations.noted()
            self.counts = self.noting.__enter__()

    def after_train(self, runner):
        self.noting.__exit__(None, None, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    "wrapper",
    [
        dict(type="AmpOptimWrapper", dtype="bfloat16"),
        dict(type="AmpOptimWrapper", clip_grad=dict(max_norm=1.0)),
        dict(type="AmpOptimWrapper", accumulative_counts=2),
        dict(type="OptimWrapper", clip_grad=dict(max_norm=1.0)),
    ],
)
def test_no_wait_is_ours(tmp_path, wrapper, resumed):
    """Nor do counts of Adam's, which mmengine loads onto the GPU."""
    wrapper = dict(wrapper, optimizer=dict(_delete_=True, type="AdamW", lr=0.1))
    cfg = toy_runs.config(tmp_path, optim_wrapper=wrapper)
    cfg.custom_hooks = [dict(type="WatchHook"), dict(type="ExactResumeHook")]
    cfg.train_cfg.val_interval = 100
    cfg.default_hooks.checkpoint.interval = 3
    if resumed:
        toy_runs.train(cfg, kill_before=5)
    cfg.default_hooks.checkpoint.interval = 100
    waits = Waits()
    runner = toy_runs.train(cfg, resume=resumed, hooks=[waits])
    assert waits.counts  # mmengine reads the losses
    ours = [line for project, line in waits.counts if project == "convnext_dense"]
    waiting = [line for line in ours if "already over" not in line]
    # Here the check waits in place of mmengine, which reads the norm next.
    clipped = wrapper["type"] == "OptimWrapper"
    assert all("synchronize" in line for line in waiting) if clipped else not waiting
    states = runner.optim_wrapper.optimizer.state.values()
    assert {state["step"].device.type for state in states} == {"cpu"}
