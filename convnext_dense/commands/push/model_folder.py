"""Writes the files of a repository: weights, config, model card and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from convnext_dense.checkpoints import writing
from convnext_dense.checkpoints.reading import as_dict, read
from convnext_dense.errors import InputError
from convnext_dense.reports.run import curves
from convnext_dense.utils import files

from ..predict.predictor import Predictor
from . import card, pictures
from .portable import portable

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.py", "README.md"
FILES = (WEIGHTS, CONFIG, CARD)
PICTURES = "pictures"


class Contents(NamedTuple):
    """What a repository is made of.

    Attributes:
        work_dir: folder of the run.
        checkpoint: anything that ``checkpoints.read`` takes.
        repository: 'OWNER/NAME'.
        revision: the branch; None is 'main'.
        license_id: of the weights, or None.
        pictures: the number of validation images to draw.
    """

    work_dir: Path
    checkpoint: str
    repository: str
    revision: str | None
    license_id: str | None
    pictures: int


def write(contents: Contents, folder: Path) -> None:
    """Write the files into ``folder``.

    The pictures are predicted with the written file alone, as its users will.

    Raises:
        InputError: the checkpoint cannot be read, has no config or classes, or its
            config cannot be given away or used without the checkpoint's training run.
    """
    source = contents.checkpoint
    content = as_dict(read(source), source)
    meta = content.get("meta")
    if not isinstance(meta, Mapping) or not isinstance(meta.get("cfg"), str):
        raise InputError(
            f"{source} contains no config, which a model on the hub needs: push the "
            "checkpoint of a training run"
        )
    cfg = portable(meta["cfg"], source)
    folder.mkdir(parents=True, exist_ok=True)
    public = dict(cfg=cfg.pretty_text, dataset_meta=meta.get("dataset_meta"))
    writing.write(content["state_dict"], folder / WEIGHTS, public)
    predictor = Predictor(None, str(folder / WEIGHTS), "cpu")
    drawn = pictures.draw(
        predictor, meta["cfg"], source, contents.pictures, folder / PICTURES
    )
    metrics = _metrics(contents.work_dir, meta)
    if not metrics:
        print_log(
            f"the model card has no metrics: the logs in {contents.work_dir} have no "
            f"validation of {source}",
            "current",
        )
    facts = card.Facts(
        contents.repository,
        contents.revision,
        contents.license_id,
        cfg,
        meta.get("iter", 0),
        predictor.dataset_meta["classes"],
        metrics,
        [f"{PICTURES}/{name}" for name in drawn],
    )
    _write_text(folder / CONFIG, cfg.pretty_text)
    _write_text(folder / CARD, card.text(facts))


def _write_text(file: Path, text: str) -> None:
    with files.whole(file) as partial:
        partial.write_text(text, encoding="utf-8")


def _metrics(work_dir: Path, meta: Mapping[str, Any]) -> dict[str, float]:
    """What the run's logs say of the validation of a checkpoint.

    Args:
        work_dir: folder of the run.
        meta: of the checkpoint.
    """
    for validation in reversed(curves.read(work_dir).validations):
        # By epochs, the logged iteration is the last one of logger.interval.
        by_epoch = validation.epoch is not None
        when = validation.epoch if by_epoch else validation.iteration
        if when == meta.get("epoch" if by_epoch else "iter"):
            (whole,), _ = curves.without_classes([validation])
            return whole.metrics
    return {}
