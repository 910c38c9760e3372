"""Replays stages as CUDA graphs, for input shapes that occur often.

A CUDA graph contains the addresses of its tensors. So a stage's graph owns its tensors:
input, output, kept maps and gradients. The graphs of a backbone share one memory pool
of limited size. Results are copied out of it. If a stage's kept maps still wait for
their backward pass, the next forward pass runs without the graph.
"""

import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .autograd import (
    check_versions,
    gradients,
    needs_backward,
    refuse_second_derivative,
    versions,
)
from .description import Needs, Shape
from .program import Program
from .stage import Stage, as_map, needs_of
from .stage_arguments import StageArguments

_SEEN = 2  # calls with a shape before a graph is recorded for it
_MOST_SHAPES = 4  # graphs for each stage
_MOST_SEEN = 1000  # shapes that are counted before counting starts again
_SHARE = 0.25  # share of the device's memory for all graphs of a backbone


class StageGraphs:
    """The CUDA graphs of a backbone.

    Attributes:
        bytes: about how much memory they take.
    """

    def __init__(self):
        self._pool = None
        self._seen: Counter = Counter()
        self._refused: Counter = Counter()
        self._graphs: dict[tuple, _Graph] = {}
        self.bytes = 0

    def run(
        self, stage: Stage, shape: Shape, x: Tensor, arguments: StageArguments
    ) -> tuple[Tensor, Tensor | None] | None:
        """Replay a stage's graph, recording it first if the shape occurs often.

        Returns:
            The stream and the normed map, or None if the stage has to run without a
            graph: the shape is new or takes too much memory, a backward pass is still
            to come, or the user is recording a CUDA graph.
        """
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        train = needs_backward(x, arguments.parameters)
        key = stage, shape, train
        graph = self._graphs.get(key)
        if graph is None or not graph.fits(arguments):
            graph = self._recorded(key, x, arguments)
        if graph is None or graph.is_waiting():
            return None
        if train:
            return _Replayed.apply(graph, arguments, x, *arguments.parameters)
        return graph.forward(x, arguments)

    # Tensors made in inference mode cannot be written to outside of it.
    @torch.inference_mode(False)
    def _recorded(self, key, x: Tensor, arguments: StageArguments) -> "_Graph | None":
        """A new graph for a shape, if the shape is due and there is memory."""
        if key not in self._seen and len(self._seen) > _MOST_SEEN:
            self._seen.clear()
        self._seen[key] += 1
        if self._seen[key] <= _SEEN or self._refused[key] > 1:
            return None
        stage, shape, train = key
        before = self._graphs.pop(key, None)
        if before is None and self._count(stage) >= _MOST_SHAPES:
            return None
        size = _Graph.size(stage, shape, train, arguments)
        if before is not None:  # its parameters have moved
            self.bytes -= before.bytes
            self._refused[key] += 1
        if self.bytes + size > _SHARE * _memory_of(x.device):
            return None
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # The output of another graph keeps its address: no copy is needed.
        outputs = {g.out.data_ptr() for g in self._graphs.values()}
        static_x = x if x.data_ptr() in outputs else None
        try:
            graph = _Graph(stage, shape, train, static_x, x, arguments, self._pool)
        except RuntimeError:  # no memory, or another thread disturbed the recording
            self._refused[key] = 2
            return None
        self._graphs[key] = graph
        self.bytes += graph.bytes
        return graph

    def _count(self, stage: Stage) -> int:
        """The number of a stage's graphs."""
        return sum(key[0] is stage for key in self._graphs)


def _memory_of(device: torch.device) -> int:
    """The bytes of memory of a GPU."""
    return torch.cuda.get_device_properties(device).total_memory


def graphs_of(backbone: nn.Module, device: torch.device) -> StageGraphs:
    """The graphs of a backbone for this thread and the current stream.

    Other threads and streams have their own, as they may replay at the same time. The
    backbone does not hold them: it is copied and saved without them.
    """
    stream = 0
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device).cuda_stream
    every = _graphs.setdefault(backbone, {})
    return every.setdefault((threading.get_ident(), stream), StageGraphs())


_graphs: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


