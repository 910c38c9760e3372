"""Stages replayed as CUDA graphs, run with Triton's interpreter by test_stages.py.

The graph is a stand-in that runs the program again. The tests check everything around
it: which tensors are copied, which passes wait for each other, and when no graph is
used.
"""

import gc
from types import SimpleNamespace

import pytest
import torch

from convnext_dense import ConvNeXt
from convnext_dense.models.fused.gpu import dispatch, graphs, ways
from convnext_dense.models.fused.gpu.plan import plans_for


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Take the Triton kernels on the CPU, with the convolutions in PyTorch."""

    def choose(spec, types, strides, device, use):
        plan = plans_for(spec.channels, types.work, spec.grn, "cuda")[-1]
        return ways.Choice(ways.TRITON, plan, "")

    def record(self, program, tensors):
        if program.runner is None:
            program.runner = self.stage.runner(program, self.x.device)

        def replay():
            workspace = torch.empty(program.workspace, dtype=torch.uint8)
            self.stage.run(program, [*tensors, workspace], self.arguments)

        return SimpleNamespace(replay=replay)

    monkeypatch.setenv(ways.VARIABLE, ways.TRITON)
    monkeypatch.setattr(ways, "choose", choose)
    monkeypatch.setattr(graphs._Graph, "_record", record)
    monkeypatch.setattr(graphs, "_memory_of", lambda device: 2**40)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)


def twins(**kwargs):
    """Two equal backbones, the second with graphs."""
    kwargs |= dict(out_indices=(0, 1), layer_scale_init_value=1.0)  # two stages
    arch = dict(depths=[1] * 4, channels=[8, 8, 16, 16])
    torch.manual_seed(0)
    plain = ConvNeXt(arch, **kwargs)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    graphed = ConvNeXt(arch, cuda_graphs=True, **kwargs)
    graphed.load_state_dict(plain.state_dict())
    return plain, graphed


def image(seed, side=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, side, side, generator=generator)


def loss(maps):
    return sum(m.square().mean() for m in maps)


def gradients(model, x):
    model.zero_grad()
    maps = model(x)
    loss(maps).backward()
    return [*maps, *(p.grad for p in model.parameters())]


def assert_same(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def graph_count(model):
    return len(graphs.graphs_of(model, torch.device("cpu"))._graphs)


def test_repeated_shapes_are_replayed():
    plain, graphed = twins()
    for seed in range(4):
        assert_same(gradients(graphed, image(seed)), gradients(plain, image(seed)))
        assert graph_count(graphed) == (0 if seed < 2 else 2)
    assert_same(gradients(graphed, image(9, 64)), gradients(plain, image(9, 64)))
    assert graph_count(graphed) == 2  # none for a new shape
    assert graphs.graphs_of(graphed, torch.device("cpu")).bytes > 0
    assert graph_count(plain) == 0


def test_results_are_not_overwritten():
    """The next step does not change a step's maps and gradients. Gradients add up."""
    plain, graphed = twins()
    for _ in range(3):
        gradients(graphed, image(0))
    first = gradients(graphed, image(1))
    kept = [t.clone() for t in first]
    gradients(graphed, image(2))
    assert_same(first, kept)
    for model in (plain, graphed):
        model.zero_grad()
        for seed in range(3):
            loss(model(image(seed))).backward()
    assert_same(*([p.grad for p in m.parameters()] for m in (graphed, plain)))


def test_a_second_forward_pass_before_the_backward_pass():
    plain, graphed = twins()
    for _ in range(3):
        gradients(graphed, image(0))
    for model in (plain, graphed):
        model.zero_grad()
        first, second = model(image(1)), model(image(2))
        loss(second).backward()
        loss(first).backward()
    assert_same(*([p.grad for p in m.parameters()] for m in (graphed, plain)))
    # A forward pass whose maps are gone has no backward pass to wait for.
    graphed(image(3))
    gc.collect()
    recorded = graphs.graphs_of(graphed, torch.device("cpu"))._graphs.values()
    assert not any(graph.is_waiting() for graph in recorded)


def test_a_second_backward_pass_after_a_forward_pass_is_refused():
    _, graphed = twins()
    for _ in range(3):
        gradients(graphed, image(0))
    total = loss(graphed(image(1)))
    total.backward(retain_graph=True)
    graphed(image(2))
    with pytest.raises(RuntimeError, match="before the next forward pass"):
        total.backward()


def test_moved_parameters_are_recorded_again():
    plain, graphed = twins()
    for _ in range(3):
        gradients(graphed, image(0))
    for model in (plain, graphed):
        for parameter in model.parameters():
            parameter.data = parameter.data * 1.5
    assert_same(gradients(graphed, image(1)), gradients(plain, image(1)))


def test_drop_path_is_drawn_in_each_step():
    _, graphed = twins(drop_path_rate=0.99)
    norms = set()
    for seed in range(5):
        torch.manual_seed(seed)
        norms.add(round(loss(graphed(image(0))).item(), 6))
    assert graph_count(graphed) == 2
    assert len(norms) > 2


def test_no_graph_with_too_little_memory(monkeypatch):
    monkeypatch.setattr(graphs, "_memory_of", lambda device: 1000)
    _, graphed = twins()
    for seed in range(4):
        graphed(image(seed))
    assert graph_count(graphed) == 0


def test_inference():
    plain, graphed = twins()
    with torch.no_grad():
        for seed in range(4):
            assert_same(graphed(image(seed)), plain(image(seed)))
    assert graph_count(graphed) == 2
    assert dispatch.runs_on(image(0))
