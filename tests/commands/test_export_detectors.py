"""convnext-dense export with detectors: their boxes and masks are those of mmdet."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from convnext_dense.commands.export import comparison, networks
from convnext_dense.commands.export.detectors import boxes as boxes_
from convnext_dense.commands.export.detectors import masks
from convnext_dense.commands.export.writing import export
from convnext_dense.errors import InputError

from ..helpers import detectors
from ..helpers.detectors import SMALL, TINY, config, detect, spread, two_levels
from ..helpers.paths import ROOT, SHARED

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLASSES = [f"class {i}" for i in range(80)]
SLOW = pytest.mark.skipif(
    "CONVNEXT_DENSE_EVERY_ARCH" not in os.environ,
    reason="tracing takes long: make test-export",
)


def picture(height, width, seed=0):
    """Noise at several scales, (3, H, W) from 0 to 255: objects of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, height, width)
    for cells in (3, 7, 19):
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        image += torch.nn.functional.interpolate(noise, (height, width))
    return (127 + 50 * image[0]).clamp(0, 255)


def by_mmdet(model, image):
    """mmdet's boxes, scores, labels and perhaps masks."""
    instances = detect(model, image)
    names = ("bboxes", "scores", "labels", "masks")
    return [instances[name] for name in names if name in instances]


def by_onnx(path, image):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options)
    outputs = session.run(None, {"image": image[None].numpy()})
    return list(map(torch.from_numpy, outputs))


def saved(cfg, model, path):
    """Write the weights of ``model`` as a run does, and name them in ``cfg``."""
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    cfg.load_from = str(path)


@pytest.fixture(scope="module")
def mask_rcnn(tmp_path_factory):
    """A config of Mask R-CNN that names its weights, and the model."""
    cfg = two_levels(config("mask_rcnn", SMALL))
    model = spread(cfg, picture(96, 128))
    saved(cfg, model, tmp_path_factory.mktemp("mask_rcnn") / "weights.pth")
    return cfg, model


@pytest.mark.parametrize("family", detectors.CONFIGS)
def test_the_networks_compute_what_mmdet_computes(family):
    cfg = config(family, SMALL)
    model = spread(cfg, picture(160, 192))
    network = networks.detectors.network(model)
    for size in ((160, 192), (97, 133), (64, 64)):
        image = picture(*size, seed=1)
        expected = by_mmdet(model, image)
        assert (expected[1] > 0.05).sum() > 10
        normalised = model.data_preprocessor(dict(inputs=[image.flip(0)]), False)
        height, width = size
        with torch.no_grad():
            actual = network(normalised["inputs"][..., :height, :width])
        assert len(actual) == len(network.outputs) == len(expected)
        for ours, theirs in zip(actual, expected, strict=True):
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


class Regions(nn.Module):
    """What follows the proposals: suppression, features of regions, and masks.

    The boxes of three sizes on two levels are fixed shares of the image; their scores
    follow its brightness.
    """

    def __init__(self, network):
        super().__init__()
        self.head, self.settings = network.mask_heads[0], network.settings
        starts = torch.tensor([0.05, 0.1, 0.4])
        corners = torch.cartesian_prod(starts, starts)
        boxes = [torch.cat((corners, corners + side), 1) for side in (0.1, 0.2, 0.5)]
        self.register_buffer("all_boxes", torch.cat(boxes))
        self.register_buffer(
            "all_scores", torch.linspace(1.6, 0.4, len(self.all_boxes))
        )

    def forward(self, image):
        """Shapes: (1, 3, H, W) -> those of a detector with masks."""
        height, width = image.shape[-2:]
        maps = [F.avg_pool2d(image / 255, stride) for stride in (4, 8)]
        maps = tuple(map_.repeat(1, 6, 1, 1)[:, :16] for map_ in maps)
        scores = image.mean() / 255 * self.all_scores
        sure = (scores > 0.3).nonzero()[:, 0]
        sides = torch.stack([scores.new_full((), n) for n in (width, height)]).repeat(2)
        boxes = self.all_boxes[sure] * sides
        scores, labels = scores[sure], sure % 7
        kept = boxes_.suppress(boxes, scores, labels, self.settings.nms, 30)
        boxes, labels = boxes[kept], labels[kept]
        pasted = masks.paste(self.head(maps, boxes, labels), boxes, (height, width))
        return boxes, scores[kept], labels, pasted >= 0.5


