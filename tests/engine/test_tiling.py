"""Predicting in tiles equals predicting the whole, where a tile sees enough."""

import itertools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from pycocotools import mask as mask_api
from torch import nn

from convnext_dense.engine.tiling.detections import Detections
from convnext_dense.engine.tiling.grid import Tile, Tiling, read_flags
from convnext_dense.engine.tiling.label_map import LabelMap
from convnext_dense.engine.tiling.masks import RunLengthMasks, encode
from convnext_dense.engine.tiling.model import TiledModel
from convnext_dense.engine.tiling.segmentors import add_scores
from convnext_dense.errors import InputError

from ..helpers.mmengine_state import logged


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (33, 32), (32, 64), (7, 5)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.99])
def test_tiles_cover_the_image_and_overlap(size, overlap):
    width, height = size
    tiles = Tiling(32, overlap).tiles(width, height)
    covered = np.zeros((height, width), int)
    for tile in tiles:
        assert (tile.width, tile.height) == (min(32, width), min(32, height))
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert covered.shape == (height, width)  # no tile reaches over the edge
    assert covered.min() == 1
    for axis, length in (0, width), (1, height):
        starts = sorted({tile[axis] for tile in tiles})
        assert starts[-1] + min(32, length) == length
        for first, second in itertools.pairwise(starts):
            assert second - first <= max(1, 32 * (1 - overlap))


def test_flags():
    assert read_flags(None, None) is None
    assert read_flags(1024, None) == Tiling(1024, 0.2)
    assert read_flags(1024, 0.0) == Tiling(1024, 0.0)
    with pytest.raises(InputError, match=r"--tile 31: .* at least 32"):
        read_flags(31, None)
    for values in (64, 1.0), (64, -0.1), (64, float("nan")), (None, 0.5):
        with pytest.raises(InputError, match="--overlap"):
            read_flags(*values)


def test_masks_of_tiles_are_those_of_the_image():
    random = np.random.default_rng(0)
    width, height = 23, 17
    for tile in Tile(3, 5, 13, 11), Tile(0, 0, 23, 17), Tile(10, 0, 23, 17):
        for density in 0.0, 0.5, 1.0:
            mask = random.random((tile.height, tile.width)) < density
            whole = np.zeros((height, width), np.uint8)
            whole[tile.top : tile.bottom, tile.left : tile.right] = mask
            rle = encode(mask, tile, width, height)
            assert rle == mask_api.encode(np.asfortranarray(whole))
            masks = RunLengthMasks([rle, rle])
            for window in Tile(4, 2, 9, 15), Tile(0, 0, 23, 17), Tile(22, 16, 23, 17):
                view = whole[window.top : window.bottom, window.left : window.right]
                np.testing.assert_array_equal(masks.window(window), [view, view])
            assert masks[0] == rle
            assert masks.astype(bool).sum() == 2 * mask.sum()


def test_scores_are_averaged_and_not_held():
    width, height = 200, 60
    tiles = Tiling(32, 0.4).tiles(width, height)
    total, count = torch.zeros(3, height, width), torch.zeros(height, width)
    label_map = LabelMap(tiles, lambda scores: scores.argmax(0, keepdim=True))
    most = 0
    for tile in tiles:
        scores = torch.randn(3, tile.height, tile.width)
        total[:, tile.top : tile.bottom, tile.left : tile.right] += scores
        count[tile.top : tile.bottom, tile.left : tile.right] += 1
        label_map.add(tile, scores.clone())
        most = max(most, sum(held.numel() for held in label_map._scores.values()))
    assert count.max() >= 4
    expected = (total / count).argmax(0, keepdim=True)
    torch.testing.assert_close(label_map.labels().long(), expected)
    assert most < total.numel() / 4  # an overlap along the shorter side, and a tile


def instances(boxes, scores=None, labels=None):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores or [0.5] * len(boxes)),
        labels=torch.tensor(labels or [0] * len(boxes)),
    )


