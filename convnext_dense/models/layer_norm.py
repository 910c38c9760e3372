"""LayerNorm over the channels of a feature map."""

from torch import Tensor, nn

from .tracing import is_symbolic


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels at each position of a feature map.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, (N, C, H, W), over its channels."""
        rows = x.permute(0, 2, 3, 1)
        if is_symbolic(x) or rows.device.type == "cpu":
            # Autocast casts to fp32 here on a GPU but not on a CPU. A CPU's layer norm
            # with half-precision rows and an fp32 weight loses a third of the weight's
            # gradient.
            rows = rows.to(self.weight.dtype)
        return super().forward(rows).permute(0, 3, 1, 2)
