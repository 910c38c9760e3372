"""The benchmark's figures (times, bytes, launches), also on a simulated GPU."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from convnext_dense.commands.benchmark import (
    clock,
    machine,
    measuring,
    memory,
    peers,
)
from convnext_dense.commands.benchmark.measuring import Step
from convnext_dense.commands.benchmark.steps import training


class GPU:
    """A simulated GPU: a clock in seconds, asynchronous work, and an allocator."""

    def __init__(self):
        self.now = self.done = 0.0
        self.allocated = self.reserved = 0
        self.most_allocated = self.most_reserved = 0

    def launch(self, host, kernels):
        self.now += host
        self.done = max(self.done, self.now) + kernels

    def synchronize(self):
        self.now = max(self.now, self.done)

    def allocate(self, size, graphs=False):
        """Allocate bytes; those of a graph's pool count as reserved only."""
        self.allocated += 0 if graphs else size
        self.reserved += size
        self.most_allocated = max(self.most_allocated, self.allocated)
        self.most_reserved = max(self.most_reserved, self.reserved)

    def free(self, size):
        self.allocated -= size
        self.reserved -= size

    def tensor(self, numel):
        tensor = torch.zeros(numel)
        self.allocate(4 * numel)
        weakref.finalize(tensor.untyped_storage(), self.free, 4 * numel)
        return tensor

    def reset_peaks(self):
        self.most_allocated, self.most_reserved = self.allocated, self.reserved


@pytest.fixture
def gpu(monkeypatch):
    gpu = GPU()
    for name, function in dict(
        synchronize=gpu.synchronize,
        empty_cache=lambda: None,
        memory_allocated=lambda: gpu.allocated,
        memory_reserved=lambda: gpu.reserved,
        max_memory_allocated=lambda: gpu.most_allocated,
        max_memory_reserved=lambda: gpu.most_reserved,
        reset_peak_memory_stats=gpu.reset_peaks,
    ).items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: gpu.now))
    return gpu


def test_a_library_that_pip_did_not_install_has_no_version(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: ["copied"])
    assert machine.describe("cpu").endswith(", copied of unknown version")


def test_functions_are_timed_in_turn():
    calls = []
    functions = [lambda: calls.append("a"), lambda: calls.append("b")]
    times = clock.in_turn(functions, "cpu", seconds=0)
    assert calls == ["a", "b"] * (1 + clock.MIN_ROUNDS)
    assert len(times) == 2
    assert all(wall >= host > 0 for wall, host in times)


def test_rounds_fill_the_seconds(gpu):
    calls = []
    clock.in_turn([lambda: calls.append(gpu.launch(0.5, 1.5))], "cuda", seconds=9)
    assert len(calls) == 1 + 4  # after three, 7.5 seconds have passed
    clock.in_turn([lambda: calls.append(gpu.launch(0.5, 1.5))], "cuda", seconds=1e9)
    assert len(calls) == 5 + 1 + clock.MAX_ROUNDS


def test_a_gpu_works_on_when_control_has_returned(gpu):
    """The previous function's work does not count, nor does a single slow call."""
    slow = iter([0.0, 0.0, 1.0] + 50 * [0.0])
    functions = [
        lambda: gpu.launch(0.002, 0.030),
        lambda: gpu.launch(0.010 + next(slow), 0.004),
    ]
    first, second = clock.in_turn(functions, "cuda", seconds=0.2)
    assert first == pytest.approx((32, 2))
    assert second == pytest.approx((14, 10))


def test_kernels_are_counted_and_summed(gpu, monkeypatch):
    def event(us, device_type=DeviceType.CUDA, **more):
        span = SimpleNamespace(elapsed_us=lambda: us)
        return SimpleNamespace(time_range=span, device_type=device_type, **more)

    class Profile:
        """For each call: two kernels, their annotation, and their launch on the CPU."""

        def __init__(self, activities):
            self.calls = 0

        def __enter__(self):
            nonlocal running
            running = self
            return self

        def __exit__(self, *_):
            assert gpu.now == gpu.done  # all kernels have run

        def events(self):
            return self.calls * [
                event(200.0, is_user_annotation=False),
                event(300.0),
                event(900.0, is_user_annotation=True),
                event(7.0, DeviceType.CPU, is_user_annotation=False),
            ]

    running = None

    def function():
        running.calls += 1
        gpu.launch(0.001, 0.0005)

    monkeypatch.setattr(clock, "profile", Profile)
    assert clock.kernel_time(function, "cuda") == pytest.approx((0.5, 2))
    monkeypatch.setattr(Profile, "events", lambda self: [])
    assert clock.kernel_time(function, "cuda") == (None, None)
    assert clock.kernel_time(function, "cpu") == (None, None)


