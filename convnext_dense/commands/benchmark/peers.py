"""Other libraries' ConvNeXts with the weights of ours; and whether they compute the
same."""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from convnext_dense.checkpoints import converting
from convnext_dense.errors import InputError
from convnext_dense.models.convnext import ConvNeXt, drop_path_rates

OURS = "convnext_dense"
LIBRARIES = ("timm", "torchvision", "transformers", "mmpretrain")


class Peer(NamedTuple):
    """A library's backbone: a module that makes four maps of an image.

    Attributes:
        library: its name.
        module: (N, 3, H, W) -> four maps at strides 4 to 32, finest first.
        normed: whether the maps went through a norm, as ours do.
    """

    library: str
    module: nn.Module
    normed: bool


def installed() -> list[str]:
    """The libraries that can be compared with, here."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name)]


def build(ours: ConvNeXt, libraries: Sequence[str]) -> list[Peer]:
    """Each library's backbone with the weights and drop path rates of ``ours``.

    A library that has no such architecture is left out.
    """
    peers = []
    for library in libraries:
        try:
            made = converting.convert(ours.state_dict(), OURS, library)
        except InputError:  # torchvision has only V1
            continue
        peer = _BUILDERS[library](ours, made)
        _set_drop_path(
            peer.module, drop_path_rates(ours.stages[-1][-1].drop_path.p, ours.depths)
        )
        peers.append(peer)
    return peers


def _set_drop_path(module: nn.Module, rates: Iterable[float]) -> None:
    """Give every block of a peer its drop path rate."""
    names = "drop_path", "stochastic_depth"
    blocks = (
        (part, name)
        for part in module.modules()
        for name in names
        if hasattr(part, name)
    )
    for (block, name), rate in zip(blocks, rates, strict=True):
        setattr(
            block, name, StochasticDepth(rate, mode="row") if rate else nn.Identity()
        )


def check(ours: ConvNeXt, peers: Sequence[Peer]) -> None:
    """Raise an InputError if a peer computes something else than ``ours``, in fp32.

    All are on the same device. On a GPU, fp32 is fp32: without TF32.
    """
    x = torch.rand(1, 3, 64, 96, device=next(ours.parameters()).device)
    with no_tf32():
        different = disagreements(ours, peers, x)
    if different:
        raise InputError("not the same models: " + "; ".join(different))


def no_tf32() -> AbstractContextManager:
    """cuDNN's convolutions in plain fp32; PyTorch's matrix products already are."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def disagreements(ours: ConvNeXt, peers: Sequence[Peer], x: Tensor) -> list[str]:
    """What differs, in fp32, by more than 1e-3 of its largest value: nothing, or a
    line for each peer.

    Compared are the four normed maps, and the gradients of the image and of every
    parameter.
    """
    maps, of_x, gradients = _pass(ours, True, ours, x)
    found = []
    for peer in peers:
        theirs, of_x_there, there = _pass(peer.module, peer.normed, ours, x)
        pairs = {
            f"map {i}": pair for i, pair in enumerate(zip(maps, theirs, strict=True))
        }
        pairs["gradient of the image"] = of_x, of_x_there
        expected = converting.convert(gradients, OURS, peer.library).weights
        prefix = "backbone." if peer.library == "mmpretrain" else ""
        for name, gradient in there.items():
            pairs[f"gradient of {name}"] = expected[prefix + name], gradient
        for what, (mine, other) in pairs.items():
            difference = (mine - other.view_as(mine)).abs().max()
            if not difference <= 1e-3 * mine.abs().max():  # NaN too
                found.append(f"{peer.library}: {what} differs by {difference:.1e}")
                break
    return found


def _pass(module, normed, ours, x):
    module.eval()  # without drop path
    x = x.detach().requires_grad_()
    norms = [getattr(ours, f"norm{i}") for i in range(4)]
    maps = module(x)
    if not normed:
        maps = [norm(m) for norm, m in zip(norms, maps, strict=True)]
    loss = sum(
        (m * torch.linspace(-1, 1, m.numel(), device=m.device).view(m.shape)).sum()
        for m in maps
    )
    names, parameters = zip(*module.named_parameters(), strict=True)
    of_x, *gradients = torch.autograd.grad(loss, [x, *parameters])
    return maps, of_x, dict(zip(names, gradients, strict=True))


class _Maps(nn.Module):
    """A model and how to get four maps from it."""

    def __init__(self, model: nn.Module, maps: Callable):
        super().__init__()
        self.model = model
        self.maps = maps

    def forward(self, x):
        return self.maps(self.model, x)

    def named_parameters(self, *args, **kwargs):
        return self.model.named_parameters(*args, **kwargs)


def _from_converting(conversion: converting.Conversion) -> nn.Module:
    """The library's model with the weights of ``conversion``."""
    assert conversion.build is not None
    model = conversion.build()
    model.load_state_dict(conversion.weights)
    return model


def _timm(ours, made):
    return Peer("timm", _from_converting(made), normed=False)


def _transformers(ours, made):
    model = _from_converting(made)
    maps = _Maps(model, lambda model, x: model(x).feature_maps)
    return Peer("transformers", maps, normed=True)


def _torchvision(ours, made):
    model = _from_converting(made)
    return Peer("torchvision", _Maps(model, _torchvision_maps), normed=False)


def _torchvision_maps(model, x):
    maps = []
    for i, part in enumerate(model.features):  # stem, stage, downsample, stage, ...
        x = part(x)
        if i % 2:
            maps.append(x)
    return maps


def _mmpretrain(ours, made):
    from mmpretrain.models import ConvNeXt as Theirs

    model = Theirs(
        arch=dict(depths=ours.depths, channels=ours.channels),
        out_indices=(0, 1, 2, 3),
        use_grn=ours.stages[0][0].grn is not None,
        layer_scale_init_value=float(ours.stages[0][0].gamma is not None),
        gap_before_final_norm=False,
    )
    weights = {name.removeprefix("backbone."): t for name, t in made.weights.items()}
    model.load_state_dict(weights)
    return Peer("mmpretrain", model, normed=True)


_BUILDERS = dict(
    timm=_timm,
    torchvision=_torchvision,
    transformers=_transformers,
    mmpretrain=_mmpretrain,
)
