"""Predicts images in Python, as the command ``convnext-dense predict`` does.

``convnext_dense.load`` is this module's ``load``.
"""

import functools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
import PIL.Image
import PIL.ImageOps
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from convnext_dense.commands.predict.predict_files import batches
from convnext_dense.commands.predict.predictor import Predictor, Prepared
from convnext_dense.commands.predict.recognition import Media, recognize
from convnext_dense.commands.predict.results import check_labels
from convnext_dense.config import shipped
from convnext_dense.config.options import load_config
from convnext_dense.config.trained import checkpoint_of
from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import Drawer, palette
from convnext_dense.utils.image_values import check_range
from convnext_dense.utils.text import reason

if TYPE_CHECKING:
    import supervision

Image: TypeAlias = str | os.PathLike | np.ndarray | PIL.Image.Image
WHAT = "a path, an array (H, W, 3) uint8 in BGR, or a PIL image"
# The default scope of mmengine's registries belongs to the process, and matplotlib
# draws one picture at a time.
_ONE_THREAD = threading.RLock()


def load(
    source: str | os.PathLike,
    device: str | None = None,
    config: str | os.PathLike | None = None,
) -> "ImagePredictor":
    """Load a trained detector or segmentor, ready to predict.

    Args:
        source: the checkpoint of a training run, which contains its config; or the
            run's work dir, of which the best or else the newest checkpoint is taken;
            or a config, by path or name, whose ``load_from`` names a checkpoint.
        device: such as 'cpu' or 'cuda:1'; None takes a GPU if there is one.
        config: the config of a checkpoint that contains none.

    Raises:
        InputError: the files do not exist, do not fit each other, or have no weights;
            or the device cannot be used.

    Example::

        import convnext_dense

        predictor = convnext_dense.load("work_dirs/run/epoch_36.pth")
        sample = predictor("photo.jpg")
        sample.pred_instances.bboxes  # of a detector
        predictor.draw("photo.jpg", sample).save("drawn.png")
    """
    source = os.fspath(source)
    if config is None and shipped.is_config(source):
        config, source = source, _weights_of(source)
    config = None if config is None else os.fspath(config)
    with _ONE_THREAD:
        return ImagePredictor(Predictor(config, checkpoint_of(source), device))


def _weights_of(config: str) -> str:
    """The checkpoint that a config's ``load_from`` names.

    Raises:
        InputError: it names none: the model would be random.
    """
    weights = load_config(config).get("load_from")
    if not weights:
        raise InputError(
            f"{config} is a config without weights: its load_from names no checkpoint. "
            f"Give both: load(CHECKPOINT, config={config!r})"
        )
    return str(weights)


class _Item(NamedTuple):
    """An image of a list, ready for the model."""

    number: int
    prepared: Prepared