def test_bytes_are_counted():
    """Bytes of a chain of layers, counted by hand."""
    layer = nn.Linear(100, 300)
    x = torch.rand(1000, 100)

    def forward():
        return torch.tanh(layer(x)).exp()

    # The input, tanh's result and exp's: fp32.
    kept = memory.kept_bytes(forward, layer.parameters(), "cpu")
    assert kept == 4000 * (100 + 300 + 300)

    def allocate():
        a = torch.empty(10**6)
        del a
        b = torch.empty(2 * 10**6)
        c = torch.empty(10**6)
        return b, c

    assert memory.peak_bytes(allocate, "cpu") == pytest.approx(12 * 10**6, rel=0.01)


def test_a_gpu_counts_what_a_function_hides(gpu):
    """Memory that waits for the backward pass, but not as a saved tensor."""

    class Hides(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            gpu.tensor(500)  # not kept
            ctx.hidden = gpu.tensor(1000)
            return x + 1

        @staticmethod
        def backward(ctx, g):
            return g

    x = torch.zeros(3, requires_grad=True)
    forward = lambda: [Hides.apply(x), Hides.apply(x)]  # noqa: E731
    assert memory.kept_bytes(forward, [], "cuda") == 2 * 4000
    assert memory.kept_bytes(lambda: forward()[0], [], "cuda") == 4000
    assert gpu.allocated == 0


def test_what_a_step_leaves_counts_to_its_peak(gpu, monkeypatch):
    monkeypatch.setattr(clock, "kernel_time", lambda *_: (None, None))
    gpu.allocate(10**6)  # the weights

    def step(leaves, needs, graphs=None):
        left = []

        def run():
            gpu.launch(0.001, 0.001)
            if not left:
                left.append(gpu.allocate(leaves, graphs=graphs is not None))
            gpu.allocate(needs)
            gpu.free(needs)

        return Step(run, lambda: [torch.ones(1, requires_grad=True)], (), graphs)

    steps = [step(0, 500), step(100, 500), step(4000, 50, measuring.OWN_POOL)]
    plain, leaving, graphed = measuring.measure(steps, "cuda", seconds=0)
    assert (plain.peak, leaving.peak, graphed.peak) == (500, 600, 4050)
    assert (plain.kept, graphed.kept) == (0, None)


def test_a_shared_pool_counts_what_is_allocated_while_it_is_recorded(gpu, monkeypatch):
    """The second step records into memory of the pool that the first allocated."""
    monkeypatch.setattr(clock, "kernel_time", lambda *_: (None, None))
    pool = []

    def step(needs):
        calls = []

        def run():
            calls.append(gpu.launch(0.001, 0.001))
            if len(calls) == 1:  # compiles, and tries kernels out
                gpu.allocate(9000)
                gpu.free(9000)
            if len(calls) == 2:  # records
                gpu.allocate(needs)
                gpu.free(needs)
                if not pool:
                    pool.append(gpu.allocate(needs, graphs=True))

        return Step(run, graphs=measuring.SHARED_POOL)

    figures = measuring.measure([step(700), step(600)], "cuda", seconds=0)
    assert [f.peak for f in figures] == [700, 600]


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.gpu
@needs_gpu
def test_a_real_gpu_is_measured():
    x = torch.rand(1000, 1000, device="cuda", requires_grad=True)

    def forward():
        return [x.sin().exp()]  # sin keeps x, exp its result

    def run():
        forward()[0].sum().backward()
        x.grad = None

    (figures,) = measuring.measure([Step(run, forward, [x])], "cuda", seconds=1)
    assert figures.kernel_ms > 0
    assert 0 < figures.host_ms <= figures.ms
    assert figures.launches >= 5  # sin, exp, sum and their gradients
    assert figures.kept == pytest.approx(4e6, rel=0.3)
    assert 8e6 <= figures.peak <= 30e6


@pytest.mark.gpu
@needs_gpu
def test_graphs_of_a_real_gpu_are_measured_each_as_if_alone():
    """The graphs of torch.compile share a memory pool.

    The two compiled models differ in one setting, or the second would reuse the first
    one's code, record its graphs in its first step and be measured without them.
    """
    pytest.importorskip("triton")
    image = torch.rand(64, 3, 128, 128, device="cuda")

    class Maps(nn.Sequential):
        def forward(self, x):
            return [super().forward(x)]

    runs = [
        training(
            Maps(nn.Conv2d(3, 16, 3), nn.GELU(gelu), nn.Conv2d(16, 8, 3)).cuda(),
            image,
            "fp32",
            execution,
        )
        for gelu, execution in (
            ("none", "reduce-overhead"),
            ("tanh", "reduce-overhead"),
            ("none", "eager"),
        )
    ]
    first, second, eager = measuring.measure(runs, "cuda", seconds=1)
    torch._dynamo.reset()
    assert second.peak == pytest.approx(first.peak, rel=0.2)
    assert eager.peak / 4 <= first.peak <= 2 * eager.peak
    assert first.kernel_ms > 0
    assert first.kept is None
