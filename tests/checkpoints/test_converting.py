"""Written for another library: it loads there strictly, and comes back bit by bit."""

import functools
import os
import re

import pytest
import torch

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.checkpoints import converting, origins, writing
from convnext_dense.errors import InputError
from convnext_dense.models.archs import ARCHS, Arch

from ..helpers.peers import randomised
from ..helpers.published import ALL, PUBLISHED, SEG, SMALL, V1, build, image, published

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
torchvision = pytest.importorskip("torchvision")

TIMM_SMALL = dict(depths=SMALL["depths"], dims=SMALL["channels"])
STAGES = [
    torchvision.models.convnext.CNBlockConfig(*stage)
    for stage in zip(
        SMALL["channels"],
        (*SMALL["channels"][1:], None),
        SMALL["depths"],
        strict=True,
    )
]


def hf(model, config="ConvNextConfig", **kwargs):
    config = getattr(transformers, config)(**{**V1, **kwargs})
    return lambda: getattr(transformers, model)(config)


SOURCES = {  # the library -> models of it, and the targets that hold all of them
    "timm, classifier": (
        lambda: timm.create_model("convnext_tiny", num_classes=7),
        ("timm", "transformers", "torchvision", "mmpretrain"),
    ),
    "timm, convolutions as pointwise layers": (
        lambda: timm.create_model("convnext_atto", num_classes=7),
        ("timm", "transformers", "torchvision", "mmpretrain"),
    ),
    "timm, V2": (
        lambda: timm.create_model("convnextv2_pico", num_classes=7),
        ("timm", "transformers", "mmpretrain"),
    ),
    "timm, features_only": (
        lambda: timm.create_model("convnext_tiny", features_only=True, **TIMM_SMALL),
        ("timm", "torchvision", "mmpretrain"),
    ),
    "timm, DINOv3": (
        lambda: timm.create_model("convnext_tiny.dinov3_lvd1689m"),
        ("timm", "transformers", "torchvision", "mmpretrain"),
    ),
    "torchvision": (
        lambda: torchvision.models.convnext.ConvNeXt(STAGES, num_classes=7),
        ("timm", "transformers", "torchvision", "mmpretrain"),
    ),
    "transformers, classifier": (
        hf("ConvNextForImageClassification"),
        ("timm", "transformers", "torchvision", "mmpretrain"),
    ),
    "transformers, V2": (
        hf("ConvNextV2ForImageClassification", "ConvNextV2Config"),
        ("timm", "transformers", "mmpretrain"),
    ),
    "transformers, backbone": (
        hf("ConvNextBackbone", out_features=ALL),
        ("transformers", "mmpretrain"),
    ),
    "transformers, DINOv3": (
        hf("DINOv3ConvNextModel", "DINOv3ConvNextConfig"),
        ("timm", "transformers", "torchvision", "mmpretrain"),
    ),
    "our own": (
        lambda: ConvNeXt(SMALL, layer_scale_init_value=1.0),
        ("transformers", "mmpretrain"),
    ),
    "our own, V2": (lambda: ConvNeXt(SMALL, use_grn=True), ("transformers",)),
}
CASES = [(name, to) for name, (_, targets) in SOURCES.items() for to in targets]


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


def convert(weights, to):
    return converting.convert(weights, "a.pth", to)


@functools.cache  # noise takes its time
def source_of(name):
    return randomised(SOURCES[name][0]).eval()


@functools.cache
def native_of(name):
    return convert(source_of(name).state_dict(), "native")


@pytest.mark.parametrize(("name", "to"), CASES)
def test_there_and_back(name, to):
    """native -> library -> native, and the library's own file again."""
    weights, native = source_of(name).state_dict(), native_of(name)
    converted = convert(native.weights, to)
    assert not converted.left
    same(convert(converted.weights, "native").weights, native.weights)
    same(convert(converted.weights, to).weights, converted.weights)
    library = name.split(",")[0]
    if library == to:
        if "model.stages.0.layers.0.gamma" in weights:  # as its files have them
            weights = {k.removeprefix("model."): v for k, v in weights.items()}
        same(converted.weights, dict(weights))


@pytest.mark.parametrize(("name", "to"), CASES)
def test_loads_strictly_there_and_computes_the_same(name, to, tmp_path):
    source = source_of(name)
    done = convert(source.state_dict(), to)
    print(f"{name} -> {done.fits}")
    if to == "mmpretrain":  # not installed: its published names
        return
    theirs = model_for(done)
    if to == "transformers":
        # As a user would; it also says what was missing or left over.
        theirs.config.save_pretrained(tmp_path)
        writing.write(done.weights, tmp_path / "model.safetensors")
        theirs, report = type(theirs).from_pretrained(
            tmp_path, output_loading_info=True
        )
        assert not any(report.values()), report
    else:
        theirs.load_state_dict(done.weights, strict=True, assign=True)
    if "classifier" not in name:
        return
    with torch.no_grad():
        mine, logits = source(image()), theirs.eval()(image())
    mine, logits = (getattr(out, "logits", out) for out in (mine, logits))
    assert (mine - logits).abs().max().item() <= 1e-5
    assert mine.std() > 1e-3


