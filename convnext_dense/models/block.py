"""The ConvNeXt block and GRN, as readable mathematics.

``Block.reference`` is the block as the papers write it. ``Block.forward`` computes
the same with less memory and time where ``fused`` can: on a CPU by the lean block, on
a GPU by kernels.

Tensors between modules are (N, C, H, W). In the channels_last memory format
``permute(0, 2, 3, 1)`` is a view whose last dimension is contiguous, so the
norms and the pointwise layers below work without a copy.

Sources: "A ConvNet for the 2020s" (arXiv 2201.03545), section 2.6 and figure 4;
GRN: "ConvNeXt V2" (arXiv 2301.00808), section 4 and algorithm 1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from . import fused
from .archs import NORM_EPS
from .drop_path import DropPath
from .tracing import is_symbolic, is_transformed


class GRN(nn.Module):
    """Global response normalization (arXiv 2301.00808, algorithm 1).

    A channel's response is its L2 norm over the whole map, divided by the mean of the
    L2 norms of all channels. ``gamma`` and ``beta`` start at 0, so that GRN starts as
    the identity.

    Args:
        channels: C.

    Shapes: (N, H, W, C) -> (N, H, W, C).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, (N, H, W, C)."""
        response = x.norm(p=2, dim=(1, 2), keepdim=True)  # in fp32 under autocast
        response = response / (response.mean(dim=-1, keepdim=True) + NORM_EPS)
        scale = 1 + self.gamma * response  # (N, 1, 1, C): one pass over x
        return x * scale.to(x.dtype) + self.beta.to(x.dtype)


class Block(nn.Module):
    """The ConvNeXt block (arXiv 2201.03545, figure 4).

    Depthwise 7x7 convolution, LayerNorm, pointwise layer to 4C, GELU, pointwise layer
    to C, layer scale, drop path; then the residual is added. ConvNeXt V2's block has
    GRN after GELU (arXiv 2301.00808, section 4). Parameter names are the authors':
    ``dwconv``, ``norm``, ``pwconv1``, ``grn.gamma``, ``grn.beta``, ``pwconv2``,
    ``gamma``.

    Args:
        channels: C.
        drop_path_rate: the probability that an image's branch is left out.
        layer_scale_init_value: initial value of every element of ``gamma``;
            0 leaves layer scale out.
        use_grn: GRN between GELU and the second pointwise layer.
        with_cp: compute the block again in the backward pass instead of keeping
            its intermediates (gradient checkpointing).
        norm_eps: the norm adds it to each variance.
        dilation: of the depthwise convolution: the pixels from one element of its
            kernel to the next.

    Attributes:
        lean: compute the block by the fastest way; False is as the papers write it.
            ``Block.lean = False`` changes the default of the process,
            ``ConvNeXt(lean=False)`` the blocks of one backbone.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    lean: bool = True
    # The GPU's kernels compute this very class. They look for this attribute in the
    # class itself, because a subclass may compute something else.
    has_kernels = True

    def __init__(
        self,
        channels: int,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        use_grn: bool = False,
        with_cp: bool = False,
        norm_eps: float = NORM_EPS,
        dilation: int = 1,
    ):
        super().__init__()
        self.dwconv = nn.Conv2d(
            channels,
            channels,
            7,
            padding=3 * dilation,
            dilation=dilation,
            groups=channels,
        )
        self.norm = nn.LayerNorm(channels, eps=norm_eps)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = GRN(4 * channels) if use_grn else None
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = (
            nn.Parameter(torch.full((channels,), float(layer_scale_init_value)))
            if layer_scale_init_value > 0
            else None
        )
        self.drop_path = DropPath(drop_path_rate)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block on ``x``, (N, C, H, W), by the fastest way there is."""
        if not (self.lean and fused.takes(x)):
            return self.reference(x)
        by_kernels = fused.run_stage(None, (self,), None, x)
        if by_kernels is not None:
            return by_kernels[0]
        if x.device.type != "cpu" or not self.is_as_built():
            return self.reference(x)
        assert self.dwconv.bias is not None  # the constructor made it
        weights = fused.Weights(
            self.dwconv.weight,
            self.dwconv.bias,
            self.norm.weight,
            self.norm.bias,
            self.pwconv1.weight,
            self.pwconv1.bias,
            self.pwconv2.weight,
            self.pwconv2.bias,
            self.gamma,
            None if self.grn is None else self.grn.gamma,
            None if self.grn is None else self.grn.beta,
        )
        rate = self.drop_path.p if self.training else 0.0
        return fused.apply_block(
            x,
            weights,
            self.norm.eps,
            rate,
            not self.with_cp,
            self.dwconv.dilation[0],
        )

    def reference(self, x: Tensor) -> Tensor:
        """Compute the block as the papers write it; every faster way must equal it."""
        if (
            self.with_cp
            and torch.is_grad_enabled()
            and not (
                # Neither of them can compute the branch a second time.
                is_symbolic(x) or is_transformed()
            )
        ):
            return x + checkpoint(self._branch, x, use_reentrant=False)
        return x + self._branch(x)

    def _branch(self, x: Tensor) -> Tensor:
        """The block without its residual, (N, C, H, W) -> (N, C, H, W)."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = F.gelu(self.pwconv1(y))
        if self.grn is not None:
            y = self.grn(y)
        y = self.pwconv2(y)
        if self.gamma is not None:
            y = self.gamma * y
        return self.drop_path(y).permute(0, 3, 1, 2)

    def fold_layer_scale(self) -> None:
        """Multiply ``gamma`` into the second pointwise layer, and remove it."""
        if self.gamma is None:
            return
        with torch.no_grad():
            self.pwconv2.weight.mul_(self.gamma[:, None])
            self.pwconv2.bias.mul_(self.gamma)
        self.gamma = None

    def is_as_built(self) -> bool:
        """Whether the submodules are those of the constructor and have no hooks.

        Submodules that were replaced (adapters, quantization) or have hooks must be
        called. The lean block does not call submodules, it only reads their parameters.
        """
        types: dict[nn.Module, type[nn.Module]] = {
            self.dwconv: nn.Conv2d,
            self.norm: nn.LayerNorm,
            self.pwconv1: nn.Linear,
            self.pwconv2: nn.Linear,
            self.drop_path: DropPath,
        }
        if self.grn is not None:
            types[self.grn] = GRN
        conv = self.dwconv
        if type(conv) is nn.Conv2d and (
            (conv.kernel_size, conv.stride) != ((7, 7), (1, 1))
            or conv.padding != (3 * conv.dilation[0],) * 2
            or conv.dilation[0] != conv.dilation[1]
            or conv.groups != conv.in_channels
            or conv.padding_mode != "zeros"
        ):
            return False
        return all(
            type(module) is module_type
            and not module._forward_hooks
            and not module._forward_pre_hooks
            and not module._backward_hooks
            and not module._backward_pre_hooks
            for module, module_type in types.items()
        )
