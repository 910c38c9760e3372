"""Masks of a large image as COCO's run lengths, and windows of them as pixels."""

from collections.abc import Iterator, Sequence

import numpy as np
from pycocotools import mask as mask_api

from convnext_dense.utils.masks import decompress

from .grid import Tile


class RunLengthMasks:
    """The masks of an image's instances, each as COCO's compressed RLE.

    100 masks of 8000 x 6000 pixels are 4.8 GB as arrays. ``pred_instances.masks`` can
    be this: it is indexed as InstanceData indexes its fields, and mmdet's metrics take
    the RLE of each instance by its number.

    Args:
        rles: dicts with ``size`` (height, width) and ``counts`` (bytes).
    """

    def __init__(self, rles: Sequence[dict]):
        self._rles = list(rles)

    def __len__(self) -> int:
        return len(self._rles)

    def __getitem__(self, item: int | slice) -> "dict | RunLengthMasks":
        """The RLE of an instance, or the masks of several."""
        if isinstance(item, slice):
            return RunLengthMasks(self._rles[item])
        return self._rles[item]

    @staticmethod
    def cat(masks: Sequence["RunLengthMasks"]) -> "RunLengthMasks":
        """Join the masks of several lists, as InstanceData asks for."""
        return RunLengthMasks([rle for some in masks for rle in some._rles])

    def numpy(self) -> Iterator[np.ndarray]:
        """Yield each mask, (H, W) uint8: mmdet's DumpDetResults encodes them again."""
        return map(mask_api.decode, self._rles)

    def astype(self, dtype: type) -> np.ndarray:
        """All masks, (N, H, W): mmdet's visualizer asks for them."""
        return np.stack([mask.astype(dtype) for mask in self.numpy()])

    def window(self, window: Tile) -> np.ndarray:
        """What a window of the image shows of each mask: (N, height, width) bool."""
        views = [_window(rle, window) for rle in self._rles]
        return np.reshape(views, (-1, window.height, window.width)).astype(bool)


def encode(mask: np.ndarray, tile: Tile, width: int, height: int) -> dict:
    """The RLE, for a whole image, of a mask that a tile has.

    Args:
        mask: (tile.height, tile.width) bool.
        width, height: of the image.
    """
    # RLE goes down the columns. A row of zeros ends the run at the bottom of each.
    columns = np.zeros((mask.shape[1], mask.shape[0] + 1), np.int8)
    columns[:, :-1] = mask.T
    change = np.diff(columns, prepend=np.int8(0), axis=1)
    column, begin = np.nonzero(change == 1)
    end = np.nonzero(change == -1)[1]  # in the same order, column by column
    first = (column + tile.left) * height + tile.top
    begin, end = begin + first, end + first
    if len(begin):  # a run that ends where the next column begins is one run with it
        apart = begin[1:] != end[:-1]
        begin = begin[np.concatenate(([True], apart))]
        end = end[np.concatenate((apart, [True]))]
    changes = np.stack((begin, end), 1).reshape(-1)
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    if not counts[-1]:  # pycocotools writes no empty run at the end
        del counts[-1]
    return mask_api.frPyObjects(
        dict(size=[height, width], counts=counts), height, width
    )


def _window(rle: dict, window: Tile) -> np.ndarray:
    """What a window shows of one mask: (height, width) bool.

    Only the columns of the window are decoded.
    """
    height, width = rle["size"]
    runs = decompress(rle["counts"].decode(), height * width)
    assert runs is not None  # ``encode`` or pycocotools wrote it
    ends = runs.cumsum()
    begin, end = ends[:-1:2], ends[1::2]  # of the runs of ones
    first, last = window.left * height, window.right * height
    inside = (end > first) & (begin < last)
    change = np.zeros(last - first + 1, np.int8)
    change[begin[inside].clip(first) - first] = 1
    change[end[inside].clip(max=last) - first] -= 1
    columns = change[:-1].cumsum(dtype=np.int8).reshape(window.width, height)
    return columns[:, window.top : window.bottom].T > 0