def model_for(done):
    """The library's model, without values; its text builds the same one."""
    call, _, change = done.fits.partition(" with ")
    with torch.device("meta"):
        model, by_text = done.build(), eval(call)
        if change:
            exec(f"by_text.{change}")
    assert str(model) == str(by_text)
    return model


def test_mmpretrains_published_names():
    """And their shapes, with the norms of the maps."""
    weights = randomised(lambda: ConvNeXt(SMALL)).state_dict()
    done = convert(weights, "mmpretrain")
    shapes = {name: list(tensor.shape) for name, tensor in done.weights.items()}
    assert shapes == PUBLISHED["mmpretrain"]
    done = convert(
        randomised(lambda: ConvNeXt(SMALL, use_grn=True, out_indices=3)).state_dict(),
        "mmpretrain",
    )
    shapes = {name: list(tensor.shape) for name, tensor in done.weights.items()}
    assert shapes == PUBLISHED["mmpretrain_v2"]


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n[0] != "_"])
def test_published_names_to_native_and_mmpretrain(name):
    weights = published(name)
    native = convert(weights, "native")
    converted = convert(native.weights, "mmpretrain")
    same(convert(converted.weights, "native").weights, native.weights)
    assert not native.left
    if name.startswith("mmpretrain"):
        same(converted.weights, weights)
    if name == "authors":
        same(native.weights, weights)


def test_whole_segmentor_to_transformers_and_back(tmp_path):
    torch.manual_seed(0)
    weights = dict(build(SEG, layer_scale_init_value=1.0).state_dict())
    done = convert(weights, "transformers")
    assert not done.left
    theirs = model_for(done)
    theirs.load_state_dict(done.weights, strict=True, assign=True)
    same(convert(done.weights, "native").weights, weights)
    mmpretrain = convert(weights, "mmpretrain")
    assert mmpretrain.whole
    same(convert(mmpretrain.weights, "native").weights, weights)
    timms = convert(weights, "timm")
    assert {name.split(".")[0] for name in timms.left} == {
        *("norm0", "norm1", "norm2", "norm3", "decode_head", "auxiliary_head")
    }


REFUSED = {
    "GRN to torchvision": (
        lambda: ConvNeXt(SMALL, use_grn=True).state_dict(),
        "torchvision",
        r"only ConvNeXt V1.*use_grn=True",
    ),
    "four channels to torchvision": (
        lambda: ConvNeXt(SMALL, in_channels=4).state_dict(),
        "torchvision",
        r"in_channels=4",
    ),
    "both to transformers": (
        lambda: ConvNeXt(SMALL, use_grn=True, layer_scale_init_value=1.0).state_dict(),
        "transformers",
        r"no ConvNeXt with both",
    ),
    "no ConvNeXt": (
        lambda: {"a.weight": torch.rand(1)},
        "timm",
        r"holds no ConvNeXt: give",
    ),
    "two of them": (
        lambda: {
            f"{who}.{k}": v
            for k, v in ConvNeXt(SMALL).state_dict().items()
            for who in "ab"
        },
        "timm",
        r"holds 2 ConvNeXts",
    ),
    "two stages": (
        lambda: ConvNeXt(SMALL, out_indices=(1,)).state_dict(),
        "timm",
        r"only the first 2 of 4 stages",
    ),
    "not whole": (
        lambda: {
            k: v
            for k, v in ConvNeXt(SMALL).state_dict().items()
            if "pwconv1.b" not in k
        },
        "timm",
        r"lacks \d+ of",
    ),
    "no stem": (
        lambda: {
            k: v for k, v in ConvNeXt(SMALL).state_dict().items() if "layers.0" not in k
        },
        "timm",
        r"not whole: its stem or a stage is missing",
    ),
    "NaN in a head": (
        lambda: {**ConvNeXt(SMALL).state_dict(), "x.y": torch.tensor([float("nan")])},
        "native",
        r"x\.y holds NaN",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted(case):
    weights, to, says = REFUSED[case]
    with pytest.raises(InputError, match=rf"(?s){says}"):
        convert(weights(), to)


@pytest.mark.parametrize("to", ["transformers", "torchvision"])
def test_norms_of_another_eps(monkeypatch, to):
    """As xxlarge has them: the same weights would compute something else there."""
    odd = Arch(tuple(SMALL["depths"]), tuple(SMALL["channels"]), norm_eps=1e-5)
    monkeypatch.setitem(ARCHS, "odd", odd)
    with pytest.raises(InputError, match=r"eps 1e-06, and arch='odd' has 1e-05"):
        convert(ConvNeXt(SMALL).state_dict(), to)


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(in_channels=4),
        dict(use_grn=True, layer_scale_init_value=1.0),
        dict(layer_scale_init_value=0.0),
    ],
)
def test_unusual_backbones_to_timm(kwargs):
    """No name has them; its features have no norms."""
    done = convert(randomised(lambda: ConvNeXt(SMALL, **kwargs)).state_dict(), "timm")
    model_for(done).load_state_dict(done.weights, strict=True, assign=True)
    assert len(done.left) == 8