class ImagePredictor:
    """Predicts images with a trained detector or segmentor.

    An image is

    - a path; files are read, checked and turned upright as ``convnext-dense predict``
      does it;
    - an array, (H, W, 3) uint8 in BGR, as ``cv2.imread`` returns it and as the
      toolboxes' own inferencers take it, or (H, W) uint8 in grey. Of an RGB array,
      give ``array[..., ::-1]``;
    - a PIL image of any mode, which knows its colours. It is turned upright by its
      EXIF data; transparency is left out, and 16 bits become 8, as in files.

    Several threads can use it. Their calls wait for each other.

    Attributes:
        classes: the names of the classes.
        palette: an RGB colour for each class.
        scope: 'mmdet' for a detector, 'mmseg' for a segmentor.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        meta = predictor.dataset_meta
        self.classes: tuple[str, ...] = meta["classes"]
        self.palette = meta["palette"] or palette(self.classes)
        self.scope = predictor.scope

    @overload
    def __call__(self, images: Image, batch: int = ...) -> BaseDataElement: ...

    @overload
    def __call__(
        self, images: Sequence[Image], batch: int = ...
    ) -> list[BaseDataElement]: ...

    def __call__(self, images, batch=1):
        """Predict an image or a list of images.

        Args:
            images: an image, or a list or tuple of them.
            batch: how many images of one size the model predicts at once. The results
                do not depend on it.

        Returns:
            mmdet's ``DetDataSample`` or mmseg's ``SegDataSample``, on the CPU, for one
            image; a list of them for a list.

        Raises:
            InputError: an image cannot be read or is not what is described above;
                ``batch`` is no number from 1 on; or the checkpoint names fewer classes
                than the model has.
        """
        if not isinstance(batch, int) or batch < 1:
            raise InputError(f"batch={batch!r}: give a number of images, at least 1")
        with _ONE_THREAD:
            return self._predicted(images, batch)

    def _predicted(self, images, batch):
        is_list = isinstance(images, list | tuple)
        samples = {}
        items = self._items(images if is_list else [images], is_list)
        for group in batches(items, batch):
            predicted = self._samples([item.prepared for item in group])
            samples.update(zip([item.number for item in group], predicted, strict=True))
        return [samples[i] for i in range(len(samples))] if is_list else samples[0]

    def _samples(self, group: Sequence[Prepared]) -> list[BaseDataElement]:
        """Predict images, and check that the labels are those of ``classes``."""
        samples = self._predictor(group)
        for sample in samples:
            if "pred_sem_seg" in sample:
                check_labels(sample.pred_sem_seg.data.numpy(), len(self.classes))
            elif "pred_instances" in sample:
                check_labels(sample.pred_instances.labels.numpy(), len(self.classes))
        return samples

    def _items(self, images: Sequence[Image], is_list: bool) -> Iterator[_Item]:
        for number, image in enumerate(images):
            try:
                prepared = self._prepared(image)
            except InputError as error:
                place = f"image {number + 1} of {len(images)}: " if is_list else ""
                raise InputError(f"{place}{error}") from error
            yield _Item(number, prepared)

    def _prepared(self, image: Image) -> Prepared:
        """Read an image and run the test pipeline."""
        if isinstance(image, PIL.Image.Image):
            return self._predictor.take(_from_pillow(image), Path(), 0)
        if isinstance(image, np.ndarray):
            return self._predictor.take(_from_array(image), Path(), 0)
        if not isinstance(image, str | os.PathLike):
            raise InputError(
                f"a {type(image).__name__} is not an image: give {WHAT}, or a list of "
                "these"
            )
        path = Path(image)
        if recognize(path) in (Media.VIDEO, Media.ANIMATION):
            raise InputError(
                f"{path} is a video: give its frames, as cv2.VideoCapture reads them, "
                "or run convnext-dense predict"
            )
        try:
            prepared, note = self._predictor.read(path, 0)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if note:
            print_log(f"note: {path.name}: {note}", "current")
        return prepared

    def draw(
        self,
        image: Image,
        sample: BaseDataElement | None = None,
        score_thr: float = 0.3,
    ) -> PIL.Image.Image:
        """Draw a prediction into an image.

        Args:
            image: the image that was predicted.
            sample: its prediction; None predicts it.
            score_thr: boxes and masks with a lower score are left out.

        Raises:
            InputError: as ``__call__``; or the sample is not a prediction of this model
                for an image of this size.
        """
        _check_threshold(score_thr)
        with _ONE_THREAD:
            prepared = self._prepared(image)
            if sample is None:
                (sample,) = self._samples([prepared])
            self._check_sample(sample, prepared.image)
            drawn = self._drawer.prediction(prepared.image, sample, score_thr)
        return PIL.Image.fromarray(drawn)

    def _check_sample(self, sample: object, image: np.ndarray) -> None:
        """Raise an InputError if a sample is not a prediction of this image."""
        fields = {
            "mmdet": ("pred_instances", "pred_panoptic_seg"),
            "mmseg": ("pred_sem_seg",),
        }[self.scope]
        if not isinstance(sample, BaseDataElement) or not any(
            field in sample for field in fields
        ):
            raise InputError(
                f"sample is {type(sample).__name__} without {' or '.join(fields)}: "
                "give the prediction of one image by this model"
            )
        height, width = image.shape[:2]
        size = tuple(sample.get("ori_shape", (height, width))[:2])
        if size != (height, width):
            raise InputError(
                f"the image has {width} x {height} pixels, and the sample is of an "
                f"image of {size[1]} x {size[0]}: give the image that was predicted"
            )

    @functools.cached_property
    def _drawer(self) -> Drawer:
        return Drawer(self.scope, dict(classes=self.classes, palette=self.palette))

    @overload
    def detections(
        self, images: Image, score_thr: float = ...
    ) -> "supervision.Detections": ...

    @overload
    def detections(
        self, images: Sequence[Image], score_thr: float = ...
    ) -> "list[supervision.Detections]": ...

    def detections(self, images, score_thr=0.3):
        """Predict and return ``supervision.Detections``, for that library's tools.

        Args:
            images: an image, or a list or tuple of them.
            score_thr: boxes with a lower score are left out.

        Returns:
            ``Detections`` with boxes, masks if the model predicts some, scores, class
            ids and ``data["class_name"]``. A segmentor gives a mask for each class in
            the image, without scores. A list of ``Detections`` for a list.

        Raises:
            InputError: as ``__call__``; or supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            if error.name != "supervision":
                raise
            raise InputError(
                "detections() needs the package supervision: pip install supervision"
            ) from error
        _check_threshold(score_thr)
        samples = self(images)
        if isinstance(samples, list):
            return [self._detections(supervision, s, score_thr) for s in samples]
        return self._detections(supervision, samples, score_thr)

    def _detections(
        self, sv: Any, sample: BaseDataElement, score_thr: float
    ) -> "supervision.Detections":
        """The ``supervision.Detections`` of a sample."""
        if "pred_sem_seg" in sample:
            labels = sample.pred_sem_seg.data.squeeze(0).numpy()
            ids = np.unique(labels)
            masks = labels == ids[:, None, None]
            boxes = sv.mask_to_xyxy(masks)
            detections = sv.Detections(xyxy=boxes, mask=masks, class_id=ids)
        else:
            detections = sv.Detections.from_mmdetection(sample)
            detections = detections[detections.confidence >= score_thr]
        names = [self.classes[index] for index in detections.class_id]
        detections.data["class_name"] = np.array(names, dtype=str)
        return detections


