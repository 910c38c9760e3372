"""Made images with annotations of the kind that a model trains on."""

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

# Left, top, right and bottom of each object, relative to the image. The last one is
# ignored in training.
BOXES = ((0.1, 0.1, 0.5, 0.6), (0.4, 0.3, 0.9, 0.9), (0.6, 0.05, 0.85, 0.3))
IGNORED_BOX = (0.05, 0.7, 0.3, 0.95)
TEXTS = ("cat", "dog", "bird")


def detection(
    size: int, num_images: int, num_classes: int, classes_of_maps: tuple[int, int]
) -> dict:
    """Images with boxes, masks, a semantic map, proposals and a text prompt.

    Args:
        size: height and width of the images in pixels.
        num_images: N.
        num_classes: labels are below it.
        classes_of_maps: the first class and the number of classes that areas without
            an object have in the semantic map.

    Returns:
        ``inputs``, N images (3, size, size) in uint8, and ``data_samples``.
    """
    from mmdet.structures import DetDataSample

    samples = []
    for index in range(num_images):
        sample = DetDataSample(metainfo=_metainfo(size, index))
        sample.set_metainfo(dict(text=TEXTS[:num_classes], custom_entities=True))
        labels = torch.arange(index, index + len(BOXES)) % num_classes
        sample.gt_instances = _instances(BOXES, labels, size)
        sample.ignored_instances = _instances([IGNORED_BOX], labels[:1], size)
        sample.gt_sem_seg = PixelData(
            sem_seg=_semantic_map(sample.gt_instances, size, *classes_of_maps)
        )
        sample.proposals = _proposals(size)
        samples.append(sample)
    return dict(inputs=_images(size, num_images), data_samples=samples)


def semi_supervised(size: int, num_images: int, num_classes: int) -> dict:
    """Images with labels, and images without in a weak and a strong augmentation.

    Returns:
        ``inputs`` and ``data_samples``, each a dict with a list for each branch.
    """
    branches = {}
    for name in ("sup", "unsup_teacher", "unsup_student"):
        branches[name] = detection(size, num_images, num_classes, (0, 1))
        for sample in branches[name]["data_samples"]:
            sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    return {
        key: {name: batch[key] for name, batch in branches.items()}
        for key in ("inputs", "data_samples")
    }


def segmentation(size: int, num_images: int, num_classes: int) -> dict:
    """Images with a label map, the edges in it, and a depth map.

    Returns:
        ``inputs``, N images (3, size, size) in uint8, and ``data_samples``.
    """
    from mmseg.structures import SegDataSample

    samples = []
    for index in range(num_images):
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        label_map = ((x * 3 // size) + 3 * (y * 3 // size) + index) % num_classes
        label_map[:2] = 255
        edges = torch.zeros_like(label_map)
        edges[:, 1:] |= label_map[:, 1:] != label_map[:, :-1]
        edges[1:] |= label_map[1:] != label_map[:-1]
        sample = SegDataSample(metainfo=_metainfo(size, index))
        sample.gt_sem_seg = PixelData(data=label_map[None])
        sample.gt_edge_map = PixelData(data=edges[None])
        sample.gt_depth_map = PixelData(data=(1.0 + x / size)[None])
        samples.append(sample)
    return dict(inputs=_images(size, num_images), data_samples=samples)


def lines(size: tuple[int, int], num_images: int) -> dict:
    """Road images with two lines each, as CLRNet's own transform encodes them.

    Args:
        size: height and width in pixels.
        num_images: N.
    """
    from mmdet.registry import TRANSFORMS

    height, width = size
    encode = TRANSFORMS.build(
        dict(type="LinesToArray", img_height=height, img_width=width)
    )
    points = [
        [(width * (0.3 + slope * (y / height)), y) for y in range(height, 80, -20)]
        for slope in (-0.2, 0.3)
    ]
    samples = []
    for _ in range(num_images):
        encoded = encode(dict(lines=points))
        label_map = torch.zeros(1, height, width, dtype=torch.long)
        sample = BaseDataElement(
            lines_array=encoded["lines_array"],
            line_endpoints=encoded["line_endpoints"],
            lines=points,
            org_lines=points,
            org_height=height,
            org_width=width,
        )
        sample.gt_sem_seg = PixelData(sem_seg=label_map)
        samples.append(sample)
    images = [torch.zeros(3, height, width, dtype=torch.uint8)] * num_images
    return dict(inputs=images, data_samples=samples)


def _images(size: int, num_images: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, size, size)
    return [
        torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        for _ in range(num_images)
    ]


def _metainfo(size: int, index: int) -> dict:
    return dict(
        img_id=index,
        img_path="made.png",
        img_shape=(size, size),
        ori_shape=(size, size),
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        border=np.zeros(4, dtype=np.float32),  # of CenterNet's crops
    )


def _instances(boxes, labels: Tensor, size: int) -> InstanceData:
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    boxes = torch.tensor(boxes) * size
    masks = np.zeros((len(boxes), size, size), dtype=np.uint8)
    for mask, (left, top, right, bottom) in zip(
        masks, boxes.int().tolist(), strict=True
    ):
        mask[top + 2 : bottom - 2, left + 2 : right - 2] = 1
    return InstanceData(
        bboxes=HorizontalBoxes(boxes),
        labels=labels,
        masks=BitmapMasks(masks, size, size),
    )


def _semantic_map(instances: InstanceData, size: int, first: int, count: int) -> Tensor:
    rows = torch.arange(size) * count // size
    semantic_map = (first + rows)[:, None].repeat(1, size)
    for mask, label in zip(instances.masks.masks, instances.labels, strict=True):
        semantic_map[torch.from_numpy(mask).bool()] = label
    return semantic_map[None]


def _proposals(size: int) -> InstanceData:
    shifts = torch.linspace(-0.08, 0.08, 9)[:, None]
    boxes = torch.cat([(torch.tensor(box) + shifts) * size for box in BOXES])
    return InstanceData(
        bboxes=boxes.clamp(0, size),
        scores=torch.linspace(0.9, 0.5, len(boxes)),
        labels=torch.zeros(len(boxes), dtype=torch.long),
    )
