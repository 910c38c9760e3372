"""What the networks of all detectors share: their input, padding and outputs."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

from torch import Tensor, nn
from torch.nn import functional as F

from convnext_dense.errors import InputError

from .. import comparison


class Detector(nn.Module):
    """A detector of mmdet that can be traced. Subclasses implement ``detect``.

    Args:
        model: the detector; its settings must be ones that the subclass computes.

    Shapes: a normalised image (1, 3, H, W) to ``boxes`` (K, 4) as x1, y1, x2, y2 in
    pixels of the image, ``scores`` (K,), ``labels`` (K,) as int64 and, if the model
    has masks, ``masks`` (K, H, W) as booleans. The best score comes first.

    Raises:
        InputError: a setting of the model cannot be exported.
    """

    # The smallest height and width of an image in pixels. The deepest map must have
    # two rows and columns: for a single one PyTorch traces a different program,
    # without a message.
    min_size = 64
    # The smallest multiple that the image's sides must be padded to.
    divisor: ClassVar[int] = 1
    model: Any

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.pad_size_divisor = max(
            self.divisor, getattr(model.data_preprocessor, "pad_size_divisor", 1)
        )
        self.pad_value = getattr(model.data_preprocessor, "pad_value", 0)

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        masks = ["masks"] if getattr(self.model, "with_mask", False) else []
        return ["boxes", "scores", "labels", *masks]

    compare = staticmethod(comparison.detections)
    # Rounding decides nothing in most detectors.
    reference_like: Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, ...]] | None = (
        None
    )

    def reference(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs for an RGB image (1, 3, H, W) by the model's ``test_step``."""
        from mmdet.structures import DetDataSample

        size = tuple(image.shape[-2:])
        meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=meta)
        preprocessor = self.model.data_preprocessor
        preprocessor.pad_size_divisor = self.pad_size_divisor
        data = dict(inputs=[image[0].flip(0)], data_samples=[sample])
        return self.collect(self.model.test_step(data)[0])

    def collect(self, sample: Any) -> tuple[Tensor, ...]:
        """The outputs, from a sample with mmdet's predictions."""
        instances = sample.pred_instances
        names = dict(boxes="bboxes")  # mmdet's names, where they differ
        return tuple(instances[names.get(name, name)] for name in self.outputs)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Pad the image as mmdet's preprocessor does, and detect objects."""
        height, width = image.shape[-2:]
        bottom = self._round_up(height) - height
        right = self._round_up(width) - width
        padded = F.pad(image, (0, right, 0, bottom), value=self.pad_value)
        return self.detect(padded, (height, width))

    def _round_up(self, side: int) -> int:
        """The next multiple of ``pad_size_divisor``.

        In this form PyTorch divides the sizes of all later maps without a rest. With
        ``side % divisor`` their formulas grow with each layer, and tracing is slow.
        """
        divisor = self.pad_size_divisor
        return (side + divisor - 1) // divisor * divisor

    def detect(self, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Detect the objects of a padded image (1, 3, H', W') of ``size`` (H, W)."""
        raise NotImplementedError


def require(name: str, value: object, *allowed: object) -> None:
    """Raise an InputError if a setting of a model cannot be exported.

    Args:
        name: where the setting stands in the config.
        value: its value.
        allowed: the values that can be exported.
    """
    if value not in allowed:
        refuse(name, value, " or ".join(map(repr, allowed)))


def require_class(module: object, name: str, *classes: str) -> None:
    """Raise an InputError if ``module`` has none of these classes.

    A subclass may compute something else, so the name must be the same.
    """
    require(f"{name}.type", type(module).__name__, *classes)


def refuse(name: str, value: object, needed: str) -> NoReturn:
    """Raise an InputError: the setting ``name`` is not what can be exported."""
    raise InputError(
        f"{name} is {value!r}, and a whole detector can be exported only with "
        f"{needed}; --backbone exports its backbone"
    )
