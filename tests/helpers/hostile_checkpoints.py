"""A run of milliseconds, and checkpoints of it that a stranger has changed."""

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset


class Numbers(Dataset):
    """Four vectors of two numbers."""

    def __init__(self):
        self.metainfo = dict(classes=("a", "b"))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class Line(BaseModel):
    """One linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, *inputs, mode="tensor"):
        """The loss in training, and a number otherwise."""
        result = self.layer(torch.stack(inputs)).mean()
        return dict(loss=result**2) if mode == "loss" else [result]


class Rising(BaseMetric):
    """A score that every validation finds better than the one before."""

    score = 0.0

    def process(self, data_batch, data_samples):
        """Count a batch."""
        self.results.append(1)

    def compute_metrics(self, results):
        """The next score."""
        Rising.score += 1.0
        return dict(acc=Rising.score)


def toy_runner(work_dir, epochs=1, by_epoch=True, hooks=(), runner_type=Runner, **more):
    """A runner of ``Line``, with a checkpoint and a validation after each epoch."""
    loader = dict(
        batch_size=2,
        dataset=Numbers(),
        sampler=dict(type="DefaultSampler", shuffle=False),
    )
    steps = "epochs" if by_epoch else "iters"
    settings = dict(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=by_epoch, val_interval=1, **{f"max_{steps}": epochs}),
        val_cfg={},
        val_evaluator=[Rising()],
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01)),
        param_scheduler=dict(type="LinearLR", start_factor=0.5, by_epoch=by_epoch),
        default_hooks=dict(
            checkpoint=dict(
                type="CheckpointHook",
                interval=1,
                by_epoch=by_epoch,
                save_best="acc",
                rule="greater",
                max_keep_ckpts=2,
            )
        ),
        custom_hooks=list(hooks),
        experiment_name=f"toy_{toy_runner.number}",
    )
    toy_runner.number += 1
    return runner_type(**{**settings, **more})


toy_runner.number = 0


def change(content, path, value):
    """Set, or remove, the value at a path of keys within a checkpoint.

    Args:
        path: the keys, joined by '/'; digits are indices of lists.
        value: ``REMOVED``, or what to put there.
    """
    *above, last = path.split("/")
    for key in above:
        content = content[int(key) if key.isdigit() else key]
    key = int(last) if last.isdigit() else last
    if value is REMOVED:
        del content[key]
    else:
        content[key] = value


REMOVED = object()


def nested(depth):
    """A list in a list, ``depth`` times."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


def buffer(values, counts):
    """A history with other content than numbers."""
    history = HistoryBuffer()
    history._log_history, history._count_history = values, counts
    return history


