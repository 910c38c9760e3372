"""The networks that can be exported: a backbone, or a whole segmentor."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import CheckpointLoader, load_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from convnext_dense import checkpoints
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError
from convnext_dense.patches.mmseg_resize import without_size_warning

from .pooling import replace_pools


class Network(NamedTuple):
    """A network to export.

    Attributes:
        module: maps an image (N, channels, H, W) to a tensor or a tuple of tensors.
        reference: computes the same outputs through the toolbox's own code.
        example: makes a random image from its batch size, height and width.
        outputs: names of the tensors that ``module`` returns.
        metadata: notes to write into the exported file, by key.
    """

    module: nn.Module
    reference: Callable[[Tensor], tuple[Tensor, ...]]
    example: Callable[[int, int, int], Tensor]
    outputs: list[str]
    metadata: dict[str, str]


def build(cfg: Config, backbone: bool) -> Network:
    """Build the network of ``cfg`` and load the weights that ``cfg.load_from`` names.

    Args:
        cfg: config of either toolbox.
        backbone: whether to take the model's backbone alone.

    Raises:
        InputError: the model cannot be built; it is a detector and ``backbone`` is
            False; or the weights do not fit the model or are incomplete.
    """
    model: BaseModel = build_model(cfg, "cpu").eval().requires_grad_(False)
    if not backbone and not hasattr(model, "encode_decode"):
        raise InputError(
            f"{cfg.filename}: a whole {type(model).__name__} cannot be exported, only "
            "segmentors can; --backbone exports its backbone"
        )
    if backbone and not hasattr(getattr(model, "backbone", None), "feature_info"):
        raise InputError(
            f"--backbone: {cfg.filename} has none of this package's backbones. Set "
            "model.backbone.type to ConvNeXt"
        )
    dataset_meta = _load(model, cfg.load_from, not backbone)
    preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor")
    normalisation = _Normalisation.of(preprocessor or {})
    if backbone:
        return _backbone(model.backbone, normalisation)
    test_cfg = cfg.model.get("test_cfg") or {}
    if test_cfg.get("mode") == "slide":
        print_log(
            "test_cfg.mode is 'slide': the exported network predicts one window "
            f"(crop_size {test_cfg.get('crop_size')}); the caller slides it over the "
            "image",
            "current",
        )
    return _segmentor(model, normalisation, dataset_meta)


def _load(model: nn.Module, source: str | None, whole: bool) -> Mapping:
    """Load the weights of ``source`` into ``model``.

    Args:
        model: the model.
        source: a checkpoint, or None to keep the random weights.
        whole: whether to raise an InputError for weights of the backbone alone.

    Returns:
        the ``dataset_meta`` of the checkpoint, empty if it has none.
    """
    if not source:
        print_log("no CHECKPOINT was given: the weights are random", "current")
        return {}
    checkpoint = CheckpointLoader.load_checkpoint(source, map_location="cpu")
    meta: Mapping = {}
    if isinstance(checkpoint, Mapping):
        meta = checkpoint.get("meta") or {}
        checkpoint = checkpoint.get("state_dict", checkpoint)
    if whole:
        checkpoints.require_whole(model, checkpoint)
    load_state_dict(model, checkpoint)
    return meta.get("dataset_meta") or {}


class _Normalisation(NamedTuple):
    """How an image is normalised: mean and std of each channel, and their order."""

    mean: list[float]
    std: list[float]
    order: str

    @classmethod
    def of(cls, preprocessor: Mapping) -> "_Normalisation":
        """The normalisation of a config's ``data_preprocessor``."""
        # The toolboxes read images as BGR; either option swaps the channels.
        swapped = preprocessor.get("bgr_to_rgb") or preprocessor.get("rgb_to_bgr")
        return cls(
            list(preprocessor.get("mean") or [0.0]),
            list(preprocessor.get("std") or [1.0]),
            "RGB" if swapped else "BGR",
        )

    def __str__(self) -> str:
        return f"(image - mean) / std with mean {self.mean}, std {self.std}"


def _backbone(backbone: BaseModule, normalisation: _Normalisation) -> Network:
    """A backbone with ``feature_info``: normalised image -> feature maps."""
    first = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return Network(
        backbone,
        reference=backbone,
        example=lambda *shape: _noise(first.in_channels, *shape),
        outputs=_map_names([info.stride for info in backbone.feature_info]),
        metadata={"image": f"{normalisation.order}, {normalisation}"},
    )


def _map_names(strides: list[int]) -> list[str]:
    """A name for each map: its stride, numbered where maps have the same stride."""
    return [
        f"stride{stride}" + (f"_{before + 1}" if before else "")
        for stride, before in ((s, strides[:i].count(s)) for i, s in enumerate(strides))
    ]


def _segmentor(
    model: BaseModel, normalisation: _Normalisation, dataset_meta: Mapping
) -> Network:
    """A whole segmentor of mmseg: RGB image -> logits."""
    model.data_preprocessor.test_cfg = None  # no padding
    model.auxiliary_head = None  # training alone uses it

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
    """The same normal noise in every call: (batch, channels, height, width)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


class Segmentor(nn.Module):
    """A segmentor of mmseg that normalises the image itself.

    It predicts the whole image at once, as ``test_cfg.mode='whole'`` does, and does
    not pad it, whatever ``data_preprocessor.test_cfg`` says.

    Shapes: (N, 3, H, W), RGB from 0 to 255, to logits (N, classes, H, W).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: BaseModel, normalisation: _Normalisation):
        super().__init__()
        self.model = model
        self.order = normalisation.order
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normalisation, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Normalise the image and return its logits."""
        if self.order == "BGR":
            image = image.flip(1)
        return _logits(self.model, (image - self.mean) / self.std)


def _logits(model: BaseModel, image: Tensor) -> Tensor:
    """The logits of each pixel of a normalised image."""
    size = image.shape[-2:]
    logits = model.encode_decode(image, [dict(img_shape=size)])
    if logits.shape[-2:] == size:
        return logits
    # Some heads leave resizing to the segmentor, which does it sample by sample.
    return F.interpolate(
        logits, size, mode="bilinear", align_corners=model.align_corners
    )


@contextmanager
def traceable(module: nn.Module) -> Iterator[None]:
    """Let ``module`` be traced with dynamic sizes.

    Its adaptive pools are replaced for good; mmseg's ``resize`` during the context.
    """
    replace_pools(module)
    if isinstance(module, Segmentor):
        with without_size_warning():
            yield
    else:
        yield
