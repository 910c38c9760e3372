"""LayerNorm over the channels of a feature map."""

from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each position of a feature map.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)
        if rows.device.type == "cpu":
            # What autocast does elsewhere. A CPU would take half-precision rows with
            # an fp32 weight, and lose a third of the weight's gradient.
            rows = rows.to(self.weight.dtype)
        return super().forward(rows).permute(0, 3, 1, 2)
