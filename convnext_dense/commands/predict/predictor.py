"""A trained model with its data's test pipeline: images in, predictions out."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.structures import BaseDataElement

from convnext_dense import checkpoints
from convnext_dense.config.embedded import embedded_config
from convnext_dense.config.options import image_pipeline, load_config, use_options
from convnext_dense.config.sections import dataset_configs
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError
from convnext_dense.utils.images import too_long

from .decoding import check_image


class OutOfMemory(InputError):
    """The device's memory is too small."""


class Prepared(NamedTuple):
    """An image, ready for the model.

    Attributes:
        image: (H, W, 3) RGB uint8, as it was read.
        data: what the pipeline makes of it: ``inputs`` (C, h, w), ``data_samples``.
    """

    image: np.ndarray
    data: dict


class Predictor:
    """Predicts as tools/test.py does.

    Args:
        config_file: None takes the config that the checkpoint carries.
        checkpoint: whatever ``checkpoints.read`` takes.
        device: such as 'cpu' or 'cuda:1'; None takes a GPU where there is one.
        options: ``--cfg-options``.

    Attributes:
        scope: 'mmdet' or 'mmseg'.
        dataset_meta: ``classes``, and what else the data set says of itself.

    Raises:
        InputError: the config, the checkpoint or the device is not there, or the
            model cannot be built or would have parts without weights.
    """

    def __init__(
        self,
        config_file: str | None,
        checkpoint: str,
        device: str | None = None,
        options: Sequence[str] = (),
    ):
        device = _device(device)
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
        if not isinstance(content, Mapping):
            kind = type(content).__name__
            raise InputError(f"{checkpoint} holds a {kind}, not weights")
        if config_file:
            cfg = load_config(config_file, options)
        else:
            cfg = embedded_config(content, checkpoint)
            use_options(cfg, options)
        self.scope = cfg.get("default_scope")
        model = build_model(cfg, "cpu")
        meta = _trained_on(content) or (_test_data(cfg) if config_file else {})
        self.dataset_meta = _checked(meta, checkpoint)
        checkpoints.require_whole(model, content.get("state_dict", content))
        _load_checkpoint_to_model(model, content)
        self._model = revert_sync_batchnorm(model).to(device).eval()
        loader, *pipeline = image_pipeline(cfg)
        with DefaultScope.overwrite_default_scope(self.scope):
            self._loader = TRANSFORMS.build(loader)
            self._pipeline = Compose(pipeline)

    def read(self, path: Path, number: int) -> Prepared:
        """Read an image file and prepare it.

        Args:
            number: its id in what is predicted.

        Raises:
            InputError: it is damaged or not an image; or whatever the pipeline
                raises at an image that it cannot take.
        """
        check_image(path)
        found = dict(img_path=str(path), img_id=number)
        try:
            found = self._loader(found)
        except (AssertionError, cv2.error) as error:
            raise InputError("it cannot be decoded as an image") from error
        return self._prepare(found)

    def take(self, frame: np.ndarray, path: Path, number: int) -> Prepared:
        """Prepare a frame (H, W, 3) BGR uint8 of the video at ``path``."""
        size = frame.shape[:2]
        image = frame.astype(np.float32) if self._loader.to_float32 else frame
        found = dict(img=image, img_shape=size, ori_shape=size)
        return self._prepare(dict(found, img_path=str(path), img_id=number))

    def _prepare(self, found: dict) -> Prepared:
        image = _rgb(found["img"])
        height, width, _ = image.shape
        if trouble := too_long(width, height):
            raise InputError(trouble)
        with DefaultScope.overwrite_default_scope(self.scope):
            return Prepared(image, self._pipeline(found))

    @torch.no_grad()
    def __call__(self, batch: Sequence[Prepared]) -> list[BaseDataElement]:
        """The toolbox's data samples, on the CPU; inputs must be of one shape.

        Raises:
            OutOfMemory: of the device; or whatever the model raises at an image
                that it cannot take.
        """
        data = {
            key: [prepared.data[key] for prepared in batch]
            for key in ("inputs", "data_samples")
        }
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return [sample.cpu() for sample in self._model.test_step(data)]
        except torch.cuda.OutOfMemoryError as error:
            many = f"{len(batch)} images at once: lower --batch"
            raise OutOfMemory(
                "the device's memory is too small for "
                + (many if len(batch) > 1 else "it")
            ) from error


def _device(name: str | None) -> torch.device:
    name = name or get_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except Exception as error:  # AssertionError without CUDA, RuntimeError with it
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--device {name} cannot be used: {reason}. Here works {get_device()}"
        ) from error
    return device


def _trained_on(content: Mapping) -> dict:
    """What a checkpoint says of the data that it was trained on."""
    meta = content.get("meta")
    found = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    return {k.lower(): v for k, v in found.items()} if found else {}


def _test_data(cfg: Config) -> dict:
    """What the test data set of a config says of itself, without its files."""
    for dataset in dataset_configs(cfg.get("test_dataloader")):
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            kind = registry.get(dataset["type"])
        given = BaseDataset._load_metainfo(dataset.get("metainfo"))
        found = {**getattr(kind, "METAINFO", {}), **given}
        if found.get("classes"):
            default = inspect.signature(kind).parameters.get("reduce_zero_label")
            reduced = dataset.get("reduce_zero_label", default and default.default)
            return {"reduce_zero_label": reduced, **found}
    return {}


def _checked(dataset_meta: dict, checkpoint: str) -> dict:
    classes = dataset_meta.get("classes")
    if not isinstance(classes, list | tuple) or not classes:
        raise InputError(
            f"{checkpoint} does not say what its classes are called: name a config "
            "before it whose test_dataloader.dataset.metainfo.classes does"
        )
    palette = dataset_meta.get("palette")
    if not isinstance(palette, list | tuple) or len(palette) < len(classes):
        palette = None  # such as 'random'
    return {**dataset_meta, "classes": tuple(map(str, classes)), "palette": palette}


def _rgb(image: np.ndarray) -> np.ndarray:
    """What a loader makes of a file, as a picture to draw on: (H, W, 3) uint8."""
    if image.dtype == np.uint16:
        image = image >> 8
    image = np.atleast_3d(image).astype(np.uint8)
    if image.shape[2] < 3:
        image = image[..., :1].repeat(3, 2)
    return np.ascontiguousarray(image[..., 2::-1])
