"""What a stage is given beside its input."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Given(NamedTuple):
    """Parameters and drop path of one call of a stage.

    Attributes:
        parameters: in the order of ``StageKind``.
        addresses: their ``data_ptr()``.
        drop: drop path's factors, (blocks, N) in fp32, or None.
    """

    parameters: Sequence[Tensor]
    addresses: list[int]
    drop: Tensor | None

    @classmethod
    def of(cls, parameters: Sequence[Tensor], drop: Tensor | None = None) -> "Given":
        return cls(parameters, [p.data_ptr() for p in parameters], drop)
