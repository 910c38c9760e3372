"""Inference and training steps of the backbones alone."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convnext_dense.models.convnext import ConvNeXt

from . import measuring, peers, steps
from .floor import products
from .measuring import Step
from .peers import OURS
from .rows import Row

LAYOUTS = dict(nchw=torch.contiguous_format, channels_last=torch.channels_last)
# torch.compile runs a network as it is, without a word, after compiling it 8 times.
COMPILED_AT_MOST = 64


class Setting(NamedTuple):
    """What is the same for all rows of a table."""

    batch: int
    size: tuple[int, int]  # height and width in pixels
    mode: str  # inference or training
    dtype: str  # fp32, or bf16: under autocast

    def __str__(self) -> str:
        height, width = self.size
        return f"{self.batch} x {height} x {width}, {self.mode}, {self.dtype}"


class Candidates(NamedTuple):
    """What is compared: the rows of every table.

    Attributes:
        libraries: to compare with; all that are installed if None.
        executions: of ours, from ``steps``.
        peers_executions: of the others.
        layouts: memory formats to try, of ``LAYOUTS``.
    """

    libraries: Sequence[str] | None
    executions: Sequence[str]
    peers_executions: Sequence[str]
    layouts: Sequence[str]


class _Model(NamedTuple):
    library: str
    module: nn.Module
    executions: Sequence[str]


class _Run(NamedTuple):
    """A library, run in one way and in one memory format."""

    library: str
    execution: str
    layout: str
    step: Step


def compare(
    arch: str,
    settings: Sequence[Setting],
    candidates: Candidates,
    device: str,
    seconds: float,
    use_grn: bool = False,
    drop_path_rate: float = 0.0,
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Each setting in words, and what measures its rows, ours first.

    Args:
        arch: of ``archs.ARCHS``.
        settings: what to compare in, one after the other.
        candidates: what to compare.
        device: cpu or cuda.
        seconds: how long to time each setting.
        use_grn: compare ConvNeXt V2.
        drop_path_rate: in training, of every library.

    Raises:
        InputError: a library computes something else; nothing is timed then.
    """
    torch.manual_seed(0)
    build = functools.partial(
        ConvNeXt,
        arch,
        drop_path_rate=drop_path_rate,
        layer_scale_init_value=float(not use_grn),
        use_grn=use_grn,
    )
    ours = build()
    with torch.no_grad():  # far from neutral, so that whatever is forgotten shows
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    others = peers.build(ours, candidates.libraries or peers.installed())
    for module in (ours, *(peer.module for peer in others)):
        module.to(device)
    peers.check(ours, others)

    plain = [e for e in candidates.executions if e != steps.GRAPHS]
    models = [_Model(OURS, ours, plain)]
    if steps.GRAPHS in candidates.executions:
        graphs = build(cuda_graphs=True).to(device)
        graphs.load_state_dict(ours.state_dict())
        models.append(_Model(OURS, graphs, [steps.GRAPHS]))
    for peer in others:
        models.append(_Model(peer.library, peer.module, candidates.peers_executions))
    for setting in settings:
        runs = models, candidates.layouts, device, seconds
        yield str(setting), functools.partial(_compare_in, setting, *runs)


def _compare_in(setting, models, layouts, device, seconds) -> list[Row]:
    image = torch.rand(setting.batch, 3, *setting.size, device=device)
    runs = [
        run
        for model, layout in itertools.product(models, layouts)
        for run in _runs(setting, model, image, layout)
    ]
    to_measure = [run.step for run in runs]
    if device == "cpu":
        ours = models[0].module
        to_measure.append(Step(products(ours, *setting)))
    with torch._dynamo.config.patch(cache_size_limit=COMPILED_AT_MOST):
        figures = measuring.measure(to_measure, device, seconds)
    torch._dynamo.reset()

    least = figures.pop().ms if device == "cpu" else None
    by_name = {}
    for run, measured in zip(runs, figures, strict=True):
        by_name.setdefault((run.library, run.execution), []).append((measured, run))
    rows = []
    for (library, execution), measured in by_name.items():
        best, run = min(measured, key=lambda pair: pair[0].ms)
        best = best._replace(
            kept=_least(figures.kept for figures, _ in measured),
            peak=_least(figures.peak for figures, _ in measured),
        )
        floor = least / best.ms if least else None
        rows.append(Row(library, execution, run.layout, setting.batch, best, floor))
    return rows


def _least(values):
    return min((value for value in values if value is not None), default=None)


def _runs(setting: Setting, model: _Model, image: Tensor, layout: str) -> list[_Run]:
    """A library in a memory format: all ways to run it share the weights."""
    training = setting.mode == "training"
    module = copy.deepcopy(model.module).train(training)
    module.to(memory_format=LAYOUTS[layout])
    x = image.contiguous(memory_format=LAYOUTS[layout])
    step = steps.training if training else steps.inference
    return [
        _Run(model.library, way, layout, step(module, x, setting.dtype, way))
        for way in model.executions
    ]