@pytest.mark.parametrize("first", ["norm", "norm3"])
def test_a_classifiers_norm_wins_over_the_maps_whatever_their_order(first):
    """mmpretrain calls both ``norm3``; the classifier's needs its own."""
    weights = ConvNeXt("atto").state_dict()
    weights |= {"head.weight": torch.rand(5, 320), "head.bias": torch.rand(5)}
    norms = {"norm.weight": torch.full((320,), 7.0), "norm.bias": torch.zeros(320)}
    weights = norms | weights if first == "norm" else weights | norms
    done = converting.convert(weights, "x.pth", "mmpretrain")
    assert (done.weights["backbone.norm3.weight"] == 7).all()


def test_half_precision_stays(tmp_path):
    weights = {k: v.bfloat16() for k, v in ConvNeXt(SMALL).state_dict().items()}
    done = convert(weights, "timm")
    assert {tensor.dtype for tensor in done.weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tool(tool, tmp_path, suffix):
    theirs = randomised(lambda: timm.create_model("convnext_atto", num_classes=7))
    torch.save(dict(state_dict=theirs.state_dict()), tmp_path / "in.pth")
    converted, back = tmp_path / f"converted{suffix}", tmp_path / f"back{suffix}"
    done = tool("convert_checkpoint", "in.pth", converted, "--to", "torchvision")
    assert done.code == 0, done.err
    assert "in.pth (timm) -> " in done.out
    assert "124 tensors" not in done.out
    done = tool("convert_checkpoint", converted, back, "--to", "timm")
    assert "timm.create_model('convnext_atto', in_chans=3, num_classes=7)" in done.out
    same(dict(checkpoints.read(back)), dict(theirs.state_dict()))
    # timm's own loading reads it.
    model = timm.create_model("convnext_atto", num_classes=7, checkpoint_path=str(back))
    same(dict(model.state_dict()), dict(theirs.state_dict()))


def test_tool_keeps_what_a_run_wrote_beside_the_weights(tool, tmp_path):
    model = build(SEG)
    meta = dict(dataset_meta=dict(classes=("a", "b")))
    content = dict(state_dict=model.state_dict(), meta=meta, optimizer=dict(state={}))
    torch.save(content, tmp_path / "in.pth")
    assert (
        tool("convert_checkpoint", "in.pth", "out.pth", "--to", "mmpretrain").code == 0
    )
    converted = checkpoints.read(tmp_path / "out.pth")
    assert converted["meta"] == meta
    assert "backbone.stages.0.0.depthwise_conv.weight" in converted["state_dict"]
    done = tool("convert_checkpoint", "in.pth", "other.pth", "--to", "timm")
    assert "no place for: auxiliary_head (8), decode_head (" in done.out


WRONG = {
    "nothing there": (["no.pth", "out.pth"], r"no checkpoint at no\.pth"),
    "itself": (["in.pth", "in.pth"], r"in\.pth is a file that this command reads"),
    "a format": (["in.pth", "out.onnx"], r"out\.onnx: name a file that ends in"),
    "a folder": (["in.pth", "no/out.pth"], r"there is no folder .*/no"),
    "damaged": (["bad.pth", "out.pth"], r"bad\.pth is damaged or not a checkpoint"),
    "hostile": (["evil.pth", "out.pth"], r"evil\.pth was not read: it asks for"),
}


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("mark",)


@pytest.mark.parametrize("case", WRONG)
def test_tool_with_wrong_input(tool, tmp_path, case):
    arguments, says = WRONG[case]
    torch.save(ConvNeXt(SMALL).state_dict(), tmp_path / "in.pth")
    torch.save(dict(state_dict=Evil()), tmp_path / "evil.pth")
    (tmp_path / "bad.pth").write_bytes((tmp_path / "in.pth").read_bytes()[:999])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = tool("convert_checkpoint", *arguments, "--to", "timm")
    assert done.code == 2
    assert re.search(says, done.err), done.err
    assert done.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tool_offers_every_target(tool):
    done = tool("convert_checkpoint", "a", "b", "--to", "nothing")
    offered = re.search(r"choose from (.*)\)", done.err)[1].replace("'", "")
    assert offered.split(", ") == list(origins.TARGETS)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "out.pth").write_bytes(b"before")

    def full(content, file):
        file.write(b"half")
        (partial,) = set(tmp_path.iterdir()) - {tmp_path / "out.pth"}
        assert partial.name.startswith(".convnext_dense-partial-")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"out\.pth could not be written.*No space"):
        writing.write({"a": torch.rand(1)}, tmp_path / "out.pth")
    assert (tmp_path / "out.pth").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    whole = torch.rand(4, 6)
    weights = {"a": whole, "b": whole.T, "c": whole[:, :2]}
    for name in ("x.pth", "x.safetensors"):
        writing.write(weights, tmp_path / name)
        same(checkpoints.read(tmp_path / name), weights)
    assert (tmp_path / "x.pth").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask
