"""CARAFE: upsampling whose kernels follow the content (arXiv 1905.02188).

The map is padded and flattened to rows of channels. The windows of one kernel row, at
all positions, are then a view of it: matrices of (kernel width, channels) that overlap.
One batched product for each kernel row gives the result. Nothing is unfolded, so the
memory is a few times that of the larger map, at any kernel size.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_fp32


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write CARAFE (section 3.2, equation 3) into ``output``.

    Shapes: features (N, C, H, W), masks (N, group_size * kernel_size**2, S H, S W) for
    S = ``scale_factor`` -> output (N, C, S H, S W). ``rfeatures`` becomes a copy of the
    features: mmcv gives it to ``carafe_backward``. ``routput`` and ``rmasks`` have no
    use here.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks into ``bottom_grad`` and
    ``mask_grad``."""
    carafe_naive_backward(
        top_grad,
        rfeatures,
        masks,
        bottom_grad,
        mask_grad,
        kernel_size,
        group_size,
        scale_factor,
    )


def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write CARAFE into ``output``. Shapes as in ``carafe_forward``."""
    features, masks = at_least_fp32(features, masks)
    for channels, kernels in _groups(features, masks, group_size):
        grid = _Grid(features[:, channels], kernel_size, scale_factor)
        weights = grid.per_position(masks[:, kernels])
        result = torch.zeros_like(weights[..., :1]).expand(-1, -1, grid.channels)
        result = result.contiguous()
        with torch.autocast(features.device.type, enabled=False):
            for row, window in enumerate(grid.windows()):
                taps = slice(row * kernel_size, (row + 1) * kernel_size)
                result.baddbmm_(weights[..., taps], window)
        output[:, channels] = grid.map_of(result)


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks into ``bottom_grad`` and
    ``mask_grad``."""
    top_grad, features, masks = at_least_fp32(top_grad, features, masks)
    for channels, kernels in _groups(features, masks, group_size):
        grid = _Grid(features[:, channels], kernel_size, scale_factor)
        weights = grid.per_position(masks[:, kernels])
        grad = grid.per_position(top_grad[:, channels])
        grad_weights = torch.empty_like(weights)
        grad_rows = torch.zeros_like(grid.rows)
        with torch.autocast(features.device.type, enabled=False):
            for row, window in enumerate(grid.windows()):
                taps = slice(row * kernel_size, (row + 1) * kernel_size)
                grad_weights[..., taps] = grad @ window.transpose(1, 2)
                spread = weights[..., taps].transpose(1, 2) @ grad
                for column in range(kernel_size):
                    first = row * grid.width + column
                    grad_rows[first : first + len(spread)] += spread[:, column]
        bottom_grad[:, channels] = grid.unpadded(grad_rows)
        mask_grad[:, kernels] = grid.map_of(grad_weights)


def _groups(
    features: Tensor, masks: Tensor, groups: int
) -> Iterator[tuple[slice, slice]]:
    """Which channels of features and masks belong to each group."""
    channels, kernels = features.shape[1] // groups, masks.shape[1] // groups
    for i in range(groups):
        yield (
            slice(i * channels, (i + 1) * channels),
            slice(i * kernels, (i + 1) * kernels),
        )


class _Grid:
    """A padded map as rows of channels, and the windows at its positions.

    Position p is the window whose upper left pixel is row p. The positions in the
    padding have kernels of zeros.

    Attributes:
        rows: (P + rest, C), P = images x padded height x padded width.
        channels: C.
        width: of the padded map.
    """

    def __init__(self, features: Tensor, kernel_size: int, scale: int) -> None:
        self.images, self.channels, self.inner_height, self.inner_width = features.shape
        self.kernel_size, self.scale = kernel_size, scale
        self.pad = kernel_size // 2
        self.height = self.inner_height + 2 * self.pad
        self.width = self.inner_width + 2 * self.pad
        rows = F.pad(features.permute(0, 2, 3, 1), (0, 0) + (self.pad,) * 4)
        rest = 2 * self.pad * (self.width + 1)  # windows of the last positions
        self.rows = F.pad(rows.reshape(-1, self.channels), (0, 0, 0, rest))

    def windows(self) -> Iterator[Tensor]:
        """For each kernel row the pixels under it at all positions, as views
        (P, kernel_size, C)."""
        positions = self.images * self.height * self.width
        channels = self.channels
        for row in range(self.kernel_size):
            yield self.rows.as_strided(
                (positions, self.kernel_size, channels),
                (channels, channels, 1),
                row * self.width * channels,
            )

    def per_position(self, upsampled: Tensor) -> Tensor:
        """(N, K, S H, S W) -> (P, S**2, K), zero in the padding."""
        s = self.scale
        split = upsampled.unflatten(3, (-1, s)).unflatten(2, (-1, s))
        split = split.permute(0, 2, 4, 3, 5, 1)  # N, H, W, S, S, K
        padding = (0, 0) * 3 + (0, 2 * self.pad) * 2
        return F.pad(split, padding).reshape(-1, s * s, upsampled.shape[1])

    def map_of(self, positions: Tensor) -> Tensor:
        """The opposite of ``per_position``: (P, S**2, K) -> (N, K, S H, S W)."""
        shape = (self.images, self.height, self.width, self.scale, self.scale, -1)
        split = positions.reshape(*shape[:-1], positions.shape[-1])
        split = split[:, : self.inner_height, : self.inner_width]
        return split.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def unpadded(self, rows: Tensor) -> Tensor:
        """Rows of channels as a map (N, C, H, W) without the padding."""
        positions = self.images * self.height * self.width
        padded = rows[:positions].view(
            self.images, self.height, self.width, self.channels
        )
        inner = slice(self.pad, self.pad + self.inner_height)
        return padded[:, inner, self.pad : self.pad + self.inner_width].permute(
            0, 3, 1, 2
        )