# What is changed; the value; words of the message. "state/N" is a parameter's state.
WRONG_STATE = [
    ("meta", [1], "meta is a list, not a dict"),
    ("meta/epoch", REMOVED, "meta.epoch is None, not a whole number"),
    ("meta/epoch", "1", "meta.epoch is '1', not a whole number"),
    ("meta/epoch", 1.5, "meta.epoch is 1.5"),
    ("meta/epoch", True, "meta.epoch is True"),
    ("meta/iter", -3, "meta.iter is -3"),
    ("meta/iter", 2**60, "meta.iter is 1152921504606846976, not a whole"),
    ("meta/iter", float("nan"), "meta.iter is nan"),
    ("meta/iter", torch.tensor(3), "meta.iter is a Tensor"),
    ("meta/seed", 2**40, "meta.seed is 1099511627776, not a whole number from 0"),
    ("meta/seed", -1, "meta.seed is -1"),
    ("meta/seed", "x", "meta.seed is 'x'"),
    ("meta/dataset_meta", "x", "meta.dataset_meta is 'x', not a dict"),
    ("meta/dataset_meta", [1], "meta.dataset_meta is a list"),
    ("meta/dataset_meta", {1: 2}, "a key of meta.dataset_meta is 1, not text"),
    ("meta/dataset_meta", dict(classes="abc"), "classes is 'abc', not a list"),
    ("meta/dataset_meta", dict(classes=[1]), "an entry of meta.dataset_meta.classes"),
    ("meta/dataset_meta", dict(CLASSES=["a"] * 100001), "has 100001 names"),
    ("meta/dataset_meta", dict(classes=["a" * 10**6]), "a name of 1000000 characters"),
    ("meta/dataset_meta", dict(x=nested(200)), "nested more than 100 levels"),
    ("message_hub", REMOVED, "message_hub is None, not a dict"),
    ("message_hub", 3, "message_hub is 3, not a dict"),
    ("message_hub/log_scalars", REMOVED, "message_hub.log_scalars is None"),
    ("message_hub/runtime_info", [1], "message_hub.runtime_info is a list"),
    ("message_hub/resumed_keys", "x", "message_hub.resumed_keys is 'x'"),
    ("message_hub/resumed_keys/epoch", "x", "message_hub.resumed_keys.epoch is 'x'"),
    ("message_hub/resumed_keys/iter", False, "resumed_keys.iter is False, not True"),
    ("message_hub/resumed_keys", {"train/lr": 1}, "resumed_keys.train/lr is 1"),
    ("message_hub/runtime_info/x", nested(200), "nested more than 100 levels"),
    ("message_hub/runtime_info/best_score", "9", "best_score is '9', not a number"),
    ("message_hub/runtime_info/best_score", float("nan"), "best_score is nan"),
    ("message_hub/runtime_info/best_score", None, "best_score is None"),
    ("message_hub/runtime_info/best_score", torch.ones(3), "best_score is a Tensor"),
    ("message_hub/runtime_info/best_score", np.ones(3), "best_score is a ndarray"),
    ("message_hub/runtime_info/best_score_x", "9", "best_score_x is '9'"),
    ("message_hub/runtime_info/best_ckpt", 3, "best_ckpt is 3, not a path"),
    ("message_hub/runtime_info/best_ckpt", "a" * 10**5, "best_ckpt is a str"),
    ("message_hub/runtime_info/best_ckpt", "a\0b", "best_ckpt is 'a"),
    ("message_hub/runtime_info/last_ckpt", ["a"], "last_ckpt is a list"),
    ("message_hub/runtime_info/keep_ckpt_ids", 3, "keep_ckpt_ids is 3, not a list"),
    ("message_hub/runtime_info/keep_ckpt_ids", ["../x"], "keep_ckpt_ids is a list"),
    ("message_hub/runtime_info/keep_ckpt_ids", [-1], "keep_ckpt_ids is a list"),
    ("message_hub/runtime_info/keep_ckpt_ids", [1] * 100001, "at most 100000"),
    (
        "message_hub/log_scalars/train\0loss",
        buffer(np.ones(3), np.ones(2)),
        "HistoryBuffer",
    ),
    (
        "message_hub/log_scalars/train",
        buffer("abc", "abc"),
        "HistoryBuffer",
    ),
    (
        "message_hub/log_scalars/train",
        buffer(np.array(["a"]), np.array([1])),
        "HistoryBuffer",
    ),
    ("optimizer", REMOVED, "is not a checkpoint of a run"),
    ("optimizer", {}, "optimizer is empty"),
    ("optimizer", [1], "optimizer is a list"),
    ("optimizer/param_groups", 3, "optimizer.param_groups is 3, not a list"),
    ("optimizer/param_groups", [], "different number of parameter groups"),
    ("optimizer/param_groups/0", 3, "an entry of optimizer.param_groups is 3"),
    ("optimizer/param_groups/0/params", 3, "params of optimizer.param_groups is 3"),
    ("optimizer/param_groups/0/params", [0], "parameter group that doesn't match"),
    ("optimizer/param_groups/0/lr", "x", "lr of its optimizer is 'x'"),
    ("optimizer/param_groups/0/lr", REMOVED, "has no lr, so it is not AdamW"),
    (
        "optimizer/param_groups/0/lr",
        dict(a=1),
        "lr of optimizer.param_groups is a",
    ),
    ("optimizer/param_groups/0/betas", 3, "betas of its optimizer is 3"),
    ("optimizer/state", 3, "optimizer.state is 3"),
    ("optimizer/state/0", 3, "optimizer.state[0] is 3"),
    ("optimizer/state/0/exp_avg", "x", "exp_avg of its optimizer's state"),
    ("optimizer/state/0/exp_avg", REMOVED, "exp_avg of its optimizer's state"),
    ("optimizer/state/0/exp_avg", torch.ones(9, 9), "exp_avg of its optimizer's state"),
    ("optimizer/state/0/step", "x", "does not fit this run: ValueError"),
    ("optimizer/loss_scaler", 3, "optimizer.loss_scaler is 3"),
    ("optimizer/base_param_settings", 3, "optimizer.base_param_settings is 3"),
    ("optimizer/base_param_settings", dict(lr={}), "settings.lr is a dict"),
    ("param_schedulers", 3, "param_schedulers is 3, not a list"),
    ("param_schedulers/0", 3, "an entry of param_schedulers is 3"),
    ("param_schedulers/0/last_step", "x", "last_step of the LinearLR is a str"),
    ("param_schedulers/0/begin", None, "begin of the LinearLR is a NoneType"),
    ("param_schedulers/0/_last_value", 3, "_last_value of the LinearLR is a int"),
    ("ema_state_dict", 3, "ema_state_dict is 3"),
    ("ema_state_dict", dict(a=3), "ema_state_dict.a is 3, not a tensor"),
]
