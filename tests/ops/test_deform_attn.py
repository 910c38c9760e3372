"""Multi-scale deformable attention against a sum over all cells, in float64."""

import sys

import pytest
import torch
from mmcv.ops import multi_scale_deform_attn as mmcv_attention
from torch.utils._python_dispatch import TorchDispatchMode

from convnext_dense.ops import ms_deform_attn_backward, ms_deform_attn_forward
from convnext_dense.ops.deform_attn import operators, plain

from ..helpers.deform_attn import Inputs, errors, inputs, truth

f64, f32, bf16, f16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
# The result is rounded to its own type; fp16 and bf16 are computed in fp32.
TOLERANCE = {f64: 1e-13, f32: 2e-6, bf16: 4e-3, f16: 5e-4}
LEVELS = [(5, 7), (3, 4), (1, 1)]


def both(given: Inputs, step: int = 64, into=None):
    """The output and the three gradients, as mmcv calls the ops."""
    *arguments, grad = given
    out = ms_deform_attn_forward(*arguments, im2col_step=step)
    grads = into or [torch.zeros_like(arguments[i]) for i in (0, 3, 4)]
    ms_deform_attn_backward(*arguments, grad, *grads, im2col_step=step)
    return [out, *grads]


def assert_true(given: Inputs, mine=None):
    mine = both(given) if mine is None else mine
    tolerance = TOLERANCE[given.value.dtype]
    assert max(errors(mine, truth(given))) <= tolerance, errors(mine, truth(given))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        (2, LEVELS, 9, 2, 8, 3),
        (1, [(1, 1)], 6, 1, 1, 1),
        (3, [(2, 9), (1, 5)], 4, 3, 20, 2),
    ],
    ids=str,
)
def test_against_the_sum_over_all_cells(sizes, dtype):
    given = inputs(*sizes, dtype=dtype)
    mine = both(given)
    assert {t.dtype for t in mine} == {dtype}
    assert_true(given, mine)


def test_groups_of_queries(monkeypatch):
    """The queries are computed a few at a time, the last group is smaller."""
    monkeypatch.setattr(plain, "_CORNERS", 2 * 4 * 2 * 3 * len(LEVELS) * 4)
    given = inputs(2, LEVELS, 11, 2, 8, 3)
    assert len(list(plain._groups(given.locations))) == 3
    assert_true(given)


def test_few_launches_on_a_gpu():
    """DINO's encoder at 800 x 1333, batch 2. Each operation is a launch on a GPU."""
    sizes = [(100, 167), (50, 84), (25, 42), (13, 21)]
    shapes = torch.tensor(sizes, device="meta")
    queries = sum(height * width for height, width in sizes)
    samples = 2, queries, 8, 4, 4
    calls = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(function)
            return function(*args, **(kwargs or {}))

    with Watch(), torch.device("meta"):
        locations = torch.empty(*samples, 2)
        plain.forward(
            *(torch.empty(2, queries, 8, 32), shapes, shapes[:, 0]),
            *(locations, torch.empty(samples)),
        )
    assert len(list(plain._groups(locations))) == 3
    assert len(list(plain._groups(torch.empty(1, 1, 1).expand(2, queries, 1024)))) > 10
    views = "view", "slice", "select", "unbind", "unsqueeze", "expand", "alias", "empty"
    launches = [call for call in calls if not any(v in call.name() for v in views)]
    assert 0 < len(launches) < 150


def test_memory_is_bounded(monkeypatch):
    """No array has a number for each channel of each sample."""
    given = inputs(1, [(8, 8), (4, 4)], 400, 8, 32, 4)
    samples = given.weights.numel()
    monkeypatch.setattr(plain, "_CORNERS", samples)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        plain.forward(*given[:5])
        plain.backward(*given, torch.zeros_like(given.value))
    assert largest <= max(samples, given.grad.numel()) < 32 * samples / 4


def test_gradcheck():
    """Through mmcv's autograd function, so with mmcv's names of the arguments."""
    if mmcv_attention.ext_module.ms_deform_attn_forward is not ms_deform_attn_forward:
        pytest.skip("this mmcv has compiled ops")
    given = inputs(1, [(2, 3), (1, 1)], 2, 1, 2, 2, f64)
    value, locations, weights = (
        t.requires_grad_() for t in (given.value, given.locations, given.weights)
    )
    apply = mmcv_attention.MultiScaleDeformableAttnFunction.apply
    assert torch.autograd.gradcheck(
        lambda *t: apply(t[0], given.shapes, given.starts, *t[1:], 64),
        (value, locations, weights),
    )


def test_mixed_types_and_layouts():
    """What mmcv's module never passes: no copy has to be made by the caller."""
    given = inputs(2, LEVELS, 5, 2, 8, 3)
    turned = given._replace(
        value=given.value.bfloat16().transpose(0, 1).contiguous().transpose(0, 1),
        locations=given.locations.transpose(3, 4).contiguous().transpose(3, 4),
        weights=given.weights.double(),
        grad=given.grad.mT.contiguous().mT,
    )
    mine = both(turned)
    assert [t.dtype for t in mine] == [bf16, bf16, f32, f64]
    assert not mine[1].is_contiguous()
    assert max(errors(mine[:2], truth(turned)[:2])) <= TOLERANCE[bf16]
    assert max(errors(mine[2:], truth(turned)[2:])) <= TOLERANCE[f32]


