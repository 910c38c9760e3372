"""A model that predicts images in tiles, in the place of the model that it wraps."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from convnext_dense.config.options import image_pipeline
from convnext_dense.config.sections import dataset_configs
from convnext_dense.errors import InputError

from .detections import Detections
from .grid import Tile, Tiling
from .label_map import LabelMap
from .segmentors import add_scores

MANY = 500  # tiles; 8000 x 6000 pixels have 80 of 1024, with the default overlap


@MODELS.register_module()
class TiledModel(BaseTTAModel):
    """Predicts each image in tiles, with a detector or segmentor of either toolbox.

    Each tile goes through the test pipeline as an image of its own. An image that one
    tile covers has the prediction that it has without tiles. Memory does not grow with
    the image beyond its pixels, its label map, and ``LabelMap``'s overlap.

    It is a ``BaseTTAModel``, because mmengine loads checkpoints into the ``module`` of
    these.

    Args:
        module: the detector or segmentor, or its config.
        pipeline: the test pipeline between loading and packing, and packing.
        side, overlap: as ``Tiling``.
        batch: how many tiles the model predicts at once.
        scope: of the pipeline, 'mmdet' or 'mmseg'.

    Raises:
        InputError: the model is panoptic.
    """

    def __init__(
        self,
        module: nn.Module | dict,
        pipeline: Sequence[dict],
        side: int,
        overlap: float,
        batch: int,
        scope: str,
    ):
        super().__init__(module)
        _check_model(self.module)
        self._tiling = Tiling(side, overlap)
        self._batch = batch
        self._scope = scope
        self._noted = self._many_noted = False
        with DefaultScope.overwrite_default_scope(scope):
            self._pipeline = Compose(copy.deepcopy(list(pipeline)))

    def merge_preds(self, data_samples_list: Sequence) -> list:
        """Not used: tiles are merged while they come."""
        raise NotImplementedError

    def test_step(self, data: dict) -> list[BaseDataElement]:
        """Predict images.

        Args:
            data: ``inputs``, a list of (C, H, W) tensors as they were loaded, and
                ``data_samples``, which get the predictions.
        """
        for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
            self._predict(image.permute(1, 2, 0).numpy(), sample)
        if self._scope == "mmdet":  # as mmdet's data preprocessor does it
            from mmdet.models.utils.misc import samplelist_boxtype2tensor

            samplelist_boxtype2tensor(data["data_samples"])
        return data["data_samples"]

    def _predict(self, image: np.ndarray, sample: BaseDataElement) -> None:
        """Predict an image (H, W, C) and put the result into its sample."""
        height, width = image.shape[:2]
        tiles = self._tiling.tiles(width, height)
        if len(tiles) == 1:
            (whole,) = self._samples(image, tiles, sample)
            sample.set_data({k: v for k, v in whole.items() if k not in sample})
            return
        self._note_many(len(tiles), width, height)
        detections: Detections | None = None
        label_map: LabelMap | None = None
        for number, of_tile in enumerate(self._samples(image, tiles, sample)):
            if "seg_logits" in of_tile:
                label_map = label_map or LabelMap(tiles, self._decide)
                scores = of_tile.seg_logits.data
                size = tiles[number].height, tiles[number].width
                if scores.shape[1:] != size:  # of a model that bounds its memory
                    scores = F.interpolate(scores[None], size, mode="bilinear")[0]
                label_map.add(tiles[number], scores)
            elif "pred_instances" in of_tile:
                detections = detections or Detections(tiles, width, height)
                detections.add(number, of_tile.pred_instances)
            else:
                raise InputError(
                    f"--tile: {type(self.module).__name__} predicts neither objects "
                    "nor a label map: run without --tile"
                )
        if detections:
            sample.pred_instances = detections.merged()
        if label_map:
            sample.pred_sem_seg = PixelData(data=label_map.labels())

    def _samples(
        self, image: np.ndarray, tiles: Sequence[Tile], sample: BaseDataElement
    ) -> Iterator[BaseDataElement]:
        """Yield the data sample of each tile of an image, with its prediction."""
        for start in range(0, len(tiles), self._batch):
            group = tiles[start : start + self._batch]
            packed = [self._packed(image, tile, sample) for tile in group]
            if start == 0 and len(tiles) > 1:
                self._note_resizing(group[0], packed[0]["data_samples"])
            data = {
                key: [one_tile[key] for one_tile in packed]
                for key in ("inputs", "data_samples")
            }
            samples = None
            if self._scope == "mmseg" and len(tiles) > 1:
                samples = add_scores(self.module, data)
            yield from samples or self.module.test_step(data)

    def _packed(self, image: np.ndarray, tile: Tile, sample: BaseDataElement) -> dict:
        """Run the pipeline on a tile."""
        pixels = image[tile.top : tile.bottom, tile.left : tile.right]
        size = tile.height, tile.width
        inputs = dict(img=np.ascontiguousarray(pixels), img_shape=size, ori_shape=size)
        for key in ("img_path", "img_id"):
            if key in sample:
                inputs[key] = sample.get(key)
        return self._pipeline(inputs)

    def _note_resizing(self, tile: Tile, sample: BaseDataElement) -> None:
        """Say once if the pipeline resizes the tiles."""
        height, width = sample.img_shape[:2]
        if not self._noted and (height, width) != (tile.height, tile.width):
            print_log(
                f"note: the test pipeline resizes tiles of {tile.width} x "
                f"{tile.height} pixels to {width} x {height}: --tile "
                f"{min(width, height)} keeps their pixels",
                "current",
            )
        self._noted = True

    def _note_many(self, number: int, width: int, height: int) -> None:
        """Say once if an image has so many tiles that it takes long."""
        if number > MANY and not self._many_noted:
            print_log(
                f"note: an image of {width} x {height} pixels is predicted in "
                f"{number:,} tiles; a larger --tile or a smaller --overlap takes less "
                "time",
                "current",
            )
            self._many_noted = True

    def _decide(self, scores: Tensor) -> Tensor:
        """Scores (classes, h, w) to labels (1, h, w), as mmseg's postprocess_result."""
        if len(scores) > 1:
            # Twice as fast as argmax on a CPU, and the same.
            return scores.max(0, keepdim=True).indices
        return scores > self.module.decode_head.threshold


