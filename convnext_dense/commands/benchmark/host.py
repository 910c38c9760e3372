"""Measure the host's time of a training step, without launching kernels.

Needs no GPU.
"""

import json
from collections.abc import Sequence

from convnext_dense.errors import InputError


def measure(arch: str, use_grn: bool, drop_path_rate: float) -> Sequence:
    """Measure each stage; ``models.fused.gpu.host_time`` defines the rows.

    Args:
        arch: a name in ``archs.ARCHS``.
        use_grn: measure ConvNeXt V2.
        drop_path_rate: the backbone's.

    Raises:
        InputError: Triton is not installed, in which the kernels are written.
    """
    try:
        from convnext_dense.models.fused.gpu import host_time
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise InputError("--host needs Triton: pip install triton") from error
    return host_time.measure(arch, use_grn, drop_path_rate)


def lines(rows: Sequence) -> list[str]:
    """The rows as text: a line for each stage, then the mean over all blocks."""
    stages = [
        f"{row.channels} channels, {row.blocks} blocks: "
        f"forward {row.forward_us:.0f} us, {row.forward_launches} launches; "
        f"backward {row.backward_us:.0f} us, {row.backward_launches} launches"
        for row in rows
    ]
    blocks = sum(row.blocks for row in rows)
    forward = sum(row.forward_us for row in rows) / blocks
    backward = sum(row.backward_us for row in rows) / blocks
    return [
        *stages,
        f"host time per block: forward {forward:.0f} us, backward {backward:.0f} us",
    ]


def to_json(rows: Sequence) -> str:
    """The rows as JSON; times are of a whole stage, in microseconds."""
    names = "channels", "blocks"
    names += "forward_us", "backward_us", "forward_launches", "backward_launches"
    stages = [{name: getattr(row, name) for name in names} for row in rows]
    return json.dumps({"stages": stages}, indent=1) + "\n"