def test_regions_to_onnx(tmp_path, monkeypatch, mask_rcnn):
    """Suppression, masks, the file's notes, and the program of the documentation."""
    cfg, model = mask_rcnn
    module = Regions(networks.detectors.network(model)).eval()
    notes = networks._whole_metadata(
        cfg, networks._Normalisation.of({}), dict(classes=CLASSES)
    )
    network = networks.Network(
        module,
        module,
        networks._picture,
        ["boxes", "scores", "labels", "masks"],
        notes,
        batch=False,
        compare=comparison.detections,
    )
    monkeypatch.setattr(networks, "build", lambda *_: network)
    path = tmp_path / "detector.onnx"
    export(cfg, path, shape=(96, 128))
    for size in ((64, 70), (150, 97)):
        image = picture(*size, seed=2)
        with torch.no_grad():
            pairs = [(module(image[None]), by_onnx(path, image))]
        boxes, *_, masks_ = pairs[0][0]
        assert 10 < len(boxes) < 30  # some are suppressed
        assert masks_.flatten(1).any(1).sum() > 3
        result = comparison.detections(pairs)
        assert result.close, result
        assert ", 0 without a counterpart" in result.text
    assert_finds_nothing_without_values(path)
    assert_program_of_the_documentation_detects(path, tmp_path)


@SLOW
def test_mask_rcnn_to_onnx(tmp_path, mask_rcnn):
    cfg, model = mask_rcnn
    path = tmp_path / "detector.onnx"
    export(cfg, path, shape=(96, 128))
    for size in ((64, 70), (150, 97)):
        image = picture(*size, seed=2)
        pairs = [(by_mmdet(model, image), by_onnx(path, image))]
        assert len(pairs[0][0][0]) > 10
        result = comparison.detections(pairs)
        assert result.close, result
        assert ", 0 without a counterpart" in result.text
    assert_finds_nothing_without_values(path)
    assert_program_of_the_documentation_detects(path, tmp_path)


def assert_finds_nothing_without_values(path):
    nothing = by_onnx(path, torch.full((3, 64, 64), torch.nan))
    assert [len(output) for output in nothing] == [0, 0, 0, 0]
    assert nothing[3].shape == (0, 64, 64)


