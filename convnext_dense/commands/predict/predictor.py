"""A trained model and its test pipeline: images to predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.structures import BaseDataElement

from convnext_dense.checkpoints.reading import as_dict
from convnext_dense.config.embedded import embedded_config
from convnext_dense.config.options import image_pipeline, load_config, use_options
from convnext_dense.engine import own_config
from convnext_dense.engine.build import build_model
from convnext_dense.engine.tiling.grid import Tiling
from convnext_dense.engine.tiling.model import TiledModel, tile_pipeline
from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import DRAWING
from convnext_dense.utils.image_content import TOO_LITTLE_MEMORY
from convnext_dense.utils.images import too_long

from . import dataset_meta
from .decoding import TILED, check_file


class OutOfMemory(InputError):
    """The device's memory is too small for a batch."""


class Prepared(NamedTuple):
    """An image that is ready for the model.

    Attributes:
        image: (H, W, 3) RGB uint8, before the pipeline, to draw on.
        data: the pipeline's output: ``inputs`` (C, h, w) and ``data_samples``.
    """

    image: np.ndarray
    data: dict


class Predictor:
    """Predicts single images as convnext-dense test predicts those of the test split.

    Args:
        config_file: path of a config; None takes the config inside the checkpoint.
        checkpoint: anything that ``checkpoints.read`` takes.
        device: such as 'cpu' or 'cuda:1'; None takes a GPU if there is one.
        options: ``--cfg-options``.
        tiling: how images are cut into tiles; None predicts them as they are.
        batch: how many tiles the model predicts at once.

    Attributes:
        scope: 'mmdet' or 'mmseg'.
        things: of a panoptic model, how many of the first classes are things, which are
            counted; None for other models.
        dataset_meta: as ``dataset_meta.read``.

    Raises:
        InputError: the config, the checkpoint or the device does not exist, the model
            cannot be built, or the checkpoint lacks weights of it.
    """

    def __init__(
        self,
        config_file: str | None,
        checkpoint: str,
        device: str | None = None,
        options: Sequence[str] = (),
        tiling: Tiling | None = None,
        batch: int = 1,
    ):
        device = _device(device)
        content = as_dict(
            CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu"), checkpoint
        )
        if config_file:
            cfg = load_config(config_file, options)
        else:
            cfg = embedded_config(content, checkpoint)
            use_options(cfg, options)
        self.scope = cfg.get("default_scope")
        model = build_model(cfg, "cpu")
        self.dataset_meta = dataset_meta.read(
            content, cfg if config_file else None, checkpoint
        )
        own_config.require_whole(model, content, checkpoint, config_file)
        _load_checkpoint_to_model(model, content)
        fusion = getattr(model, "panoptic_fusion_head", None)
        self.things: int | None = fusion and fusion.num_things_classes
        model = revert_sync_batchnorm(model)
        loader, *pipeline = image_pipeline(cfg)
        self._pixel_bytes = TILED if tiling else DRAWING
        if tiling:
            pipeline, of_tile = tile_pipeline(pipeline)
            model = TiledModel(model, of_tile, *tiling, batch, self.scope)
        self._model = model.to(device).eval()
        with DefaultScope.overwrite_default_scope(self.scope):
            self._loader = TRANSFORMS.build(loader)
            self._pipeline = Compose(pipeline)
        self._as_colors = (
            self._loader.imdecode_backend == "cv2"
            and self._loader.color_type.startswith("color")
        )

    def read(self, path: Path, number: int) -> tuple[Prepared, str | None]:
        """Read an image file and prepare it.

        Args:
            path: the file.
            number: the image's id in the results.

        Returns:
            the prepared image, and what of the file was not read, for a note.

        Raises:
            InputError: the file is damaged or not an image.
            Exception: any, from the config's pipeline.
        """
        note = check_file(path, self._as_colors, self._pixel_bytes)
        inputs = dict(img_path=str(path), img_id=number)
        try:
            inputs = self._loader(inputs)
        except (AssertionError, cv2.error) as error:
            if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
                raise InputError(TOO_LITTLE_MEMORY) from error
            raise InputError("it cannot be decoded as an image") from error
        return self._prepare(inputs), note

    def take(self, frame: np.ndarray, path: Path, number: int) -> Prepared:
        """Prepare a frame (H, W, 3) BGR uint8 of the video at ``path``."""
        size = frame.shape[:2]
        image = frame.astype(np.float32) if self._loader.to_float32 else frame
        inputs = dict(img=image, img_shape=size, ori_shape=size)
        return self._prepare(dict(inputs, img_path=str(path), img_id=number))

    def _prepare(self, inputs: dict) -> Prepared:
        """Run the pipeline behind its loader."""
        image = _rgb(inputs["img"])
        height, width, _ = image.shape
        if problem := too_long(width, height):
            raise InputError(problem)
        with DefaultScope.overwrite_default_scope(self.scope):
            return Prepared(image, self._pipeline(inputs))

    @torch.no_grad()
    def __call__(self, batch: Sequence[Prepared]) -> list[BaseDataElement]:
        """Predict a batch of images whose inputs have one shape.

        Returns:
            the toolbox's data sample of each image, on the CPU.

        Raises:
            OutOfMemory: the device's memory is too small.
            Exception: any, from the model.
        """
        data = {
            key: [prepared.data[key] for prepared in batch]
            for key in ("inputs", "data_samples")
        }
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return [sample.cpu() for sample in self._model.test_step(data)]
        except torch.cuda.OutOfMemoryError as error:
            images = f"{len(batch)} images at once: lower --batch"
            raise OutOfMemory(
                "the device's memory is too small for "
                + (images if len(batch) > 1 else "this image")
            ) from error


def _device(name: str | None) -> torch.device:
    """The device of that name, or a GPU if there is one; an InputError if unusable."""
    name = name or get_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except Exception as error:  # AssertionError without CUDA, RuntimeError with it
        first_line = str(error).partition("\n")[0]
        raise InputError(
            f"--device {name} cannot be used: {first_line}. Use --device {get_device()}"
        ) from error
    return device


def _rgb(image: np.ndarray) -> np.ndarray:
    """Turn a loader's BGR image into one to draw on: (H, W, 3) RGB uint8."""
    if image.dtype == np.uint16:
        image = image >> 8
    image = np.atleast_3d(image).astype(np.uint8)
    if image.shape[2] < 3:
        image = image[..., :1].repeat(3, 2)
    return np.ascontiguousarray(image[..., 2::-1])
