"""mmcv's synchronised batch norm, in one process, against PyTorch's batch norm."""

import pytest
import torch
import torch.distributed as dist
from mmcv.ops import SyncBatchNorm


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sync_bn(process_group, dtype):
    norm, expected_norm = SyncBatchNorm(4), torch.nn.BatchNorm2d(4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.randn(4))
        expected_norm.weight.copy_(norm.weight)
    x = torch.randn(3, 4, 5, 6).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    result, expected = norm(x), expected_norm(exact)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert result.dtype == dtype
    assert torch.allclose(result.double(), expected, tolerance, tolerance)
    probe = torch.randn_like(expected)
    result.backward(probe.to(dtype))
    expected.backward(probe)
    pairs = [
        (x.grad, exact.grad),
        (norm.weight.grad, expected_norm.weight.grad),
        (norm.bias.grad, expected_norm.bias.grad),
        (norm.running_mean, expected_norm.running_mean),
        (norm.running_var, expected_norm.running_var),
    ]
    for actual, exact in pairs:
        assert torch.allclose(actual.double(), exact, tolerance * 10, tolerance * 10)
    before = norm.running_mean.clone()
    assert norm(x[:0]).shape == (0, 4, 5, 6)
    assert torch.equal(norm.running_mean, before)
