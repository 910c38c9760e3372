"""The arguments of one call of a stage, beside its input."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class StageArguments(NamedTuple):
    """Parameters and drop path factors of one call of a stage.

    Attributes:
        parameters: in the order of ``StageSpec``.
        addresses: the ``data_ptr()`` of each parameter.
        drop: the drop path factors, (blocks, N) in fp32, or None.
    """

    parameters: Sequence[Tensor]
    addresses: list[int]
    drop: Tensor | None

    @classmethod
    def of(
        cls, parameters: Sequence[Tensor], drop: Tensor | None = None
    ) -> "StageArguments":
        """The arguments with the parameters' present addresses."""
        return cls(parameters, [p.data_ptr() for p in parameters], drop)