TWO = [Tile(0, 0, 100, 100), Tile(80, 0, 180, 100)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # The object is whole in the first tile, and its piece has the better score.
        (
            instances([[50, 10, 95, 60]], [0.6]),
            instances([[0, 10, 18, 60]], [0.9]),
            [[50, 10, 95, 60]],
        ),
        # Both tiles cut it.
        (
            instances([[40, 10, 100, 60]], [0.6]),
            instances([[0, 11, 50, 60]], [0.9]),
            [[40, 10, 130, 60]],
        ),
        # Both tiles see the whole: the better score stays.
        (
            instances([[83, 10, 97, 60]], [0.6]),
            instances([[4, 11, 17, 60]], [0.9]),
            [[84, 11, 97, 60]],
        ),
        # A small object on a large one, another class, and two boxes in one tile.
        (
            instances([[10, 10, 95, 90]]),
            instances([[4, 30, 12, 40]]),
            [[10, 10, 95, 90], [84, 30, 92, 40]],
        ),
        (
            instances([[50, 10, 95, 60]]),
            instances([[0, 10, 15, 60]], labels=[1]),
            [[50, 10, 95, 60], [80, 10, 95, 60]],
        ),
        (
            instances([[50, 10, 70, 60], [50, 10, 71, 60]]),
            instances([]),
            [[50, 10, 70, 60], [50, 10, 71, 60]],
        ),
    ],
)
def test_boxes_of_two_tiles(first, second, expected):
    detections = Detections(TWO, 180, 100)
    detections.add(0, first)
    detections.add(1, second)
    merged = detections.merged()
    assert sorted(merged.bboxes.tolist()) == expected
    assert merged.scores.tolist() == sorted(merged.scores.tolist(), reverse=True)


PACK_SEG = [dict(type="PackSegInputs")]
PACK_DET = [dict(type="PackDetInputs")]
CLASSES = 5


