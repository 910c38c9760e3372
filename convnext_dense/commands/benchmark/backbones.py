"""Compare inference and training steps of the backbones alone."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convnext_dense.models.convnext import ConvNeXt

from . import measuring, peers, steps
from .floor import matrix_products
from .measuring import Figures, Step
from .peers import OURS
from .rows import Row

LAYOUTS = dict(nchw=torch.contiguous_format, channels_last=torch.channels_last)
# How often torch.compile may compile a network. Its default is 8. After that it runs
# the network eagerly, without a message.
COMPILE_LIMIT = 64


class Setting(NamedTuple):
    """The setting of a table: the same for all its rows.

    Attributes:
        batch: number of images in a step.
        size: height and width of an image in pixels.
        mode: inference or training.
        dtype: fp32, or bf16, which runs under autocast.
    """

    batch: int
    size: tuple[int, int]
    mode: str
    dtype: str

    def __str__(self) -> str:
        """The table's heading."""
        height, width = self.size
        return f"{self.batch} x {height} x {width}, {self.mode}, {self.dtype}"


class Candidates(NamedTuple):
    """The candidates to compare: the rows of every table.

    Attributes:
        libraries: the other libraries; None for all that are installed.
        executions: how to run our backbone, see ``steps``.
        peers_executions: how to run the other libraries' backbones.
        layouts: names of the memory formats to try, see ``LAYOUTS``.
    """

    libraries: Sequence[str] | None
    executions: Sequence[str]
    peers_executions: Sequence[str]
    layouts: Sequence[str]


class _Model(NamedTuple):
    """A library's backbone, and the ways to run it."""

    library: str
    module: nn.Module
    executions: Sequence[str]


class _Run(NamedTuple):
    """A library's backbone, run in one way and in one memory format."""

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
    """Compare the candidates in each setting.

    Args:
        arch: a name in ``archs.ARCHS``.
        settings: the settings, one table each.
        candidates: the libraries and how to run them.
        device: cpu or cuda.
        seconds: time to spend on each setting.
        use_grn: compare ConvNeXt V2.
        drop_path_rate: drop path rate of all backbones in training.

    Yields:
        the heading of a setting, and a function that measures its rows, ours first.

    Raises:
        InputError: a library's backbone computes something else than ours. Nothing is
            timed then.
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
    # Far from their neutral initial values: a parameter that a peer ignores shows then.
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    others = peers.build(ours, candidates.libraries or peers.installed())
    ours.to(device)
    for peer in others:
        peer.module.to(device)
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
        common = models, candidates.layouts, device, seconds
        yield str(setting), functools.partial(_compare_in, setting, *common)


def _compare_in(
    setting: Setting,
    models: Sequence[_Model],
    layouts: Sequence[str],
    device: str,
    seconds: float,
) -> list[Row]:
    """Measure all models in a setting; a row has the fastest memory format."""
    image = torch.rand(setting.batch, 3, *setting.size, device=device)
    runs = [
        run
        for model, layout in itertools.product(models, layouts)
        for run in _runs(setting, model, image, layout)
    ]
    to_measure = [run.step for run in runs]
    if device == "cpu":
        ours = models[0].module
        assert isinstance(ours, ConvNeXt)
        to_measure.append(Step(matrix_products(ours, *setting)))
    with torch._dynamo.config.patch(cache_size_limit=COMPILE_LIMIT):
        figures = measuring.measure(to_measure, device, seconds)
    torch._dynamo.reset()

    floor_ms = figures.pop().ms if device == "cpu" else None
    by_name: dict[tuple[str, str], list[tuple[Figures, _Run]]] = {}
    for run, measured in zip(runs, figures, strict=True):
        by_name.setdefault((run.library, run.execution), []).append((measured, run))
    rows = []
    for (library, execution), measured in by_name.items():
        best, run = min(measured, key=lambda pair: pair[0].ms)
        best = best._replace(
            kept=_least(figures.kept for figures, _ in measured),
            peak=_least(figures.peak for figures, _ in measured),
        )
        floor = floor_ms / best.ms if floor_ms else None
        rows.append(Row(library, execution, run.layout, setting.batch, best, floor))
    return rows


def _least(values: Iterable[int | None]) -> int | None:
    """The smallest of the values that were measured; None if none was."""
    return min((value for value in values if value is not None), default=None)


def _runs(setting: Setting, model: _Model, image: Tensor, layout: str) -> list[_Run]:
    """The runs of a model in a memory format; they share a copy of its weights."""
    training = setting.mode == "training"
    module = copy.deepcopy(model.module).train(training)
    module.to(memory_format=LAYOUTS[layout])
    x = image.contiguous(memory_format=LAYOUTS[layout])
    step = steps.training if training else steps.inference
    return [
        _Run(model.library, way, layout, step(module, x, setting.dtype, way))
        for way in model.executions
    ]