def assert_program_of_the_documentation_detects(path, folder):
    """Run it where importing PyTorch is an error."""
    session = onnxruntime.InferenceSession(path)
    metadata = session.get_modelmeta().custom_metadata_map
    steps = json.loads(metadata["test_pipeline"])
    assert steps == dict(scale=[1333, 800], keep_ratio=True)

    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(program.splitlines()) == 40
    (folder / "detect.py").write_text(
        "import sys\nsys.modules['torch'] = None\n" + program, encoding="utf-8"
    )
    pixels = picture(60, 90).permute(1, 2, 0).byte().numpy()
    Image.fromarray(pixels).save(folder / "photograph.png")
    done = subprocess.run(
        [sys.executable, "detect.py", path.name, "photograph.png"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(class \d \d\.\d\d( -?\d+){4}\n)+", done.stdout)
    assert (folder / "detections.png").exists()


def test_settings_that_are_not_exported(mask_rcnn):
    _, model = mask_rcnn
    settings = model.roi_head.test_cfg
    for holder, name, value, says in (
        (settings, "mask_thr_binary", -1, "mask_thr_binary is -1, and"),
        (settings, "nms", dict(type="soft_nms"), r"rcnn\.nms\.type is 'soft_nms', and"),
        (model.rpn_head, "use_sigmoid_cls", False, "rpn_head.loss_cls.use_sigmoid is"),
        (model.roi_head, "bbox_head", model.rpn_head, "bbox_head.type is 'RPNHead'"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            change = patch.setitem if isinstance(holder, dict) else patch.setattr
            change(holder, name, value)
            with pytest.raises(InputError, match=says):
                networks.detectors.network(model)


def outputs(*objects):
    """The outputs for objects (x, score, label) with boxes of 10 x 10 pixels."""
    x, scores, labels = torch.tensor(objects).reshape(-1, 3).T
    boxes = torch.stack((x, x * 0, x + 10, x * 0 + 10), 1)
    masks = torch.zeros(len(x), 20, 20, dtype=torch.bool)
    return boxes, scores, labels.long(), masks


@pytest.mark.parametrize(
    ("actual", "close"),
    [
        ([(5, 0.6, 1), (0, 0.9, 0)], True),  # in another order
        ([(0.4, 0.9005, 0), (5, 0.6, 1), (9, 0.01, 1)], True),
        ([(0.6, 0.9, 0), (5, 0.6, 1)], False),  # another place
        ([(0, 0.902, 0), (5, 0.6, 1)], False),  # another score
        ([(0, 0.9, 1), (5, 0.6, 1)], False),  # another label
        ([(0, 0.9, 0)], False),
        ([(0, 0.9, 0), (5, 0.6, 1), (5, 0.6, 1)], False),
        ([(0, 0.9, 0), (5, torch.nan, 1)], False),
        ([], False),
    ],
)
def test_boxes_are_compared_with_their_counterparts(actual, close):
    expected = outputs((0, 0.9, 0), (5, 0.6, 1), (5, 0.02, 2))
    result = comparison.detections([(expected, outputs(*actual))])
    assert result.close == close, result
    assert "(2 boxes with scores above 0.05 compared" in result.text


def test_nothing_to_compare_is_said():
    unsure = outputs((0, 0.01, 0))
    assert "no box has a score" in comparison.detections([(unsure, unsure)]).text
    result = comparison.detections([(unsure, outputs((0, 0.9, 0)))])
    assert not result.close
    assert "no box has a score" not in result.text


@pytest.mark.parametrize(("pixels", "close"), [(3, True), (5, False)])
def test_masks_are_compared(pixels, close):
    expected = outputs((0, 0.9, 0))
    actual = [output.clone() for output in expected]
    actual[3][0, 0, :pixels] = True
    assert comparison.detections([(expected, actual)]).close == close


@pytest.mark.skipif(
    "CONVNEXT_DENSE_EVERY_ARCH" not in os.environ or not SHARED.exists(),
    reason="takes half an hour and needs photographs: make test-export",
)
@pytest.mark.parametrize("family", detectors.CONFIGS)
def test_full_size_on_photographs(tmp_path, family):
    photographs = [
        torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
        for path in sorted((SHARED / "data/coco_tiny/val2017").iterdir())[:3]
    ]
    cfg = config(family, TINY)
    model = spread(cfg, photographs[0].float())
    saved(cfg, model, tmp_path / "weights.pth")
    export(cfg, tmp_path / "detector.onnx")
    for photograph in photographs[1:]:
        image = photograph.float()
        pairs = [(by_mmdet(model, image), by_onnx(tmp_path / "detector.onnx", image))]
        result = comparison.detections(pairs)
        print(family, tuple(image.shape), result.text)
        assert result.close
        assert "0 without a counterpart" in result.text


@SLOW
@pytest.mark.parametrize("family", detectors.CONFIGS)
def test_torch_export(tmp_path, family):
    cfg = config(family, SMALL)
    model = spread(cfg, picture(160, 192))
    saved(cfg, model, tmp_path / "weights.pth")
    export(cfg, tmp_path / "detector.pt2")
    network = torch.export.load(tmp_path / "detector.pt2").module()
    image = picture(200, 170, seed=2)
    result = comparison.detections([(by_mmdet(model, image), network(image[None]))])
    print(family, result.text)
    assert result.close
    nothing = network(torch.full((1, 3, 160, 160), torch.nan))
    assert {len(output) for output in nothing} == {0}
