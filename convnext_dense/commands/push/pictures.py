"""Draws what a model predicts for images of the validation split."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, DefaultScope

from convnext_dense.checkpoints import run_config
from convnext_dense.reports.drawing import Drawer, shrink
from convnext_dense.utils.images import write_image
from convnext_dense.utils.text import reason

from ..predict.predictor import Predictor

LONGEST_SIDE = 640  # pixels of a picture


def draw(
    predictor: Predictor, config: str, source: str, count: int, folder: Path
) -> list[str]:
    """Predict some images of the validation split and write the pictures.

    If there are no such images on this machine, a line says so.

    Args:
        predictor: of the checkpoint.
        config: the text of the run's config, with the paths of its data.
        source: the checkpoint's name, for messages.
        count: of images, evenly spaced in the split.
        folder: for the pictures.

    Returns:
        the names of the pictures.
    """
    if not count:
        return []
    try:
        images = _images(config, predictor.scope, count)
        return [
            _draw_one(predictor, image, folder / f"{number}.jpg")
            for number, image in enumerate(images, 1)
        ]
    except Exception as error:  # data sets and models can raise anything
        print_log(
            f"the model card has no pictures: the validation images of {source} could "
            f"not be predicted ({reason(error)})",
            "current",
        )
        return []


def _images(config: str, scope: str, count: int) -> list[Path]:
    """The files of ``count`` validation images."""
    settings = run_config.parse(config, dict(val_dataloader=dict))
    dataset = Config(settings).val_dataloader.dataset
    with DefaultScope.overwrite_default_scope(scope):
        data = DATASETS.build(dataset)
    places = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    return [Path(data.get_data_info(int(place))["img_path"]) for place in places]


def _draw_one(predictor: Predictor, image: Path, file: Path) -> str:
    """Write the picture of a prediction; return its name."""
    prepared, _ = predictor.read(image, 1)
    (sample,) = predictor([prepared])
    drawer = Drawer(predictor.scope, predictor.dataset_meta)
    picture = shrink(drawer.prediction(prepared.image, sample), LONGEST_SIDE)
    file.parent.mkdir(exist_ok=True)
    write_image(file, np.ascontiguousarray(picture[..., ::-1]))
    return file.name
