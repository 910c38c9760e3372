"""Compare whole training steps of a config's model, with our backbone and timm's."""

import copy
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from convnext_dense.engine.build import build_model
from convnext_dense.engine.machine import fit_to_machine
from convnext_dense.errors import InputError
from convnext_dense.models.convnext import ConvNeXt

from . import measuring, peers, random_targets
from .measuring import Step
from .peers import OURS
from .rows import Row
from .steps import EAGER, GRAPHS, POOLS, training


class _TimmBackbone(nn.Module):
    """timm's stages, followed by the output norms of our backbone."""

    def __init__(self, ours: ConvNeXt):
        super().__init__()
        (peer,) = peers.build(ours, ["timm"])
        self.stages = peer.module
        self.norms = nn.ModuleList(
            copy.deepcopy(getattr(ours, f"norm{i}")) for i in range(4)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (N, 3, H, W) -> four normed maps."""
        return tuple(n(m) for n, m in zip(self.norms, self.stages(x), strict=True))


def compare(
    cfg: Config,
    size: tuple[int, int],
    batch: int,
    device: str,
    dtype: str,
    seconds: float,
    graphs: bool = False,
) -> list[Row]:
    """Measure training steps on random images: forward, losses, backward, AdamW.

    Args:
        cfg: config of a detector or segmentor with this package's backbone.
        size: height and width of the images in pixels.
        batch: number of images in a step.
        device: cpu or cuda.
        dtype: fp32, or bf16, which runs under autocast.
        seconds: time to spend on timing.
        graphs: also measure our backbone with CUDA graphs.

    Returns:
        a row for our backbone and one for timm's, in the channels_last memory format.
        Each also has the time of the backbone's forward and backward pass alone, on
        the same images in the same rounds.

    Raises:
        InputError: the model cannot be built or has another backbone.
    """
    models = _models(cfg, device, graphs)
    target = (
        random_targets.detection_target
        if cfg.default_scope == "mmdet"
        else random_targets.segmentation_target
    )
    images = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(batch)
    ]
    inputs = dict(inputs=images, data_samples=[target(*size) for _ in images])
    whole, alone = [], []
    for (_, execution), model in models.items():
        model.train()
        step = _step(model, inputs, device, dtype)
        whole.append(Step(step, graphs=POOLS.get(execution)))
        x = model.data_preprocessor(copy.deepcopy(inputs), True)["inputs"]
        alone.append(training(model.backbone, x, dtype, execution))
    figures = measuring.measure([*whole, *alone], device, seconds)
    return [
        Row(*name, "channels_last", batch, step, backbone_ms=backbone.ms)
        for name, step, backbone in zip(
            models, figures[: len(whole)], figures[len(whole) :], strict=True
        )
    ]


def _models(cfg: Config, device: str, graphs: bool) -> dict[tuple[str, str], BaseModel]:
    """The models of a config, by their backbone's library and execution."""
    if not isinstance(getattr(build_model(cfg), "backbone", None), ConvNeXt):
        raise InputError(
            f"{cfg.filename} has no ConvNeXt of this package: there is nothing to "
            "compare. Set model.backbone.type to ConvNeXt"
        )
    fit_to_machine(cfg)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        ours = MODELS.build(cfg.model)
        models = {(OURS, EAGER): ours}
        if graphs:
            twin = models[OURS, GRAPHS] = copy.deepcopy(ours)
            twin.backbone = MODELS.build(dict(cfg.model.backbone, cuda_graphs=True))
            twin.backbone.load_state_dict(ours.backbone.state_dict())
    twin = models["timm", EAGER] = copy.deepcopy(ours)
    twin.backbone = theirs = _TimmBackbone(ours.backbone)
    for model in models.values():
        model.to(device, memory_format=torch.channels_last)

    x = torch.rand(1, 3, 64, 96, device=device)
    with peers.no_tf32():
        pairs = zip(ours.backbone.eval()(x), theirs.eval()(x), strict=True)
        if not all((a - b).abs().max() <= 1e-3 * a.abs().max() for a, b in pairs):
            raise InputError("timm's backbone and ours compute different maps")
    return models


def _step(
    model: BaseModel, inputs: dict, device: str, dtype: str
) -> Callable[[], None]:
    """Return a function that runs a training step of ``model`` on ``inputs``."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    # Allocate the optimizer's state now: like the weights, it is not to be measured.
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()

    def step() -> None:
        data = model.data_preprocessor(copy.deepcopy(inputs), True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
            losses = model(**data, mode="loss")
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
