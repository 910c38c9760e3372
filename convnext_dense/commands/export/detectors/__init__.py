"""Whole detectors as networks that can be traced.

mmdet's own ``predict`` branches on values of tensors, which cannot be traced. The
networks here compute the same from the model's own modules and settings.
"""

from torch import nn

from convnext_dense.errors import InputError

from .dense import RetinaNet, RTMDet
from .detector import Detector
from .mask_queries import Mask2Former
from .queries import DETR, DeformableDETR
from .two_stage import BoxHead, CascadeRCNN, MaskHead

__all__ = ["BoxHead", "CascadeRCNN", "Detector", "MaskHead", "network"]

# The network of each detector class of mmdet.
NETWORKS: dict[str, type[Detector]] = {
    "CascadeRCNN": CascadeRCNN,
    "ConditionalDETR": DETR,
    "DABDETR": DETR,
    "DETR": DETR,
    "DINO": DeformableDETR,
    "DeformableDETR": DeformableDETR,
    "FasterRCNN": CascadeRCNN,
    "Mask2Former": Mask2Former,
    "MaskRCNN": CascadeRCNN,
    "RTMDet": RTMDet,
    "RetinaNet": RetinaNet,
}


def network(model: nn.Module) -> Detector:
    """The network of a detector of mmdet.

    Raises:
        InputError: there is none for this class, or for settings of this model.
    """
    name = type(model).__name__
    if name not in NETWORKS:
        raise InputError(
            f"a whole {name} cannot be exported, only segmentors and "
            f"{', '.join(NETWORKS)} can; --backbone exports its backbone"
        )
    return NETWORKS[name](model)
