"""Stages replayed as CUDA graphs, for the few shapes that come most.

A graph has the addresses of its tensors in it. So a stage's graph owns them: its input,
its output, what is kept, the gradients. They lie in one memory pool with a bound; what
leaves the backbone is copied out, and a stage whose kept tensors still wait for their
backward pass takes the ordinary way instead.
"""

import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .autograd import (
    Given,
    check_versions,
    gradients,
    needs_backward,
    refuse_second_derivative,
    versions,
)
from .description import Shape
from .stage import Stage, as_map, needs_of

_SEEN = 2  # calls with a shape, after which it is recorded
_MOST_SHAPES = 4  # of each stage
_MOST_SEEN = 1000  # shapes, after which counting starts again
_SHARE = 0.25  # of the device's memory, that all graphs of a backbone may have


class StageGraphs:
    """The graphs of a backbone."""

    def __init__(self):
        self._pool = None
        self._seen: Counter = Counter()
        self._refused: Counter = Counter()
        self._graphs: dict[tuple, _Graph] = {}
        self.bytes = 0

    def run(
        self, stage: Stage, shape: Shape, x: Tensor, given: Given
    ) -> tuple[Tensor, Tensor | None] | None:
        """The stage's stream and normed map by a graph; None where the ordinary way has
        to be taken: a shape that is new or too much, a stage whose backward pass is
        still to come, a graph of the user's own."""
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        train = needs_backward(x, given)
        key = stage, shape, train
        graph = self._graphs.get(key)
        if graph is None or not graph.fits(given):
            graph = self._recorded(key, x, given)
        if graph is None or graph.is_waiting():
            return None
        if train:
            return _Replayed.apply(graph, given, x, *given.parameters)
        return graph.forward(x, given)

    @torch.inference_mode(False)  # whose tensors cannot be written to outside of it
    def _recorded(self, key, x: Tensor, given: Given) -> "_Graph | None":
        if key not in self._seen and len(self._seen) > _MOST_SEEN:
            self._seen.clear()
        self._seen[key] += 1
        if self._seen[key] <= _SEEN or self._refused[key] > 1:
            return None
        stage, shape, train = key
        before = self._graphs.pop(key, None)
        if before is None and self._count(stage) >= _MOST_SHAPES:
            return None
        size = _Graph.size(stage, shape, train, given)
        if before is not None:  # its parameters have moved
            self.bytes -= before.bytes
            self._refused[key] += 1
        if self.bytes + size > _SHARE * _memory_of(x.device):
            return None
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        own = any(x.data_ptr() == g.out.data_ptr() for g in self._graphs.values())
        kept = x if own else None
        try:
            graph = _Graph(stage, shape, train, kept, x, given, self._pool)
        except RuntimeError:  # no memory, or another thread's work came in between
            self._refused[key] = 2
            return None
        self._graphs[key] = graph
        self.bytes += graph.bytes
        return graph

    def _count(self, stage: Stage) -> int:
        return sum(key[0] is stage for key in self._graphs)


def _memory_of(device: torch.device) -> int:
    """Bytes that a GPU has."""
    return torch.cuda.get_device_properties(device).total_memory


def graphs_of(backbone: nn.Module, device: torch.device) -> StageGraphs:
    """The graphs of a backbone, for this thread and the current stream: another one may
    replay at the same time. They are not a part of it: it is copied and saved without
    them."""
    stream = 0
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device).cuda_stream
    every = _graphs.setdefault(backbone, {})
    return every.setdefault((threading.get_ident(), stream), StageGraphs())


_graphs: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


