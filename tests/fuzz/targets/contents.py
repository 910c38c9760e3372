"""Contents of checkpoints to begin with, and ways to change them as Python objects."""

import argparse
import collections
import copy
import functools
import pathlib
from random import Random
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub

from convnext_dense import ConvNeXt
from convnext_dense.checkpoints import convert

from ..mutations import values

CHANNELS = (4, 4, 8, 8)
ARCH = dict(depths=[1, 1, 2, 1], channels=list(CHANNELS))
TARGETS = ("timm", "transformers", "torchvision", "mmpretrain", "facebook")


@functools.cache
def _state_dict(**settings: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(ConvNeXt(ARCH, **settings).state_dict())


def state_dict(**settings: Any) -> dict[str, torch.Tensor]:
    """The weights of a very small backbone."""
    return dict(_state_dict(**settings))


def classifier() -> dict[str, torch.Tensor]:
    """The weights of a very small classifier with native names."""
    weights = {n: w for n, w in state_dict().items() if not n.startswith("norm")}
    weights.update({f"norm.{n}": torch.ones(CHANNELS[-1]) for n in ("weight", "bias")})
    weights["head.weight"] = torch.ones(5, CHANNELS[-1])
    weights["head.bias"] = torch.zeros(5)
    return weights


def weights_of_every_library() -> list[dict[str, torch.Tensor]]:
    """A small classifier under the names of each library."""
    native = classifier()
    every = [native, state_dict(use_grn=True, layer_scale_init_value=0.0)]
    for library in TARGETS[:-1]:
        every.append(dict(convert(native, "a seed", library).weights))
    every.append({f"module.{name}": weight for name, weight in native.items()})
    return every


def run_checkpoint() -> dict[str, Any]:
    """What mmengine writes in a training run, with a few of a backbone's weights."""
    return copy.deepcopy(_run_checkpoint())


@functools.cache
def _run_checkpoint() -> dict[str, Any]:
    hub = MessageHub("fuzz")
    for step in range(3):
        hub.update_scalar("train/loss", 1.0 / (step + 1))
    hub.update_info("iter", 2)
    hub.update_info("best_score", 0.5)
    hub.update_info("best_ckpt", "best.pth")
    weights = {f"backbone.{n}": w for n, w in list(state_dict().items())[:6]}
    name = next(iter(weights))
    return dict(
        meta=dict(
            cfg="default_scope = 'mmseg'\nmodel = dict(type='x')\n",
            epoch=0,
            iter=3,
            seed=1,
            experiment_name="x",
            time="20260101_000000",
            mmengine_version="0.10.7",
            dataset_meta=dict(classes=("a", "b"), palette=[[1, 2, 3], [4, 5, 6]]),
            hook_msgs=dict(best_score=0.5, last_ckpt="iter_3.pth"),
        ),
        state_dict=collections.OrderedDict(weights),
        message_hub=hub.state_dict(),
        optimizer=dict(
            state={0: dict(step=torch.tensor(3.0), exp_avg=weights[name] * 0)},
            param_groups=[dict(lr=0.1, betas=(0.9, 0.999), params=[0])],
        ),
        param_schedulers=[dict(last_step=3, _last_value=[0.1], by_epoch=False)],
        exact_resume=dict(
            random_states=[dict(numpy=np.random.RandomState(0).get_state())],
            gradients={},
            samples=6,
        ),
        settings=[
            *(argparse.Namespace(a=1), ConfigDict(a=[1]), pathlib.PosixPath("x")),
            *({1, 2}, slice(1, 2), 1j, np.float64(1), np.arange(3), torch.Size([1])),
            *(collections.Counter("a"), torch.float16, torch.device("cpu")),
        ],
    )


class Reduced:
    """Pickles as a call, and a state, of which none need be right."""

    def __init__(self, function: Any, args: tuple, state: Any = None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.reduced


def anything(rng: Random) -> Any:
    """A value that torch.save can write, likely not one of those that belong there."""
    if rng.random() < 0.4:
        return values.plain(rng)
    number = values.integer(rng) % 2**63
    small = rng.randrange(9)
    with torch.no_grad():
        choices = (
            lambda: tensor(rng),
            lambda: tensor(rng),
            lambda: tensor(rng),
            lambda: ConfigDict(type=values.word(rng)[:100]),
            lambda: argparse.Namespace(**{"x": values.plain(rng)}),
            lambda: pathlib.PosixPath(values.word(rng)[:200]),
            lambda: np.array(values.word(rng)[:50]),
            lambda: np.zeros(small, rng.choice("bdfOSUV?MmeF")),
            lambda: np.float64(values.number(rng) % 1e300),
            lambda: HistoryBuffer([1.0], [1]),
            lambda: Reduced(
                HistoryBuffer, (values.plain(rng), values.plain(rng), small)
            ),
            lambda: Reduced(HistoryBuffer, ([1.0], [1]), {values.word(rng): small}),
            lambda: Reduced(
                torch._utils._rebuild_tensor_v2,
                (
                    torch.zeros(4).untyped_storage(),
                    rng.choice((0, 0, 1, number)),
                    tuple(rng.choice((1, 4, 2, number)) for _ in range(small % 4)),
                    tuple(rng.choice((0, 1, number, -1)) for _ in range(small % 4)),
                    rng.choice((False, True, None)),
                    rng.choice((collections.OrderedDict(), None, {})),
                ),
            ),
            lambda: Reduced(
                torch._utils._rebuild_parameter,
                (values.plain(rng), False, collections.OrderedDict()),
            ),
            lambda: Reduced(np.dtype, (values.word(rng)[:20],), values.plain(rng)),
            lambda: Reduced(
                np.ndarray, ((rng.choice((0, 3, number)),), "f8"), values.plain(rng)
            ),
            lambda: Reduced(torch.Size, (values.plain(rng),)),
            lambda: Reduced(torch.device, (values.word(rng)[:20],)),
            lambda: Reduced(collections.Counter, (values.plain(rng),)),
            lambda: Reduced(collections.OrderedDict, (), {"x": values.plain(rng)}),
            lambda: Reduced(collections.defaultdict, (torch.Size,), {"x": 1}),
            lambda: Reduced(bytearray, (rng.choice((5, 10**6, number)),)),
            lambda: Reduced(getattr, (HistoryBuffer, values.word(rng)[:20])),
            lambda: Reduced(complex, (values.plain(rng),)),
            lambda: set(range(small)),
        )
        try:
            return rng.choice(choices)()
        except Exception:  # a value that cannot be made
            return None


def tensor(rng: Random) -> torch.Tensor:
    """A small tensor of a strange dtype, shape, layout or value."""
    shape = [rng.choice((0, 1, 1, 2, 3, 4, 7, 8)) for _ in range(rng.randrange(6))]
    dtype = rng.choice(
        (
            *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64),
            *(torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn),
        )
    )
    zeros = torch.zeros(shape, dtype=dtype)
    match rng.randrange(12):
        case 0 if dtype is torch.float32 and zeros.numel():
            return zeros.fill_(values.number(rng) % 1e30)
        case 1 if dtype is torch.float32:
            return zeros + float("nan")
        case 2:
            return torch.zeros(1, dtype=dtype).expand(rng.choice((1, 1000)), 1)
        case 3:
            return torch.zeros(shape, dtype=dtype, device="meta")
        case 4 if dtype is torch.float32:
            return torch.eye(3).to_sparse()
        case 5 if dtype is torch.float32:
            return torch.quantize_per_tensor(zeros + 1, 0.1, 0, torch.qint8)
        case 6:
            return torch.nn.Parameter(zeros, requires_grad=False)
        case 7 if zeros.dim() > 1:
            return zeros.transpose(0, 1)
    return zeros
