"""What is exported: a backbone, or a segmentor from an image to its logits."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, load_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from convnext_dense import checkpoints
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError
from convnext_dense.patches.mmseg_resize import without_size_warning

from .pooling import replace_pools


class Network(NamedTuple):
    """What is exported.

    Attributes:
        module: an image (N, channels, H, W) to a tensor or a tuple of them.
        reference: the same by the toolbox's own way.
        example: a random image of a shape (N, H, W).
        outputs: the names of what ``module`` returns.
        metadata: what the file says of itself.
    """

    module: nn.Module
    reference: Callable[[Tensor], tuple[Tensor, ...]]
    example: Callable[[int, int, int], Tensor]
    outputs: list[str]
    metadata: dict[str, str]


def build(cfg: Config, backbone: bool) -> Network:
    """Build what ``cfg`` describes and load ``cfg.load_from``, if it names weights.

    Args:
        backbone: only the model's backbone.

    Raises:
        InputError: the model cannot be built, is a detector, or the weights do not
            fit or are not whole.
    """
    model = build_model(cfg, "cpu").eval().requires_grad_(False)
    if not backbone and not hasattr(model, "encode_decode"):
        raise InputError(
            f"{cfg.filename}: a whole {type(model).__name__} cannot be exported, only "
            "segmentors can; --backbone exports its backbone"
        )
    if backbone and not hasattr(getattr(model, "backbone", None), "feature_info"):
        raise InputError(
            f"--backbone: {cfg.filename} has none of this package's backbones"
        )
    dataset_meta = _load(model, cfg.load_from, not backbone)
    preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor")
    normalisation = _Normalisation.of(preprocessor or {})
    if backbone:
        return _backbone(model.backbone, normalisation)
    test_cfg = cfg.model.get("test_cfg") or {}
    if test_cfg.get("mode") == "slide":
        print_log(
            "test_cfg.mode is 'slide': what is exported takes one window (crop_size "
            f"{test_cfg.get('crop_size')}), and sliding is left to the caller",
            "current",
        )
    return _segmentor(model, normalisation, dataset_meta)


def _load(model: nn.Module, source: str | None, whole: bool) -> Mapping:
    """Load weights; what the checkpoint knows of its data set."""
    if not source:
        print_log("no CHECKPOINT was given: the weights are random", "current")
        return {}
    checkpoint = CheckpointLoader.load_checkpoint(source, map_location="cpu")
    meta = {}
    if isinstance(checkpoint, Mapping):
        meta = checkpoint.get("meta") or {}
        checkpoint = checkpoint.get("state_dict", checkpoint)
    if whole:
        checkpoints.require_whole(model, checkpoint)
    load_state_dict(model, checkpoint)
    return meta.get("dataset_meta") or {}


class _Normalisation(NamedTuple):
    """Of the image that the network sees: mean and std of each channel, which order."""

    mean: list[float]
    std: list[float]
    order: str

    @classmethod
    def of(cls, preprocessor: Mapping) -> "_Normalisation":
        # The toolboxes read images as BGR; either option turns them round.
        turned = preprocessor.get("bgr_to_rgb") or preprocessor.get("rgb_to_bgr")
        return cls(
            list(preprocessor.get("mean") or [0.0]),
            list(preprocessor.get("std") or [1.0]),
            "RGB" if turned else "BGR",
        )

    def __str__(self) -> str:
        return f"(image - mean) / std with mean {self.mean}, std {self.std}"


def _backbone(backbone: nn.Module, normalisation: _Normalisation) -> Network:
    first = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return Network(
        backbone,
        reference=backbone,
        example=lambda *shape: _noise(first.in_channels, *shape),
        outputs=[f"stride{info.stride}" for info in backbone.feature_info],
        metadata={"image": f"{normalisation.order}, {normalisation}"},
    )


def _segmentor(
    model: nn.Module, normalisation: _Normalisation, dataset_meta: Mapping
) -> Network:
    model.data_preprocessor.test_cfg = None  # no padding
    model.auxiliary_head = None  # only training uses it

    def reference(image: Tensor) -> tuple[Tensor]:
        data = dict(inputs=list(image.flip(1)))
        image = model.data_preprocessor(data, False)["inputs"]
        return (_logits(model, image),)

    metadata = {
        "image": f"RGB from 0 to 255, float32; normalised inside: {normalisation}"
    }
    for key in ("classes", "palette"):
        if dataset_meta.get(key) is not None:
            metadata[key] = json.dumps(np.asarray(dataset_meta[key]).tolist())
    return Network(
        Segmentor(model, normalisation),
        reference,
        example=lambda *shape: 127.5 + 50 * _noise(3, *shape),
        outputs=["logits"],
        metadata=metadata,
    )


def _noise(channels: int, batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


class Segmentor(nn.Module):
    """A segmentor of mmseg with its normalisation.

    The image is taken as it is, as ``test_cfg.mode='whole'`` does, and without the
    padding that ``data_preprocessor.test_cfg`` may ask for.

    Shapes: (N, 3, H, W), RGB from 0 to 255, to logits (N, classes, H, W).
    """

    def __init__(self, model: nn.Module, normalisation: _Normalisation):
        super().__init__()
        self.model = model
        self.order = normalisation.order
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normalisation, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        if self.order == "BGR":
            image = image.flip(1)
        return _logits(self.model, (image - self.mean) / self.std)


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    """Of each pixel of a normalised image."""
    size = image.shape[-2:]
    logits = model.encode_decode(image, [dict(img_shape=size)])
    if logits.shape[-2:] == size:
        return logits
    # Some heads leave it to the segmentor, which does it sample by sample.
    return F.interpolate(
        logits, size, mode="bilinear", align_corners=model.align_corners
    )


@contextmanager
def traceable(module: nn.Module) -> Iterator[None]:
    """Let ``module`` be traced with sizes that are not numbers; its pools stay so."""
    replace_pools(module)
    if isinstance(module, Segmentor):
        with without_size_warning():
            yield
    else:
        yield
