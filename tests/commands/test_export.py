"""convnext-dense export: its files compute what mmseg computes; and mistakes."""

import functools
import itertools
import json
import os

import pytest
import torch
from mmseg.structures import SegDataSample
from torch import nn
from torch.torch_version import TorchVersion

from convnext_dense import ConvNeXt
from convnext_dense.commands.export import comparison, networks, writing
from convnext_dense.commands.export.norms import FixedBatchNorm2d, replace_norms
from convnext_dense.commands.export.pooling import MatrixPool2d
from convnext_dense.commands.export.writing import export
from convnext_dense.config.options import load_config
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError
from convnext_dense.models.archs import ARCHS
from convnext_dense.utils import files

from ..helpers.paths import ROOT
from ..helpers.peers import randomised

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SEG = ROOT / "configs/seg/upernet_convnext_atto_shapes.py"
DET = ROOT / "configs/det/cascade_mask_rcnn_convnext_atto_shapes.py"

# Few channels and one block in each stage: tracing takes time for each operator.
CHANNELS = [8, 16, 32, 64]
SMALL = [
    f"model.backbone.arch.depths={[1] * 4}",
    f"model.backbone.arch.channels={CHANNELS}",
    "model.decode_head.channels=16",
]
UPERNET = [
    *SMALL,
    "model.backbone.out_indices=(0,3)",
    f"model.decode_head.in_channels={[CHANNELS[0], CHANNELS[3]]}",
    f"model.auxiliary_head.in_channels={CHANNELS[3]}",
    "model.auxiliary_head.in_index=1",
    "model.decode_head.in_index=(0,1)",
    "model.decode_head.pool_scales=(1,3)",
]
ONE_STAGE = [*SMALL, "model.backbone.out_indices=(0,)"]  # for --backbone
NO_ARCH = "model.backbone._delete_=True", "model.backbone.type=ConvNeXt"
CLASSES = ("wall", "straße", "sky", "tree", "person", "car")


def load(*options, config_file=SEG, checkpoint=None):
    cfg = load_config(str(config_file), config_options(options))
    cfg.load_from = checkpoint
    return cfg


def config_options(options):
    """Replace ``arch``, a string in the config: a dict cannot be merged into it."""
    return [*NO_ARCH, *options] if any("arch.depths" in o for o in options) else options


def checkpoint(cfg, path):
    """Write a checkpoint like a run's, with random weights; return its path."""
    model = randomised(lambda: build_model(cfg))
    for name, values in model.state_dict().items():
        if values.ndim > 1:  # large enough that the logits depend on the image
            values.mul_(50 * values[0].numel() ** -0.5)
        elif name.endswith("running_mean"):
            values.sub_(1)
    palette = [(i, 0, 9) for i in range(len(CLASSES))]
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=palette))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def by_mmseg(cfg, path, images):
    """mmseg's logits in a test on ``images``, (N, 3, H, W) in RGB."""
    model = build_model(cfg, "cpu").eval()
    model.load_state_dict(torch.load(path)["state_dict"])
    sizes = dict.fromkeys(("ori_shape", "img_shape", "pad_shape"), images.shape[2:])
    samples = [SegDataSample(metainfo=sizes) for _ in images]
    with torch.no_grad():
        data = dict(inputs=list(images.flip(1)), data_samples=samples)
        return torch.stack([sample.seg_logits.data for sample in model.test_step(data)])


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, shape, generator=generator).float()


def assert_close(actual, expected):
    """Equal to 1e-4 of the variation over the map: constant maps do not count."""
    assert actual.shape == expected.shape
    spread = (expected - expected.mean((2, 3), keepdim=True)).abs().max()
    assert spread > 0.05 * expected.abs().max()
    assert (actual - expected).abs().max() < 1e-4 * spread


def run_onnx(path, image):
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    maps = map(torch.from_numpy, session.run(None, {"image": image.numpy()}))
    return dict(zip(names, maps, strict=True))


