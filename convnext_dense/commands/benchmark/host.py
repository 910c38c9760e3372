"""The host's part of a step alone: native launches are left out. Needs no GPU."""

import json
from collections.abc import Sequence

from convnext_dense.errors import InputError


def measure(arch: str, use_grn: bool, drop_path_rate: float) -> Sequence:
    """A ``HostRow`` for each stage: ``fused.gpu.host_time`` says what is in it.

    Raises:
        InputError: Triton, in which the kernels are written, is not installed.
    """
    try:
        from convnext_dense.models.fused.gpu import host_time
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise InputError("--host needs Triton: pip install triton") from error
    return host_time.measure(arch, use_grn, drop_path_rate)


def lines(rows: Sequence) -> list[str]:
    """A line for each stage, and one for a block of them all."""
    text = [
        f"{row.channels} channels, {row.blocks} blocks: "
        f"forward {row.forward_us:.0f} us, {row.forward_launches} launches; "
        f"backward {row.backward_us:.0f} us, {row.backward_launches} launches"
        for row in rows
    ]
    blocks = sum(row.blocks for row in rows)
    forward = sum(row.forward_us for row in rows) / blocks
    backward = sum(row.backward_us for row in rows) / blocks
    return [
        *text,
        f"host: {forward:.0f} us a block forward, {backward:.0f} us backward",
    ]


def to_json(rows: Sequence) -> str:
    """The same rows; times are microseconds of a whole stage."""
    names = "channels", "blocks"
    names += "forward_us", "backward_us", "forward_launches", "backward_launches"
    stages = [{name: getattr(row, name) for name in names} for row in rows]
    return json.dumps({"stages": stages}, indent=1) + "\n"
