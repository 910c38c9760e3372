"""The networks that can be exported: a backbone, a segmentor or a detector."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import CheckpointLoader, load_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from convnext_dense import checkpoints
from convnext_dense.config.sections import transforms
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError
from convnext_dense.patches.mmseg_resize import without_size_warning

from . import comparison, detectors
from .deformable import replace_deformable
from .norms import replace_norms
from .pooling import replace_pools

# The smallest height and width in pixels. Below it the deepest feature map has a single
# row or column, for which PyTorch would trace a different program.
MIN_SIZE = 64


class Network(NamedTuple):
    """A network to export.

    Attributes:
        module: maps an image (N, channels, H, W) to a tensor or a tuple of tensors.
        reference: computes the same outputs through the toolbox's own code.
        example: makes a random image from its batch size, height and width.
        outputs: names of the tensors that ``module`` returns.
        metadata: notes to write into the exported file, by key.
        batch: whether the network takes several images at a time.
        compare: compares the outputs of the file and of ``reference``.
        min_size: the smallest height and width in pixels.
        reference_like: computes ``reference`` with the file's choices where rounding
            decides, from the image and the file's outputs; None if it decides
            nothing.
    """

    module: nn.Module
    reference: Callable[[Tensor], tuple[Tensor, ...]]
    example: Callable[[int, int, int], Tensor]
    outputs: list[str]
    metadata: dict[str, str]
    batch: bool = True
    compare: Callable[[comparison.Pairs], comparison.Result] = comparison.maps
    min_size: int = MIN_SIZE
    reference_like: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]] | None = None


def build(cfg: Config, backbone: bool) -> Network:
    """Build the network of ``cfg`` and load the weights that ``cfg.load_from`` names.

    Args:
        cfg: config of either toolbox.
        backbone: whether to take the model's backbone alone.

    Raises:
        InputError: the model cannot be built; there is no network for its class or
            settings; or the weights do not fit the model or are incomplete.
    """
    model: BaseModel = build_model(cfg, "cpu").eval().requires_grad_(False)
    if backbone and not hasattr(getattr(model, "backbone", None), "feature_info"):
        raise InputError(
            f"--backbone: {cfg.filename} has none of this package's backbones. Set "
            "model.backbone.type to ConvNeXt"
        )
    preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor")
    normalisation = _Normalisation.of(preprocessor or {})
    segmentor = hasattr(model, "encode_decode")
    if not backbone and not segmentor:
        try:
            detector = detectors.network(model)
        except InputError as error:
            raise InputError(f"{cfg.filename}: {error}") from error
    dataset_meta = _load(model, cfg.load_from, not backbone)
    if backbone:
        return _backbone(model.backbone, normalisation)
    metadata = _whole_metadata(cfg, normalisation, dataset_meta)
    if not segmentor:
        return _detector(detector, normalisation, metadata)
    test_cfg = cfg.model.get("test_cfg") or {}
    if test_cfg.get("mode") == "slide":
        print_log(
            "test_cfg.mode is 'slide': the exported network predicts one window "
            f"(crop_size {test_cfg.get('crop_size')}); the caller slides it over the "
            "image",
            "current",
        )
    return _segmentor(model, normalisation, metadata)


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
        # Otherwise the backbone would warn that its init_cfg was not loaded.
        getattr(model, "backbone", model).init_cfg = None
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
    model: BaseModel, normalisation: _Normalisation, metadata: dict[str, str]
) -> Network:
    """A whole segmentor of mmseg: RGB image -> logits."""
    model.data_preprocessor.test_cfg = None  # no padding
    model.auxiliary_head = None  # training alone uses it

    def reference(image: Tensor) -> tuple[Tensor]:
        data = dict(inputs=list(image.flip(1)))
        image = model.data_preprocessor(data, False)["inputs"]
        return (_logits(model, image),)

    return Network(
        Normalised(Segmentor(model), normalisation),
        reference,
        example=_picture,
        outputs=["logits"],
        metadata=metadata,
    )


def _detector(
    detector: detectors.Detector,
    normalisation: _Normalisation,
    metadata: dict[str, str],
) -> Network:
    """A whole detector of mmdet: RGB image -> boxes, scores, labels and masks."""
    configured = getattr(detector.model.data_preprocessor, "pad_size_divisor", 1)
    if detector.pad_size_divisor != configured:
        print_log(
            f"the exported network pads images to multiples of "
            f"{detector.pad_size_divisor}, which its neck needs; "
            f"data_preprocessor.pad_size_divisor is {configured}",
            "current",
        )
    return Network(
        Normalised(detector, normalisation),
        reference=detector.reference,
        example=_picture,
        outputs=detector.outputs,
        metadata={**metadata, "min_size": str(detector.min_size)},
        batch=False,
        compare=detector.compare,
        min_size=detector.min_size,
        reference_like=detector.reference_like,
    )


def _whole_metadata(
    cfg: Config, normalisation: _Normalisation, dataset_meta: Mapping
) -> dict[str, str]:
    """What the user of a whole model must know: its input, classes and colours."""
    metadata = {
        "image": f"RGB from 0 to 255, float32; normalised inside: {normalisation}",
        "test_pipeline": json.dumps(_test_pipeline(cfg)),
    }
    for key in ("classes", "palette"):
        if dataset_meta.get(key) is not None:
            metadata[key] = json.dumps(np.asarray(dataset_meta[key]).tolist())
    return metadata


def _test_pipeline(cfg: Config) -> dict[str, Any]:
    """How images are resized and padded for a test, from ``test_dataloader``.

    ``scale`` (two numbers) and ``keep_ratio`` are those of ``Resize``; ``pad_size``
    (width and height) and ``pad_value`` (a number or three) those of ``Pad``. Keys of
    transforms that the pipeline does not have are absent.
    """
    steps: dict[str, Any] = {}
    for transform in transforms(cfg.get("test_dataloader")):
        name = str(transform["type"]).rpartition(".")[2]
        if name == "Resize" and transform.get("scale") is not None:
            steps["scale"] = transform["scale"]
            steps["keep_ratio"] = transform.get("keep_ratio", False)
        elif name == "Pad" and transform.get("size") is not None:
            value = transform.get("pad_val", 0)
            steps["pad_size"] = transform["size"]
            steps["pad_value"] = value["img"] if isinstance(value, Mapping) else value
    return steps


def _picture(*shape: int) -> Tensor:
    """A random image of ``shape`` (N, H, W): (N, 3, H, W), RGB around 127."""
    return 127.5 + 50 * _noise(3, *shape)


def _noise(channels: int, batch: int, height: int, width: int) -> Tensor:
    """The same normal noise in every call: (batch, channels, height, width)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