@pytest.mark.parametrize("dtype", [f32, bf16], ids=str)
def test_gradient_of_value_is_added(dtype):
    """The other two are written."""
    given = inputs(1, LEVELS, 5, 2, 8, 3, dtype)
    true = truth(given)
    into = [torch.ones_like(t) for t in (given.value, given.locations, given.weights)]
    both(given, into=into)
    true[1] += 1
    assert max(errors(into, true[1:])) <= TOLERANCE[dtype]


def test_samples_outside_and_nan():
    """Whatever lies there, they count as 0 and have no gradient."""
    given = inputs(1, LEVELS, 4, 1, 8, 2)
    given.locations[0, 0] = 1.9
    given.locations[0, 1] = torch.nan
    given.locations[0, 2, 0, 0, 0] = torch.inf
    out, _, of_locations, of_weights = both(given)
    assert not out[0, :2].any()
    assert not of_locations[0, :2].any()
    assert not of_weights[0, :2].any()
    assert out.isfinite().all()
    assert of_locations.isfinite().all()


def test_ops_keep_no_graph():
    """The autograd function that calls them keeps what it needs."""
    given = inputs(1, LEVELS, 2, 1, 4, 1)
    given.value.requires_grad_()
    given.weights.requires_grad_()
    into = [torch.zeros_like(given[i]).detach() for i in (0, 3, 4)]
    assert not any(t.requires_grad for t in both(given, into=into))


@pytest.mark.parametrize(
    "sizes",
    [(0, LEVELS, 3, 2, 4, 2), (2, LEVELS, 0, 2, 4, 2), (2, LEVELS, 3, 2, 4, 0)],
    ids=["no images", "no queries", "no points"],
)
def test_empty(sizes):
    given = inputs(*sizes)
    out, of_value, of_locations, of_weights = both(given)
    assert out.shape == given.grad.shape
    assert not out.any()
    assert not of_value.any()
    assert (of_locations.shape, of_weights.shape) == (
        given.locations.shape,
        given.weights.shape,
    )


def test_step_of_the_compiled_op():
    """A batch above im2col_step must be a multiple of it; the advice works."""
    given = inputs(3, LEVELS, 2, 1, 4, 1)
    for step in (1, 3, 64):
        both(given, step)
    with pytest.raises(RuntimeError, match=r"a batch of 3 and im2col_step=2") as raised:
        both(given, 2)
    both(given, int(str(raised.value).rpartition("=")[2]))
    with pytest.raises(RuntimeError, match="im2col_step"):
        ms_deform_attn_backward(
            *given, *(given.value, given.locations, given.weights), im2col_step=2
        )


@pytest.fixture
def failing_triton(monkeypatch):
    """As if these tensors were on a GPU where Triton cannot run; what is logged."""
    logged = []
    monkeypatch.setattr(operators, "_triton_takes", lambda value: True)
    monkeypatch.setattr(operators, "_triton_works", True)
    monkeypatch.setattr(operators, "print_log", lambda text, **_: logged.append(text))
    return logged


@pytest.mark.parametrize("missing", [False, True], ids=["failing", "missing"])
def test_without_triton(failing_triton, monkeypatch, missing):
    """PyTorch computes it, with one line in the log."""
    if missing:
        name = "convnext_dense.ops.deform_attn.launches"
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(
            sys.modules["convnext_dense.ops.deform_attn"], "launches", raising=False
        )
        monkeypatch.setitem(sys.modules, "triton", None)
    else:
        pytest.importorskip("triton")
    given = inputs(1, LEVELS, 3, 2, 4, 2)
    assert_true(given)
    assert_true(given)
    (line,) = failing_triton
    assert "computed by PyTorch" in line


class Launches:
    """Stands for ``launches``, and counts its calls."""

    def __init__(self, error=None):
        self.error, self.calls = error, []

    def forward(self, *arguments):
        self.calls.append("forward")
        if self.error:
            raise self.error
        return plain.forward(*arguments)

    def backward(self, *arguments):
        self.calls.append("backward")
        return plain.backward(*arguments)


@pytest.fixture
def launched(failing_triton, monkeypatch):
    launches = Launches()
    package = sys.modules["convnext_dense.ops.deform_attn"]
    monkeypatch.setitem(sys.modules, f"{package.__name__}.launches", launches)
    monkeypatch.setattr(package, "launches", launches, raising=False)
    return launches


def test_deterministic_mode_has_no_atomic_additions(launched):
    given = inputs(1, LEVELS, 3, 2, 4, 2)
    assert_true(given)
    assert launched.calls == ["forward", "backward"]
    torch.use_deterministic_algorithms(True)
    try:
        assert_true(given)
    finally:
        torch.use_deterministic_algorithms(False)
    assert launched.calls == ["forward", "backward", "forward"]


def test_out_of_memory_is_not_taken_for_a_broken_triton(launched, failing_triton):
    launched.error = torch.cuda.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.cuda.OutOfMemoryError):
        both(inputs(1, LEVELS, 3, 2, 4, 2))
    assert not failing_triton
