"""The benchmark: peers that compute the same, honest columns, messages."""

import json

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from convnext_dense import ConvNeXt
from convnext_dense.benchmark import clock, machine, peers, report
from convnext_dense.benchmark.backbones import Row
from convnext_dense.errors import InputError

from .conftest import ROOT
from .peers import randomised

SMALL = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])


@pytest.fixture(autouse=True)
def needs_peers():
    pytest.importorskip("timm")
    pytest.importorskip("transformers")


def small(**kwargs):
    return randomised(lambda: ConvNeXt(SMALL, **kwargs))


@pytest.mark.parametrize("use_grn", [False, True], ids=["V1", "V2"])
def test_peers_agree(use_grn):
    ours = small(use_grn=use_grn)
    built = peers.build(ours, peers.installed())
    libraries = {"timm", "transformers"} | ({"torchvision"} if not use_grn else set())
    assert {peer.library for peer in built} >= libraries
    assert not peers.disagreements(ours, built, torch.rand(1, 3, 64, 96))


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_peers_have_the_drop_path_of_ours(library):
    (peer,) = peers.build(small(drop_path_rate=0.4), [library])
    found = [m.p for m in peer.module.modules() if isinstance(m, StochasticDepth)]
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4])  # the first of five has none
    (peer,) = peers.build(small(), [library])
    assert not any(isinstance(m, StochasticDepth) for m in peer.module.modules())


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_peer_that_differs_is_found(library):
    ours = small()
    (peer,) = peers.build(ours, [library])
    last = [p for p in peer.module.parameters() if p.ndim > 1][-1]
    nn.init.normal_(last)
    (found,) = peers.disagreements(ours, [peer], torch.rand(1, 3, 64, 64))
    assert found.startswith(f"{library}: map 3 differs by ")


def test_a_gradient_that_differs_is_found():
    ours = small()
    (peer,) = peers.build(ours, ["timm"])
    weight = peer.module.get_parameter("stem_0.weight")
    weight.register_hook(lambda grad: 1.01 * grad)
    (found,) = peers.disagreements(ours, [peer], torch.rand(1, 3, 64, 64))
    assert "gradient of stem_0.weight" in found


def test_bytes_are_counted():
    """A chain whose bytes can be counted by hand."""
    layer = nn.Linear(100, 300)
    x = torch.rand(1000, 100)

    def forward():
        return torch.tanh(layer(x)).exp()

    # The input, tanh's result and exp's: fp32.
    assert clock.kept_bytes(forward, layer.parameters()) == 4000 * (100 + 300 + 300)

    def allocate():
        a = torch.empty(10**6)
        del a
        b = torch.empty(2 * 10**6)
        c = torch.empty(10**6)
        return b, c

    assert clock.peak_bytes(allocate, "cpu") == pytest.approx(12 * 10**6, rel=0.01)


def test_functions_are_timed_in_turn():
    calls = []
    functions = [lambda: calls.append("a"), lambda: calls.append("b")]
    times = clock.in_turn(functions, "cpu", seconds=0)
    assert len(times) == 2
    assert calls[: 2 * clock.WARM_UP] == ["a"] * clock.WARM_UP + ["b"] * clock.WARM_UP
    assert calls[2 * clock.WARM_UP :] == ["a", "b"] * clock.MIN_ROUNDS


ROWS = [
    Row("convnext_dense", "nchw", 50.0, 0.5, 0.8, 200, 300),
    Row("timm", "channels_last", 100.0, 1.0, 0.4, 500, 1000),
    Row("torchvision", "nchw", 150.0, 1.5, 0.3, 400, 1200),
]


def test_ratios_are_to_the_best_peer_of_each_column():
    assert report.ratio(ROWS, ROWS[0], "kept") == 0.5
    assert report.ratio(ROWS, ROWS[0], "peak") == 0.3
    assert report.ratio(ROWS, ROWS[1], "kept") == 1.25
    assert "0.50" in report.table(ROWS).splitlines()[1]


def test_tool_measures_and_draws(tool, tmp_path):
    done = tool(
        *("benchmark", "--arch", "atto", "--size", 64, "--seconds", 0),
        *("--execution", "eager", "--dtype", "fp32", "--device", "cpu"),
        *("--peers", "timm", "--json", tmp_path / "b.json"),
        *("--plot", tmp_path / "b.png"),
    )
    assert done.code == 0
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["about"] in done.out
    settings = [group["setting"] for group in result["measured"]]
    assert settings == [f"64 x 64, {m}, fp32, eager" for m in ("inference", "training")]
    for group in result["measured"]:
        ours, timm = group["rows"]
        assert (ours["library"], timm["library"]) == ("convnext_dense", "timm")
        assert ours["ratio"] == pytest.approx(ours["ms"] / timm["ms"])
    assert 0 < ours["kept"] <= 0.5 * timm["kept"]  # of the training step
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_tool_measures_whole_models(tool, tmp_path):
    done = tool(
        *("benchmark", ROOT / "configs/det/cascade_mask_rcnn_convnext_atto_shapes.py"),
        ROOT / "configs/seg/upernet_convnext_atto_shapes.py",
        *("--size", 64, "--seconds", 0, "--dtype", "fp32", "--device", "cpu"),
        *("--json", tmp_path / "b.json"),
    )
    assert done.code == 0
    result = json.loads((tmp_path / "b.json").read_text())
    assert [group["setting"] for group in result["measured"]] == [
        "cascade_mask_rcnn_convnext_atto_shapes, 2 x 64 x 64, fp32",
        "upernet_convnext_atto_shapes, 2 x 64 x 64, fp32",
    ]
    for group in result["measured"]:
        assert [row["library"] for row in group["rows"]] == ["convnext_dense", "timm"]
        assert all(row["ms"] > 0 and row["peak"] > 0 for row in group["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "gigantic"], "gigantic"),
        (["--size", 16], "too small"),
        (["--drop-path-rate", 1], "drop_path_rate=1.0"),
        (["--size", 64, "--plot", "a.word"], "no picture in a.word"),
        (["nowhere.py"], "no config at nowhere.py"),
        (
            [ROOT / "configs/seg/upernet_roadmap_resnet50_shapes.py"],
            "no ConvNeXt of this package",
        ),
    ],
    ids=["arch", "size", "drop path", "picture", "config", "other backbone"],
)
def test_mistakes_are_messages(tool, arguments, message):
    quick = "--peers", "timm", "--mode", "inference", "--dtype", "fp32"
    quick += "--execution", "eager", "--arch", "atto", "--seconds", 0
    done = tool("benchmark", *quick, *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_a_message():
    with pytest.raises(InputError, match="finds no GPU"):
        machine.device("cuda")