class SmallField(nn.Module):
    """A segmentor whose scores depend on 5 x 5 pixels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, CLASSES, 3, padding=1),
        )
        self.sizes = set()

    @torch.no_grad()
    def test_step(self, data):
        samples = []
        for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
            self.sizes.add(image.shape[1:])
            scores = self.layers(image[None].float() / 255)[0]
            sample.seg_logits = PixelData(data=scores)
            sample.pred_sem_seg = PixelData(data=scores.argmax(0, keepdim=True))
            samples.append(sample)
        return samples


class Rectangles(nn.Module):
    """A detector that finds each connected area of one colour, with its mask."""

    def test_step(self, data):
        for image, sample in zip(data["inputs"], data["data_samples"], strict=True):
            number, areas, stats, _ = cv2.connectedComponentsWithStats(
                (image[0].numpy() > 0).astype(np.uint8)
            )
            x, y, width, height = stats[1:, :4].T
            masks = areas == np.arange(1, number)[:, None, None]
            colors = [int(image[0].numpy()[mask].max()) for mask in masks]
            sample.pred_instances = InstanceData(
                bboxes=torch.from_numpy(
                    np.stack((x, y, x + width, y + height), 1)
                ).float(),
                scores=torch.rand(number - 1),
                labels=torch.tensor(colors, dtype=torch.long),
                masks=torch.from_numpy(masks),
            )
        return data["data_samples"]


def predicted(model, image, side, scope, overlap=0.3, batch=3):
    pipeline, sample = {
        "mmseg": (PACK_SEG, SegDataSample),
        "mmdet": (PACK_DET, DetDataSample),
    }[scope]
    tiled = TiledModel(model, pipeline, side, overlap, batch, scope)
    data = dict(
        inputs=[torch.from_numpy(image).permute(2, 0, 1)],
        data_samples=[sample(metainfo=dict(img_path="a.png"))],
    )
    (result,) = tiled.test_step(data)
    return result


def test_a_segmentor_of_small_receptive_field():
    torch.manual_seed(0)
    model = SmallField()
    image = np.random.default_rng(0).integers(0, 255, (90, 140, 3), np.uint8)
    whole = predicted(model, image, 200, "mmseg").pred_sem_seg.data
    assert model.sizes == {(90, 140)}
    labels = predicted(model, image, 48, "mmseg").pred_sem_seg.data
    assert labels.shape == whole.shape
    assert len(whole.unique()) > 2
    far = np.ones((90, 140), bool)  # from the edges of tiles
    for tile in Tiling(48, 0.3).tiles(140, 90):
        for x in {tile.left, tile.right} - {0, 140}:
            far[:, x - 2 : x + 2] = False
        for y in {tile.top, tile.bottom} - {0, 90}:
            far[y - 2 : y + 2] = False
    assert 0.5 < far.mean() < 1
    assert torch.equal(labels[0][far].long(), whole[0][far])
    assert (labels != whole).float().mean() < 0.05


@pytest.mark.parametrize("side", [40, 64, 300])
def test_a_detector_finds_the_same_objects(side):
    """Also those that are larger than the overlap, and than a tile."""
    random = np.random.default_rng(1)
    image = np.zeros((150, 260, 3), np.uint8)
    cv2.rectangle(image, (5, 5), (250, 13), (9, 9, 9), -1)  # over all columns of tiles
    for row, column in itertools.product(range(4), range(8)):
        x, y = 8 + 31 * column, 20 + 31 * row
        width, height = random.integers(6, 28, 2)
        color = int(random.integers(1, 4))
        cv2.rectangle(image, (x, y), (x + width, y + height), [color] * 3, -1)
    expected = predicted(Rectangles(), image, 300, "mmdet").pred_instances
    assert len(expected) == 33
    result = predicted(Rectangles(), image, side, "mmdet").pred_instances

    def objects(found):
        masks = found.masks
        masks = masks.numpy() if torch.is_tensor(masks) else masks.astype(bool)
        return sorted(
            (*box, label, mask.tobytes())
            for box, label, mask in zip(
                found.bboxes.tolist(), found.labels.tolist(), masks, strict=True
            )
        )

    assert objects(result) == objects(expected)


def test_an_image_without_objects():
    image = np.zeros((80, 80, 3), np.uint8)
    result = predicted(Rectangles(), image, 50, "mmdet").pred_instances
    assert (len(result), len(result.masks)) == (0, 0)


def test_panoptic_models_are_refused():
    model = nn.Module()
    model.test_step = None
    for test_cfg, refused in (dict(), True), (dict(panoptic_on=False), False):
        model.panoptic_fusion_head = SimpleNamespace(test_cfg=test_cfg)
        if refused:
            with pytest.raises(InputError, match="is a panoptic model"):
                TiledModel(model, PACK_DET, 64, 0.2, 1, "mmdet")
        else:
            TiledModel(model, PACK_DET, 64, 0.2, 1, "mmdet")


@pytest.mark.parametrize("classes", [1, CLASSES])
@pytest.mark.parametrize("padding", [None, [3, 5, 7, 1]])  # left, right, top, bottom
@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
def test_scores_of_tiles_are_those_of_mmseg(classes, padding, size):
    """mmseg's postprocess_result, whose label map tiles do not need, gives them too."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmseg"):
        backbone = dict(type="UNet", base_channels=2, norm_cfg=dict(type="BN"))
        model = EncoderDecoder(
            backbone=backbone,
            decode_head=dict(
                type="FCNHead",
                in_channels=2,
                in_index=4,
                channels=2,
                num_convs=0,
                num_classes=max(2, classes),
                out_channels=classes,
                threshold=0.3 if classes == 1 else None,
                concat_input=False,
                norm_cfg=dict(type="BN"),
            ),
            data_preprocessor=dict(type="SegDataPreProcessor"),
            test_cfg=ConfigDict(mode="whole"),
        ).eval()
    meta = dict(ori_shape=size, img_shape=size)
    if padding:
        meta["img_padding_size"] = padding
    torch.manual_seed(0)
    inputs = torch.rand(2, 3, 64, 64)

    def data():
        samples = [SegDataSample(metainfo=dict(meta)) for _ in inputs]
        return dict(inputs=list(inputs), data_samples=samples)

    with torch.no_grad(), DefaultScope.overwrite_default_scope("mmseg"):
        expected, result = model.test_step(data()), add_scores(model, data())
    for scored, sample in zip(result, expected, strict=True):
        assert "pred_sem_seg" not in scored
        assert torch.equal(scored.seg_logits.data, sample.seg_logits.data)
    flipped = data()
    flipped["data_samples"][0].set_metainfo(dict(flip=True))
    assert add_scores(model, flipped) is None
    model.__class__ = type("Other", (EncoderDecoder,), dict(predict=None))
    assert add_scores(model, data()) is None
    assert add_scores(SmallField(), data()) is None


def test_very_many_tiles_are_named_once(monkeypatch):
    """With --overlap 0.99 a small picture takes minutes."""
    monkeypatch.setattr("convnext_dense.engine.tiling.model.MANY", 3)
    image = np.zeros((40, 64, 3), np.uint8)
    tiled = TiledModel(SmallField(), PACK_SEG, 32, 0.0, 1, "mmseg")

    def predict():
        sample = SegDataSample(metainfo=dict(img_path="a.png"))
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        tiled.test_step(dict(inputs=[pixels], data_samples=[sample]))

    with logged() as messages:
        predict()
        predict()
    assert len(messages) == 1
    assert "64 x 40 pixels is predicted in 4 tiles; a larger --tile" in messages[0]
    with logged() as messages:
        predicted(SmallField(), image[:32], 32, "mmseg")
    assert not messages