class _Graph:
    """A stage's forward pass for one shape as a CUDA graph, and its backward passes.

    Args:
        stage, shape, train: what to compute.
        static_x: the input, if it is the output of another graph. If None, the graph
            copies each input to a tensor of its own.
        x: an input of this shape.
        arguments: the parameters, and drop path factors of this shape.
        pool: the memory pool.
    """

    def __init__(
        self,
        stage: Stage,
        shape: Shape,
        train: bool,
        static_x: Tensor | None,
        x: Tensor,
        arguments: StageArguments,
        pool,
    ):
        self.stage, self.shape, self.train = stage, shape, train
        self.addresses, self._pool = arguments.addresses, pool
        self.bytes = self.size(stage, shape, train, arguments)
        self.x = torch.empty_like(x) if static_x is None else static_x
        self.drop = None if arguments.drop is None else torch.empty_like(arguments.drop)
        self.arguments = arguments._replace(drop=self.drop)
        self.out, self.normed, self.kept = stage.empty_outputs(x, shape, train)
        self._table = stage.table(arguments, x.device)
        self._backward: dict[Needs, tuple] = {}
        self._waiting: weakref.ref | None = None
        self._programs: list[Program] = []  # the graphs read their tables of sums
        self.runs = 0  # forward passes
        tensors = self.x, self.out, self.kept, self.normed, self.drop, self._table
        program = stage.program(shape, train)
        self._forward = self._record(program, [*tensors, None, None, None, None])

    @staticmethod
    def size(stage: Stage, shape: Shape, train: bool, arguments: StageArguments) -> int:
        """About how many bytes a graph takes: stream and normed map in both directions,
        kept maps, workspaces and gradients."""
        h, w = stage.spec.out_size(shape.height, shape.width)
        maps = shape.n * h * w * stage.spec.channels * 4
        program = stage.program(shape, train)
        if not train:
            return 3 * maps + program.workspace
        gradient_bytes = 4 * stage.places.starts[-1]
        kept = stage.spec.blocks * maps // 2
        return 6 * maps + kept + 2 * program.workspace + gradient_bytes

    def fits(self, arguments: StageArguments) -> bool:
        """Whether the parameters still have the recorded addresses."""
        return arguments.addresses == self.addresses

    def is_waiting(self) -> bool:
        """Whether the last forward pass may still be followed by its backward pass."""
        return self._waiting is not None and self._waiting() is not None

    def check(self, run: int, arguments: StageArguments) -> None:
        """Check that the maps kept by forward pass number ``run`` still exist.

        Raises:
            RuntimeError: they were overwritten, or the parameters moved.
        """
        if run != self.runs or not self.fits(arguments):
            raise RuntimeError(
                "a later forward pass, or moving the parameters, has overwritten what "
                "this backward pass of ConvNeXt's CUDA graphs needs: call backward() "
                "once, before the next forward pass, or set cuda_graphs=False"
            )

    def wait_for(self, context) -> None:
        """Keep the kept maps until the backward pass or the end of ``context``."""
        self._waiting = weakref.ref(context)

    def forward(
        self, x: Tensor, arguments: StageArguments
    ) -> tuple[Tensor, Tensor | None]:
        """Replay the forward pass: the stream and the normed map."""
        self._copy(self.x, x)
        self._copy(self.drop, arguments.drop)
        self._forward.replay()
        self.runs += 1
        # After a pass without gradients the graph may run again at any time, but the
        # next stage may keep this output for its backward pass.
        must_copy = not self.train and torch.is_grad_enabled()
        out = self.out.clone() if must_copy else self.out
        return out, None if self.normed is None else self.normed.clone()

    def backward(self, requires_grad, g: Tensor | None, g_normed: Tensor | None):
        """Replay the backward pass, with the results of ``Stage.backward``."""
        g = as_map(g, self.stage.types.stream)
        g_normed = as_map(g_normed, self.shape.normed)
        needs = needs_of(requires_grad, g, g_normed)
        if needs not in self._backward:
            self._backward[needs] = self._recorded_backward(needs, g, g_normed)
        graph, static_g, static_g_normed, dx, grads = self._backward[needs]
        self._copy(static_g, g)
        self._copy(static_g_normed, g_normed)
        graph.replay()
        self._waiting = None
        # Autograd may use the result as .grad and add to it.
        return dx, grads.clone()

    def _recorded_backward(self, needs, g, g_normed) -> tuple:
        """Record a backward pass: the graph, and the tensors that it owns."""
        static_g, static_g_normed = (
            None if t is None else torch.empty_like(t) for t in (g, g_normed)
        )
        dx, grads = self.stage.empty_gradients(self.x, needs.requires_grad)
        tensors = self.x, self.out, self.kept, None, self.drop, self._table
        program = self.stage.program(self.shape, needs)
        graph = self._record(program, [*tensors, static_g, static_g_normed, dx, grads])
        return graph, static_g, static_g_normed, dx, grads

    def _record(self, program: Program, tensors: Sequence[Tensor | None]):
        """Record a program as a CUDA graph."""
        device = torch.cuda.device(self.x.device)
        self._programs.append(program)
        with device:
            if program.runner is None:
                program.runner = self.stage.runner(program, self.x.device)
            torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as a data loader's or NCCL's, may use the GPU meanwhile.
        mode = dict(pool=self._pool, capture_error_mode="thread_local")
        with device, torch.cuda.graph(graph, **mode):
            # From the pool: graphs that never run at the same time share it.
            workspace = torch.empty(
                program.workspace, dtype=torch.uint8, device=self.x.device
            )
            self.stage.run(program, [*tensors, workspace], self.arguments)
            del workspace
        return graph

    @staticmethod
    def _copy(target: Tensor | None, source: Tensor | None) -> None:
        """Copy an input to the graph's own tensor, unless they are the same."""
        if target is None or source is None:
            return
        if target.data_ptr() != source.data_ptr():
            target.copy_(source)


class _Replayed(torch.autograd.Function):
    """A graph's replay as an autograd function, like ``autograd._Stage``."""

    @staticmethod
    def forward(ctx, graph, arguments, x, *_):
        """The stream and the normed map; the parameters come again in ``_``."""
        out, normed = graph.forward(x, arguments)
        ctx.graph, ctx.arguments, ctx.versions = graph, arguments, versions(arguments)
        ctx.run = graph.runs
        ctx.set_materialize_grads(False)
        graph.wait_for(ctx)
        return out.detach(), normed

    @staticmethod
    def backward(ctx, g, g_normed):
        """The gradients of x and of the parameters."""
        if torch.is_grad_enabled():
            refuse_second_derivative()
        arguments, stage = ctx.arguments, ctx.graph.stage
        if g is None and g_normed is None:
            return (None,) * (3 + len(arguments.parameters))
        check_versions(arguments, ctx.versions)
        ctx.graph.check(ctx.run, StageArguments.of(arguments.parameters))
        requires_grad = ctx.needs_input_grad[2:]
        dx, grads = ctx.graph.backward(requires_grad, g, g_normed)
        views = gradients(
            stage.spec, stage.types, grads, arguments.parameters, requires_grad[1:]
        )
        return None, None, dx, *views