def _check_threshold(score_thr: float) -> None:
    """Raise an InputError if a threshold is no number from 0 to 1."""
    if not isinstance(score_thr, int | float) or not 0 <= score_thr <= 1:  # nor is nan
        raise InputError(f"score_thr={score_thr!r}: give a number from 0 to 1")


def _from_array(image: np.ndarray) -> np.ndarray:
    """An array of a user as (H, W, 3) BGR uint8.

    Raises:
        InputError: it has another type or shape.
    """
    image = np.asarray(image)  # no numpy.matrix, which has two dimensions for ever
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    shape = f"{image.dtype} of shape {image.shape}"
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        advice = ""
        if image.ndim == 4:
            advice = ". Give several images as a list: list(images)"
        elif image.ndim == 3 and image.shape[2] == 4:
            advice = ". Leave out the fourth channel: image[..., :3]"
        elif image.ndim == 3 and image.shape[0] == 3:
            advice = ". Move the channels to the end: image.transpose(1, 2, 0)"
        raise InputError(f"an image is an array (H, W, 3) in BGR, not {shape}{advice}")
    if image.dtype != np.uint8:
        raise InputError(
            f"an image is an array of uint8, from 0 to 255, not {shape}. Scale the "
            "values, and convert them with .astype('uint8')"
        )
    return np.ascontiguousarray(image)


def _from_pillow(image: PIL.Image.Image) -> np.ndarray:
    """A PIL image as (H, W, 3) BGR uint8, with the values that its file would give.

    Raises:
        InputError: it cannot be loaded, is empty, or has floats or 32 bits.
    """
    try:
        image = PIL.ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's readers raise errors of many types
        raise InputError(f"the image is damaged: {reason(error)}") from error
    if not all(image.size):
        raise InputError(f"the image is empty: {image.size[0]} x {image.size[1]}")
    if image.mode.startswith("I"):  # integers of 16 or 32 bits
        if image.mode != "I;16":  # Pillow finds no extrema of I;16B and I;16L
            image = image.convert("I")
        pixels = np.asarray(image)
        if not 0 <= pixels.min() <= pixels.max() < 2**16:
            raise InputError("the image has integers of 32 bits: convert it to 8 bits")
        try:
            check_range(b"", image)
        except InputError as error:
            print_log(f"note: {error}", "current")
        return _from_array((pixels >> 8).astype(np.uint8))
    if image.mode == "F":
        raise InputError(
            "the image has floats: scale them to 0 to 255, and convert it to mode 'L'"
        )
    if image.mode == "La":  # Pillow has no way from here to RGB
        image = image.convert("LA")
    try:
        image = image.convert("RGB")
    except ValueError as error:
        raise InputError(
            f"Pillow cannot convert the image's mode {image.mode} to RGB"
        ) from error
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])
