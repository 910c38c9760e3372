"""How stages are replayed as graphs, by Triton's interpreter; run by
test_gpu_stages.py.

The graph itself is made up: it runs the program again. What is tested is what is around
it: which tensors are copied, what waits for what, and when no graph is taken.
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
    """Let the CPU stand for a GPU, with the convolutions by PyTorch."""

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
    """The same backbone without graphs and with them."""
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


def taken(model):
    return len(graphs.graphs_of(model, torch.device("cpu"))._graphs)


def test_shapes_that_come_again_are_replayed():
    plain, graphed = twins()
    for seed in range(4):
        assert_same(gradients(graphed, image(seed)), gradients(plain, image(seed)))
        assert taken(graphed) == (0 if seed < 2 else 2)
    assert_same(gradients(graphed, image(9, 64)), gradients(plain, image(9, 64)))
    assert taken(graphed) == 2  # not of a new shape
    assert graphs.graphs_of(graphed, torch.device("cpu")).bytes > 0
    assert taken(plain) == 0


def test_what_is_given_out_is_nobody_elses():
    """Maps and gradients of a step stay as they are in the next one; gradients add
    up."""
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
    # a forward pass that nobody goes back from is not waited for
    graphed(image(3))
    gc.collect()
    every = graphs.graphs_of(graphed, torch.device("cpu"))._graphs.values()
    assert not any(graph.is_waiting() for graph in every)


def test_a_second_backward_pass_after_a_forward_pass_is_refused():
    _, graphed = twins()
    for _ in range(3):
        gradients(graphed, image(0))
    total = loss(graphed(image(1)))
    total.backward(retain_graph=True)
    graphed(image(2))
    with pytest.raises(RuntimeError, match="before the next forward pass"):
        total.backward()


def test_moved_parameters_are_recorded_anew():
    plain, graphed = twins()
    for _ in range(3):
        gradients(graphed, image(0))
    for model in (plain, graphed):
        for parameter in model.parameters():
            parameter.data = parameter.data * 1.5
    assert_same(gradients(graphed, image(1)), gradients(plain, image(1)))


def test_drop_path_is_drawn_anew():
    _, graphed = twins(drop_path_rate=0.99)
    norms = set()
    for seed in range(5):
        torch.manual_seed(seed)
        norms.add(round(loss(graphed(image(0))).item(), 6))
    assert taken(graphed) == 2
    assert len(norms) > 2


def test_too_little_memory_takes_the_ordinary_way(monkeypatch):
    monkeypatch.setattr(graphs, "_memory_of", lambda device: 1000)
    _, graphed = twins()
    for seed in range(4):
        graphed(image(seed))
    assert taken(graphed) == 0


def test_inference():
    plain, graphed = twins()
    with torch.no_grad():
        for seed in range(4):
            assert_same(graphed(image(seed)), plain(image(seed)))
    assert taken(graphed) == 2
    assert dispatch.runs_on(image(0))