def test_pools():
    for bins in (1, 2, 3, 6, (4, 7)):
        ours, torchs = MatrixPool2d(bins), nn.AdaptiveAvgPool2d(bins)
        for size in range(1, 40):  # smaller than the bins, odd, multiples of them
            x = torch.randn(2, 3, size, 41 - size, dtype=torch.float64)
            torch.testing.assert_close(ours(x), torchs(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("affine", [False, True])
def test_norms(affine):
    norms = nn.Sequential(nn.BatchNorm2d(3, affine=affine)).double().eval()
    for values in norms.state_dict().values():
        if values.ndim:
            values.copy_(torch.rand(3) + 0.5)
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    expected = norms(x)
    replace_norms(norms)
    assert type(norms[0]) is FixedBatchNorm2d
    torch.testing.assert_close(norms(x), expected, rtol=0, atol=1e-12)


def assert_tells_nothing_of_this_machine(path):
    content = path.read_bytes()
    for place in (ROOT, path.parent, "site-packages", '.py"', ".py\\"):
        assert str(place).encode() not in content


def test_a_segmentor_to_onnx(tool, tmp_path):
    weights = checkpoint(load(*UPERNET), tmp_path / "weights.pth")
    (tmp_path / "out").mkdir()
    done = tool(
        *("export", SEG, weights, "--out", "out/seg.onnx"),
        *("--cfg-options", *config_options(UPERNET)),
    )
    assert done.code == 0
    assert "random" not in done.out
    assert "out/seg.onnx: image -> logits; at 1 x 3 x 165 x 169 and 2 x 3" in done.out
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["seg.onnx"]
    path = tmp_path / "out/seg.onnx"
    assert_tells_nothing_of_this_machine(path)
    for shape in ((1, 3, 64, 64), (2, 3, 65, 130), (1, 3, 223, 97)):
        images = pictures(*shape)
        logits = by_mmseg(load(*UPERNET), weights, images)
        assert_close(run_onnx(path, images)["logits"], logits)

    session = onnxruntime.InferenceSession(path)
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["batch", 3, "height", "width"])
    assert (logits.name, logits.shape) == ("logits", ["batch", 6, "height", "width"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert json.loads(metadata["palette"])[5] == [5, 0, 9]
    assert "RGB from 0 to 255" in metadata["image"]


def test_a_segmentor_to_torch_export(tool, tmp_path):
    """A segmentor with BGR input, aligned corners and sliding windows."""
    options = [
        *UPERNET,
        "model.data_preprocessor.bgr_to_rgb=False",
        "model.decode_head.align_corners=True",
    ]
    weights = checkpoint(load(*options), tmp_path / "weights.pth")
    sliding = ("model.test_cfg.mode=slide", "model.test_cfg.crop_size=(96,128)")
    done = tool(
        *("export", SEG, weights, "--out", "seg.pt2", "--shape", 96, 128),
        *("--cfg-options", *config_options(options), *sliding),
    )
    assert done.code == 0
    assert "one window (crop_size (96, 128))" in done.out
    assert_tells_nothing_of_this_machine(tmp_path / "seg.pt2")
    extra = {"metadata.json": ""}
    network = torch.export.load(tmp_path / "seg.pt2", extra_files=extra).module()
    for shape in ((1, 3, 64, 65), (3, 3, 131, 77)):
        images = pictures(*shape)
        assert_close(network(images), by_mmseg(load(*options), weights, images))
    assert "classes" in json.loads(extra["metadata.json"])
    assert not [name for name in network.state_dict() if "auxiliary" in name]
    with pytest.raises(AssertionError, match=r"size\(\)\[3\] >= 64"):
        network(pictures(1, 3, 64, 63))


@pytest.mark.parametrize(("use_grn", "suffix"), [(False, ".pt2"), (True, ".onnx")])
def test_the_backbone_of_a_detector(tool, tmp_path, use_grn, suffix):
    """With a checkpoint of the backbone alone, as pre-training writes it."""
    options = dict(use_grn=use_grn, layer_scale_init_value=float(not use_grn))
    if suffix == ".pt2":  # two stages only: torch.export is slow
        options["out_indices"] = (0, 1)
    arch = dict(depths=(1, 1, 2, 1), channels=CHANNELS)
    backbone = randomised(lambda: ConvNeXt(arch, **options)).eval()
    options |= {f"arch.{key}": str(value) for key, value in arch.items()}
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    done = tool(
        *("export", DET, "weights.pth", "--backbone", "--out", f"maps{suffix}"),
        *("--cfg-options", *NO_ARCH),
        *(f"model.backbone.{key}={value}" for key, value in options.items()),
    )
    assert done.code == 0
    if suffix == ".pt2":
        network = torch.export.load(tmp_path / "maps.pt2").module()
    for shape in ((1, 3, 64, 65), (3, 3, 131, 77)):
        image = torch.randn(shape)
        with torch.no_grad():
            expected = backbone(image)
        if suffix == ".onnx":
            maps = run_onnx(tmp_path / "maps.onnx", image)
            assert list(maps) == ["stride4", "stride8", "stride16", "stride32"]
            maps = maps.values()
        else:
            maps = network(image)
        for actual, map_ in zip(maps, expected, strict=True):
            assert_close(actual, map_)


@pytest.mark.skipif(
    "CONVNEXT_DENSE_EVERY_ARCH" not in os.environ,
    reason="takes an hour and 12 GB: make test-export",
)
@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture(tmp_path, monkeypatch, arch):
    for use_grn, suffix in itertools.product((False, True), writing.SUFFIXES):
        model = nn.Module()
        build = functools.partial(ConvNeXt, arch, use_grn=use_grn)
        model.backbone = randomised(build)
        monkeypatch.setattr(networks, "build_model", lambda *_, model=model: model)
        export(load(), tmp_path / f"maps{suffix}", backbone=True)


def test_random_weights_and_one_stage(tool, tmp_path):
    done = tool(
        *("export", SEG, "--out", "maps.pt2", "--backbone"),
        *("--cfg-options", *config_options(ONE_STAGE)),
    )
    assert done.code == 0
    assert "the weights are random" in done.out
    assert "image -> stride4; at" in done.out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((SEG, "--out", "seg.pth"), "ends in .onnx or .pt2"),
        ((SEG, "--out", "nowhere/seg.onnx"), "there is no folder"),
        ((SEG, "--out", "seg.onnx", "--shape", "64", "32"), "at least 64"),
        ((SEG, "nothing.pth", "--out", "seg.onnx"), "no checkpoint at"),
        (
            (DET, "--out", "a.onnx", "--cfg-options", "model.type=HybridTaskCascade"),
            "--backbone exports its backbone",
        ),
        (
            (SEG, "backbone.pth", "--out", "seg.onnx"),
            "and nothing else of this EncoderDecoder",
        ),
        (
            (SEG, "list.pth", "--out", "seg.onnx", "--backbone"),
            "holds a list, not weights",
        ),
    ],
)
def test_mistakes(tool, tmp_path, args, says):
    torch.save(ConvNeXt("atto").state_dict(), tmp_path / "backbone.pth")
    torch.save([1], tmp_path / "list.pth")
    before = sorted(tmp_path.iterdir())
    done = tool("export", *args)
    assert done.code == 2
    assert says in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_another_librarys_backbone(tmp_path):
    cfg = load("model.backbone._delete_=True", "model.backbone.type=mmseg.ResNet")
    cfg.model.backbone.depth = 18
    with pytest.raises(InputError, match="none of this package's backbones"):
        export(cfg, tmp_path / "maps.pt2", backbone=True)


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_file_that_differs_is_not_left(tmp_path, monkeypatch, factor):
    out = tmp_path / "maps.pt2"
    out.write_text("an older file")
    run = writing._run

    def differently(file, images):
        assert file.is_file()
        return [[factor * map_ for map_ in maps] for maps in run(file, images)]

    monkeypatch.setattr(writing, "_run", differently)
    with pytest.raises(InputError, match="would differ from PyTorch by"):
        export(load(*ONE_STAGE), out, backbone=True)
    assert out.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [out]


class Cancelling(nn.Module):
    """Returns the first channel without the digits that ``large`` rounds away."""

    def __init__(self, large):
        super().__init__()
        self.scale, self.large = nn.Parameter(torch.tensor(1.0)), large

    def forward(self, image):
        """Shapes: (N, 3, H, W) -> (N, 1, H, W)."""
        return self.scale * image[:, :1] + self.large - self.large


@pytest.mark.parametrize("factor", [1, 1.002])
def test_rounding_is_allowed_and_a_wrong_weight_seen(tmp_path, monkeypatch, factor):
    module, other = Cancelling(1e6), Cancelling(1.5e6)
    other.scale = module.scale
    network = networks.Network(
        module, lambda image: (other(image),), networks._picture, ["map"], {}
    )

    def run(file, images):
        program = torch.export.load(file)
        program.state_dict["scale"].data.mul_(factor)
        return [[program.module()(image)] for image in images]

    monkeypatch.setattr(networks, "build", lambda *_: network)
    monkeypatch.setattr(writing, "_run", run)
    texts = []
    monkeypatch.setattr(writing, "print_log", lambda text, _: texts.append(text))
    if factor == 1:
        export(load(), tmp_path / "map.pt2")
        assert "PyTorch's own rounding error is" in texts[-1]
    else:
        with pytest.raises(InputError, match=r"by 2\..e-03 .* own rounding error is"):
            export(load(), tmp_path / "map.pt2")
    assert len(list(tmp_path.iterdir())) == (factor == 1)


@pytest.mark.parametrize(
    ("difference", "rounding", "close"),
    [
        (0.9e-4, 0, True),
        (1.1e-4, 0, False),
        (1.1e-4, 1e-5, False),
        (3.9e-4, 1e-4, True),
        (4.1e-4, 1e-4, False),
        (1.1e-3, 1, False),
        (1.1e-4, float("nan"), False),
    ],
)
def test_how_far_maps_may_differ(difference, rounding, close):
    map_ = torch.tensor([1.0, -2.0], dtype=torch.float64)
    pairs = [((map_,), (map_ + 2 * difference,))]
    assert comparison.maps(pairs, rounding).close == close


def test_what_cannot_be_traced(tmp_path, monkeypatch):
    monkeypatch.setattr(ConvNeXt, "forward", lambda _, x: (x * int(x.shape[2]),))
    with pytest.raises(InputError, match=r"could not be exported: .*Constraint"):
        export(load(*ONE_STAGE), tmp_path / "maps.pt2", backbone=True)
    assert not list(tmp_path.iterdir())


def test_packages_that_are_missing(tmp_path, monkeypatch):
    def find_spec(name):
        return name not in missing

    monkeypatch.setattr(writing, "find_spec", find_spec)
    missing = ["onnxscript"]
    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        export(load(*ONE_STAGE), tmp_path / "maps.onnx", backbone=True)
    missing = ["onnxruntime"]
    export(load(*ONE_STAGE), tmp_path / "maps.onnx", backbone=True)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1"))
    with pytest.raises(InputError, match=r"this is 2\.5\.1: pip install"):
        export(load(*ONE_STAGE), tmp_path / "maps.pt2", backbone=True)


def test_files_with_others_are_whole(tmp_path):
    """A large ONNX model has its weights in a second file."""
    out, weights = tmp_path / "a.onnx", tmp_path / "a.onnx.data"

    def write(content, fails=False):
        with files.whole_with_others(out) as file:
            file.with_name("a.onnx.data").write_text(content)
            file.write_text(content)
            if fails:
                raise OSError("the disk is full")

    write("old")
    with pytest.raises(InputError, match="could not be written: the disk is full"):
        write("new", fails=True)
    assert out.read_text() == weights.read_text() == "old"
    write("new")
    assert out.read_text() == weights.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [out, weights]
    nowhere = files.whole_with_others(tmp_path / "nowhere/a.onnx")
    with pytest.raises(InputError, match="could not be written"), nowhere:
        pass
