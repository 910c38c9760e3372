"""The GPU table of deformable attention, on the CPU with small maps."""

import pytest
import torch

pytest.importorskip("triton")

from convnext_dense.models.fused.gpu import nvrtc

from ...helpers import mmcv_deform_attn
from ...programs import deform_attn_table as table

SMALL = table.Setting("small", ((6, 7), (3, 3)), None, torch.float16)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(table.clock, "MIN_ROUNDS", 1)
    for name in table.Ops._fields:
        monkeypatch.setattr(table.operators, name, getattr(table.operators, name))


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_lines(capsys):
    """mmcv's kernels need a GPU; the others are timed and compared with float64."""
    failed, *lines = (cells(line) for line in table.lines(SMALL, "cpu", 0))
    assert failed[1] == table.MMCV
    assert failed[2].startswith("FAILED")
    assert [line[1] for line in lines] == [
        *(table.TRITON, table.PYTORCH, table.GRID_SAMPLE)
    ]
    for line in lines:
        assert len(line) == len(table.HEADER)
        assert line[0] == "small, fp16"
        assert 0 < float(line[-1]) < 1e-2


def test_wrong_results_fail(monkeypatch):
    right = table.ms_deform_attn_forward
    wrong = table.IMPLEMENTATIONS[table.TRITON]._replace(
        ms_deform_attn_forward=lambda *arguments, **_: 1.01 * right(*arguments[:5], 64)
    )
    monkeypatch.setitem(table.IMPLEMENTATIONS, table.TRITON, wrong)
    monkeypatch.delitem(table.IMPLEMENTATIONS, table.MMCV)
    first, *others = table.lines(SMALL, "cpu", 0)
    assert "FAILED" in first
    assert not any("FAILED" in line for line in others)


@pytest.mark.parametrize("dtype", mmcv_deform_attn.SCALARS, ids=str)
def test_kernels_of_mmcv_compile(dtype):
    try:
        nvrtc._nvrtc()
    except nvrtc.Unavailable as error:
        pytest.skip(str(error))
    cubin = mmcv_deform_attn.compile_kernels(dtype, "sm_90")
    names = {
        mmcv_deform_attn.kernel_name(cubin, kernel)
        for kernel in (mmcv_deform_attn.FORWARD, mmcv_deform_attn.BACKWARD)
    }
    assert len(names) == 2