def _check_model(model: nn.Module) -> None:
    """Raise an InputError if a model is panoptic."""
    fusion: Any = getattr(model, "panoptic_fusion_head", None)
    if fusion is not None and (fusion.test_cfg or {}).get("panoptic_on", True):
        raise InputError(
            f"--tile: {type(model).__name__} is a panoptic model, and segments of "
            "tiles are not merged: run without --tile"
        )


def tile_pipeline(steps: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """Split what follows loading in a test pipeline into that of images and of tiles.

    Args:
        steps: the pipeline without its loader; annotations are loaded before packing.

    Returns:
        the steps for the image (annotations and packing), and those for each tile.
    """
    of_image = [step for step in steps if _is_annotation(step)] + [steps[-1]]
    of_tile = [step for step in steps if not _is_annotation(step)]
    return of_image, of_tile


def _is_annotation(step: dict) -> bool:
    return "Annotations" in str(step["type"])


def use_tiles(cfg: Config, tiling: Tiling) -> None:
    """Apply ``--tile`` and ``--overlap`` to a config: test its model in tiles.

    Raises:
        InputError: the config's test pipeline does not begin with loading an image.
    """
    _, *steps = image_pipeline(cfg)
    for dataset in dataset_configs(cfg.test_dataloader):
        if "pipeline" in dataset:
            loader, *others = dataset.pipeline
            dataset.pipeline = [loader, *tile_pipeline(others)[0]]
    cfg.model = ConfigDict(
        type=TiledModel.__name__,
        module=cfg.model,
        pipeline=tile_pipeline(steps)[1],
        side=tiling.side,
        overlap=tiling.overlap,
        batch=cfg.test_dataloader.get("batch_size", 1),
        scope=cfg.default_scope,
    )
