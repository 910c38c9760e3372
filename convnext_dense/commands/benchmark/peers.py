"""Other libraries' ConvNeXts (peers) with our weights, and a check of their outputs."""

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
    """Another library's backbone.

    Attributes:
        library: the library's name.
        module: image (N, 3, H, W) -> four maps at strides 4 to 32, finest first.
        normed: whether the maps are normed, as ours are.
    """

    library: str
    module: nn.Module
    normed: bool


def installed() -> list[str]:
    """The libraries of ``LIBRARIES`` that are installed."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name)]


def build(ours: ConvNeXt, libraries: Sequence[str]) -> list[Peer]:
    """Build each library's backbone with the weights and drop path rates of ``ours``.

    A library that does not have the architecture is left out.
    """
    peers = []
    for library in libraries:
        try:
            conversion = converting.convert(ours.state_dict(), OURS, library)
        except InputError:  # torchvision has only V1
            continue
        peer = _BUILDERS[library](ours, conversion)
        last_rate = ours.get_submodule("stages.3")[-1].drop_path.p
        _set_drop_path(peer.module, drop_path_rates(last_rate, ours.depths))
        peers.append(peer)
    return peers


def _set_drop_path(module: nn.Module, rates: Iterable[float]) -> None:
    """Give every block of a peer its drop path rate."""
    names = "drop_path", "stochastic_depth"
    blocks = (
        (block, name)
        for block in module.modules()
        for name in names
        if hasattr(block, name)
    )
    for (block, name), rate in zip(blocks, rates, strict=True):
        setattr(
            block, name, StochasticDepth(rate, mode="row") if rate else nn.Identity()
        )


def check(ours: ConvNeXt, peers: Sequence[Peer]) -> None:
    """Raise an InputError if a peer does not compute the same as ``ours``.

    All compute on the device of ``ours``, in fp32 and without TF32.
    """
    x = torch.rand(1, 3, 64, 96, device=next(ours.parameters()).device)
    with no_tf32():
        different = disagreements(ours, peers, x)
    if different:
        raise InputError(
            "the libraries' models compute different values, so they are not "
            "compared: " + "; ".join(different)
        )


def no_tf32() -> AbstractContextManager:
    """Let cuDNN compute in fp32 without TF32, as PyTorch's matrix products do."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def disagreements(ours: ConvNeXt, peers: Sequence[Peer], x: Tensor) -> list[str]:
    """Compare each peer with ``ours`` on an image ``x`` (N, 3, H, W).

    The four normed maps are compared, and the gradients of the image and of every
    parameter. They may differ by 1e-3 of the largest value.

    Returns:
        a line for each peer that differs.
    """
    maps, image_gradient, gradients = _outputs(ours, True, ours, x)
    lines = []
    for peer in peers:
        their_maps, their_image_gradient, their_gradients = _outputs(
            peer.module, peer.normed, ours, x
        )
        pairs = {
            f"map {i}": pair
            for i, pair in enumerate(zip(maps, their_maps, strict=True))
        }
        pairs["gradient of the image"] = image_gradient, their_image_gradient
        expected = converting.convert(gradients, OURS, peer.library).weights
        prefix = "backbone." if peer.library == "mmpretrain" else ""
        for name, gradient in their_gradients.items():
            pairs[f"gradient of {name}"] = expected[prefix + name], gradient
        for name, (our_tensor, their_tensor) in pairs.items():
            difference = (our_tensor - their_tensor.view_as(our_tensor)).abs().max()
            if not difference <= 1e-3 * our_tensor.abs().max():  # true for NaN too
                lines.append(f"{peer.library}: {name} differs by {difference:.1e}")
                break
    return lines


def _outputs(
    module: nn.Module, normed: bool, ours: ConvNeXt, x: Tensor
) -> tuple[Sequence[Tensor], Tensor, dict[str, Tensor]]:
    """A backbone's normed maps, the gradient of ``x`` and those of the parameters.

    Args:
        module: the backbone.
        normed: whether its maps are normed; else the norms of ``ours`` are applied.
        ours: this package's backbone.
        x: image (N, 3, H, W).
    """
    module.eval()  # without drop path
    x = x.detach().requires_grad_()
    norms = [ours.get_submodule(f"norm{i}") for i in range(4)]
    maps = module(x)
    if not normed:
        maps = [norm(m) for norm, m in zip(norms, maps, strict=True)]
    weights = [torch.linspace(-1, 1, m.numel(), device=m.device) for m in maps]
    loss = sum(
        (m * weight.view(m.shape)).sum()
        for m, weight in zip(maps, weights, strict=True)
    )
    parameters = dict(module.named_parameters())
    inputs = [x, *parameters.values()]
    image_gradient, *gradients = torch.autograd.grad(loss, inputs)
    return maps, image_gradient, dict(zip(parameters, gradients, strict=True))


class _Maps(nn.Module):
    """A model as a backbone.

    Args:
        model: the model.
        maps: a function of the model and an image, which returns the four maps.
    """

    def __init__(self, model: nn.Module, maps: Callable):
        super().__init__()
        self.model = model
        self.maps = maps

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """Image (N, 3, H, W) -> four maps."""
        return self.maps(self.model, x)

    def named_parameters(self, *args, **kwargs):
        """The model's parameters, by their names in the model."""
        return self.model.named_parameters(*args, **kwargs)


def _from_conversion(conversion: converting.Conversion) -> nn.Module:
    """The library's model with the weights of ``conversion``."""
    assert conversion.build is not None
    model = conversion.build()
    model.load_state_dict(conversion.weights)
    return model


def _timm(ours: ConvNeXt, conversion: converting.Conversion) -> Peer:
    return Peer("timm", _from_conversion(conversion), normed=False)


def _transformers(ours: ConvNeXt, conversion: converting.Conversion) -> Peer:
    model = _from_conversion(conversion)
    maps = _Maps(model, lambda model, x: model(x).feature_maps)
    return Peer("transformers", maps, normed=True)


def _torchvision(ours: ConvNeXt, conversion: converting.Conversion) -> Peer:
    model = _from_conversion(conversion)
    return Peer("torchvision", _Maps(model, _torchvision_maps), normed=False)


def _torchvision_maps(model, x: Tensor) -> list[Tensor]:
    maps = []
    # The children are: stem, stage, downsample layer, stage, ...
    for i, child in enumerate(model.features):
        x = child(x)
        if i % 2:
            maps.append(x)
    return maps


def _mmpretrain(ours: ConvNeXt, conversion: converting.Conversion) -> Peer:
    from mmpretrain.models import ConvNeXt as Theirs

    block = ours.get_submodule("stages.0.0")
    model = Theirs(
        arch=dict(depths=ours.depths, channels=ours.channels),
        out_indices=(0, 1, 2, 3),
        use_grn=block.grn is not None,
        layer_scale_init_value=float(block.gamma is not None),
        gap_before_final_norm=False,
    )
    weights = conversion.weights.items()
    model.load_state_dict({name.removeprefix("backbone."): t for name, t in weights})
    return Peer("mmpretrain", model, normed=True)


_BUILDERS = dict(
    timm=_timm,
    torchvision=_torchvision,
    transformers=_transformers,
    mmpretrain=_mmpretrain,
)