class Normalised(nn.Module):
    """A network that normalises the image before it calls ``network``.

    Shapes: (N, 3, H, W), RGB from 0 to 255, to the outputs of ``network``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalisation: _Normalisation):
        super().__init__()
        self.network = network
        self.order = normalisation.order
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normalisation, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Normalise the image and return the outputs of ``network``."""
        if self.order == "BGR":
            image = image.flip(1)
        return self.network((image - self.mean) / self.std)


class Segmentor(nn.Module):
    """A segmentor of mmseg.

    It predicts the whole image at once, as ``test_cfg.mode='whole'`` does, and does
    not pad it, whatever ``data_preprocessor.test_cfg`` says.

    Shapes: a normalised image (N, 3, H, W) to logits (N, classes, H, W).
    """

    def __init__(self, model: BaseModel):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of a normalised image."""
        return _logits(self.model, image)


class _Size(tuple[int, ...]):
    """A height and width that ``SegDataSample`` can copy during a trace."""

    def __deepcopy__(self, memo: dict) -> "_Size":
        return self


def _logits(model: BaseModel, image: Tensor) -> Tensor:
    """The logits of each pixel of a normalised image."""
    size = _Size(image.shape[-2:])
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

    Its adaptive pools, the batch normalisation of regions and what reads sizes from a
    tensor are replaced for good; mmseg's ``resize`` during the context.
    """
    replace_pools(module)
    for head in module.modules():
        if isinstance(head, (detectors.BoxHead, detectors.MaskHead)):
            replace_norms(head)
    replace_deformable(module)
    if isinstance(getattr(module, "network", None), Segmentor):
        with without_size_warning():
            yield
    else:
        yield