class _Graph:
    """A stage's forward pass for one shape, and its backward pass when that comes.

    Args:
        own: the output of the stage before, if that is a graph's; else the input is
            copied into this one's.
        x: an input like those that will come.
    """

    def __init__(self, stage, shape, train, own, x, given, pool):
        self.stage, self.shape, self.train = stage, shape, train
        self.addresses, self._pool = given.addresses, pool
        self.bytes = self.size(stage, shape, train, given)
        self.x = torch.empty_like(x) if own is None else own
        self.drop = None if given.drop is None else torch.empty_like(given.drop)
        self.given = given._replace(drop=self.drop)
        self.out, self.normed, self.kept = stage.empty_outputs(x, shape, train)
        self._table = stage.table(given, x.device)
        self._backward: dict = {}
        self._waiting: weakref.ref | None = None
        self._programs: list = []  # whose tables the graphs read
        self.runs = 0  # forward passes
        tensors = self.x, self.out, self.kept, self.normed, self.drop, self._table
        program = stage.program(shape, train)
        self._forward = self._record(program, [*tensors, None, None, None, None])

    @staticmethod
    def size(stage: Stage, shape: Shape, train: bool, given: Given) -> int:
        """About how many bytes it will have: maps of the stream and the normed one, in
        both directions, what is kept, workspaces and gradients."""
        h, w = stage.kind.out_size(shape.height, shape.width)
        maps = shape.n * h * w * stage.kind.channels * 4
        program = stage.program(shape, train)
        if not train:
            return 3 * maps + program.workspace
        gradient_bytes = 4 * stage.places.starts[-1]
        kept = stage.kind.blocks * maps // 2
        return 6 * maps + kept + 2 * program.workspace + gradient_bytes

    def fits(self, given: Given) -> bool:
        """Whether the parameters are where they were when it was recorded."""
        return given.addresses == self.addresses

    def is_waiting(self) -> bool:
        """Whether a backward pass still needs what the last forward pass kept."""
        return self._waiting is not None and self._waiting() is not None

    def check(self, run: int, given: Given) -> None:
        """Raise a RuntimeError if what forward pass number ``run`` kept is gone."""
        if run != self.runs or not self.fits(given):
            raise RuntimeError(
                "a later forward pass, or moving the parameters, has overwritten what "
                "this backward pass of ConvNeXt's CUDA graphs needs: call backward() "
                "once, before the next forward pass, or set cuda_graphs=False"
            )

    def wait_for(self, context) -> None:
        self._waiting = weakref.ref(context)

    def forward(self, x: Tensor, given: Given) -> tuple[Tensor, Tensor | None]:
        self._copy(self.x, x)
        self._copy(self.drop, given.drop)
        self._forward.replay()
        self.runs += 1
        # nobody waits for a pass without gradients, but the next stage may keep this
        kept = not self.train and torch.is_grad_enabled()
        out = self.out.clone() if kept else self.out
        return out, None if self.normed is None else self.normed.clone()

    def backward(self, wanted, g: Tensor | None, g_normed: Tensor | None):
        """dx and the gradients, as ``Stage.backward``."""
        g = as_map(g, self.stage.types.stream)
        g_normed = as_map(g_normed, self.shape.normed)
        needs = needs_of(wanted, g, g_normed)
        if needs not in self._backward:
            self._backward[needs] = self._recorded_backward(needs, g, g_normed)
        graph, own_g, own_g_normed, dx, grads = self._backward[needs]
        self._copy(own_g, g)
        self._copy(own_g_normed, g_normed)
        graph.replay()
        self._waiting = None
        return dx, grads.clone()  # .grad may become what is returned, and be added to

    def _recorded_backward(self, needs, g, g_normed):
        own_g, own_g_normed = (
            None if t is None else torch.empty_like(t) for t in (g, g_normed)
        )
        dx, grads = self.stage.empty_gradients(self.x, needs.wanted)
        tensors = self.x, self.out, self.kept, None, self.drop, self._table
        program = self.stage.program(self.shape, needs)
        graph = self._record(program, [*tensors, own_g, own_g_normed, dx, grads])
        return graph, own_g, own_g_normed, dx, grads

    def _record(self, program, tensors: Sequence[Tensor | None]):
        device = torch.cuda.device(self.x.device)
        self._programs.append(program)
        with device:
            if program.runner is None:
                program.runner = self.stage.runner(program, self.x.device)
            torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # other threads may go on: a loader's, NCCL's
        mode = dict(pool=self._pool, capture_error_mode="thread_local")
        with device, torch.cuda.graph(graph, **mode):
            # in the pool: graphs that do not run at once share it
            workspace = torch.empty(
                program.workspace, dtype=torch.uint8, device=self.x.device
            )
            self.stage.run(program, [*tensors, workspace], self.given)
            del workspace
        return graph

    @staticmethod
    def _copy(own: Tensor | None, given: Tensor | None) -> None:
        if own is not None and own.data_ptr() != given.data_ptr():
            own.copy_(given)


class _Replayed(torch.autograd.Function):
    """A graph as autograd sees it; as ``autograd._Stage``."""

    @staticmethod
    def forward(ctx, graph, given, x, *_):
        out, normed = graph.forward(x, given)
        ctx.graph, ctx.given, ctx.versions = graph, given, versions(given)
        ctx.run = graph.runs
        ctx.set_materialize_grads(False)
        graph.wait_for(ctx)
        return out.detach(), normed

    @staticmethod
    def backward(ctx, g, g_normed):
        if torch.is_grad_enabled():
            refuse_second_derivative()
        given, stage = ctx.given, ctx.graph.stage
        if g is None and g_normed is None:
            return (None,) * (3 + len(given.parameters))
        check_versions(given, ctx.versions)
        ctx.graph.check(ctx.run, Given.of(given.parameters))
        wanted = ctx.needs_input_grad[2:]
        dx, grads = ctx.graph.backward(wanted, g, g_normed)
        views = gradients(stage.kind, stage.types, grads, given.parameters, wanted[1:])
        return None, None, dx, *views
