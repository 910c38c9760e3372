"""The kernels of deformable attention, run with Triton's interpreter by
test_deform_attn_kernels.py."""

import pytest
import torch

from convnext_dense.ops.deform_attn import launches
from convnext_dense.ops.deform_attn.launches import Tile

from ...helpers.deform_attn import errors, inputs, truth

f32, bf16, f16 = torch.float32, torch.bfloat16, torch.float16
# The interpreter truncates to bf16, a GPU rounds.
TOLERANCE = {f32: 2e-6, bf16: 8e-3, f16: 5e-4}
LEVELS = [(5, 7), (3, 4), (1, 1)]


def both(given, tile=None):
    """The output and the gradients of value, locations and weights."""
    *arguments, grad = given
    of_value = torch.zeros(given.value.shape)
    out = launches.forward(*arguments, tile=tile)
    grads = launches.backward(*arguments, grad, of_value, tile=tile)
    return [out, of_value, *grads]


@pytest.mark.parametrize(
    ("sizes", "tile", "dtype"),
    [
        # Neither channels, points nor queries fill the tile; several programs.
        ((2, LEVELS, 3, 2, 3, 3), Tile(2, 1), f32),
        ((1, [(4, 4)], 3, 1, 8, 1), None, bf16),
        ((1, [(1, 1), (2, 3)], 1, 2, 1, 2), Tile(1, 1), f16),
    ],
    ids=str,
)
def test_against_the_sum_over_all_cells(sizes, tile, dtype):
    given = inputs(*sizes, dtype=dtype)
    mine = both(given, tile)
    assert [t.dtype for t in mine] == [dtype, f32, dtype, dtype]
    assert max(errors(mine, truth(given))) <= TOLERANCE[dtype]


def test_gradient_of_value_is_added():
    given = inputs(1, LEVELS, 3, 1, 4, 2)
    of_value = torch.ones(given.value.shape)
    launches.backward(*given, of_value)
    assert max(errors([of_value], [truth(given)[1] + 1])) <= 2e-6


def test_samples_outside_and_nan():
    given = inputs(1, LEVELS, 4, 1, 4, 2)
    given.locations[0, 0] = 1.9
    given.locations[0, 1] = torch.nan
    given.locations[0, 2, 0, 0, 0] = torch.inf
    given.weights[0, 0] = torch.inf
    out, of_value, of_locations, of_weights = both(given)
    for of_sample in (out, of_locations, of_weights):
        assert not of_sample[0, :2].any()
        assert of_sample.isfinite().all()
    assert of_value.isfinite().all()


def test_layouts_and_mixed_types():
    given = inputs(2, LEVELS[:2], 2, 2, 4, 3)
    turned = given._replace(
        value=given.value.half().transpose(0, 1).contiguous().transpose(0, 1),
        locations=given.locations.transpose(3, 4).contiguous().transpose(3, 4),
        grad=given.grad.mT.contiguous().mT,
    )
    mine = both(turned)
    assert [t.dtype for t in mine] == [f16, f32, f32, f32]
    assert max(errors(mine[:1], truth(turned)[:1])) <= TOLERANCE[f16]
    assert max(errors(mine[1:], truth(turned)[1:])) <= TOLERANCE[f32]


def test_64_bit_offsets(monkeypatch):
    """As for a value of 2**31 numbers in an image."""
    monkeypatch.setattr(launches, "_MOST_32_BIT", 1)
    given = inputs(2, LEVELS[:2], 2, 2, 4, 2)
    assert max(errors(both(given), truth(given))) <= 2e-6
