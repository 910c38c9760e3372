"""convnext-dense benchmark: equal peers, correct columns and ratios, and mistakes."""

import json
import re
import sys
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from matplotlib.axes import Axes
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torchvision.ops import StochasticDepth

from convnext_dense import ConvNeXt
from convnext_dense.commands.benchmark import (
    backbones,
    clock,
    machine,
    models,
    peers,
    plot,
    rows,
    steps,
    table,
)
from convnext_dense.commands.benchmark.measuring import Figures
from convnext_dense.commands.benchmark.rows import Row
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT
from ..helpers.peers import randomised

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
    rates = [m.p for m in peer.module.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])  # not in the first block
    (peer,) = peers.build(small(), [library])
    assert not any(isinstance(m, StochasticDepth) for m in peer.module.modules())


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_peer_that_differs_is_found(library):
    ours = small()
    (peer,) = peers.build(ours, [library])
    last = [p for p in peer.module.parameters() if p.ndim > 1][-1]
    nn.init.normal_(last)
    (message,) = peers.disagreements(ours, [peer], torch.rand(1, 3, 64, 64))
    assert message.startswith(f"{library}: map 3 differs by ")


def test_a_gradient_that_differs_is_found():
    ours = small()
    (peer,) = peers.build(ours, ["timm"])
    weight = peer.module.get_parameter("stem_0.weight")
    weight.register_hook(lambda grad: 1.01 * grad)
    (message,) = peers.disagreements(ours, [peer], torch.rand(1, 3, 64, 64))
    assert "gradient of stem_0.weight" in message


ROWS = [
    Row("convnext_dense", "eager", "nchw", 2, Figures(50.0, 20.0, 40.0, 9, 200, 300)),
    Row("timm", "eager", "nchw", 2, Figures(150.0, 90.0, 80.0, 90, 400, 1200)),
    Row(
        *("timm", "reduce-overhead", "channels_last", 2),
        Figures(100.0, 10.0, 60.0, 50, None, 1000),
    ),
]


def test_ratios_are_to_the_best_peer_however_it_is_run():
    assert rows.ratio(ROWS, ROWS[0], "ms") == 0.5
    assert rows.ratio(ROWS, ROWS[0], "host_ms") == 2
    assert rows.ratio(ROWS, ROWS[0], "kept") == 0.5  # timm's other row has none
    assert rows.ratio(ROWS, ROWS[0], "peak") == 0.3
    assert rows.ratio(ROWS, ROWS[1], "peak") == 1.2
    assert rows.ratio(ROWS, ROWS[2], "kept") is None
    assert rows.ratio(ROWS[:1], ROWS[0], "ms") is None


def test_a_table_has_the_columns_that_something_is_in():
    header, ours, _, reduced = table.to_text(ROWS).splitlines()
    assert header.split("  ")[-1]
    assert re.split(" {2,}", header.strip()) == [
        *("layout", "ms", "ratio", "host ms", "kernel ms", "launches", "images/s"),
        *("kept MB", "ratio", "peak MB", "ratio"),
    ]
    assert re.split(" {2,}", ours.strip())[:8] == [
        *("convnext_dense", "nchw", "50.00", "0.50", "20.00", "40.00", "9", "40.0")
    ]
    assert reduced.strip().startswith("timm, reduce-overhead  channels_last")
    whole = [ROWS[0]._replace(backbone_ms=20.0), ROWS[1]._replace(backbone_ms=90.0)]
    assert [line.split()[-1] for line in table.to_text(whole).splitlines()] == [
        *("share", "40%", "60%")
    ]


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_picture_has_a_panel_for_each_figure(tmp_path, monkeypatch, on_gpu):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    measured = ROWS
    if not on_gpu:
        empty = dict(kernel_ms=None, launches=None)
        measured = [r._replace(figures=r.figures._replace(**empty)) for r in ROWS]
    plot.draw([("a", measured), ("b", measured[:2])], tmp_path / "p.png", "title")
    times = ["time", "host time", "kernel time"] if on_gpu else ["time"]
    assert titles == [f"{time} of a step" for time in times] + [
        *("bytes kept for the backward pass", "bytes at the peak")
    ]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


class Graphed(ConvNeXt):
    """Takes ``cuda_graphs`` and runs eagerly, for a machine without a GPU."""

    made = 0

    def __init__(self, *args, cuda_graphs=False, **kwargs):
        super().__init__(*args, **kwargs)
        Graphed.made += cuda_graphs


@pytest.mark.parametrize("use_grn", [False, True], ids=["V1", "V2"])
def test_every_library_has_a_row_for_each_way_to_run_it(monkeypatch, use_grn):
    monkeypatch.setattr(backbones, "ConvNeXt", Graphed)
    monkeypatch.setattr(Graphed, "made", 0)
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    candidates = backbones.Candidates(
        *(["timm"], ["eager", "graphs"], ["eager", "reduce-overhead"]),
        ["nchw", "channels_last"],
    )
    setting = backbones.Setting(2, (32, 64), "training", "bf16")
    (group,) = backbones.compare(SMALL, [setting], candidates, "cpu", 0, use_grn, 0.1)
    heading, measure = group
    assert heading == "2 x 32 x 64, training, bf16"
    measured = measure()
    assert [row.name for row in measured] == [
        *("convnext_dense", "convnext_dense, graphs"),
        *("timm", "timm, reduce-overhead"),
    ]
    assert Graphed.made == 1
    for row in measured:
        replays = row.execution in ("graphs", "reduce-overhead")
        assert (row.figures.kept is None) == replays
        assert row.figures.ms >= row.figures.host_ms > 0
        assert row.figures.kernel_ms is row.figures.launches is None
        if row.execution != "reduce-overhead":  # recorded on a GPU only
            assert row.figures.peak > 0
        assert row.floor > 0
        assert row.images_per_second == pytest.approx(2000 / row.figures.ms)


def test_reduce_overhead_marks_where_a_step_begins(monkeypatch):
    """Otherwise a step would overwrite the last one's outputs while they are used."""
    calls = []
    layer = nn.Conv2d(3, 3, 1)

    def compiled(module, mode):
        return lambda x: calls.append(mode) or [module(x)]

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(
        torch.compiler, "cudagraph_mark_step_begin", lambda: calls.append("begin")
    )
    x = torch.rand(1, 3, 4, 4)
    for make in (steps.inference, steps.training):
        step = make(layer, x, "bf16", "reduce-overhead")
        assert step.graphs
        assert not make(layer, x, "fp32", "eager").graphs
        step.run()
        step.run()
    assert calls == ["begin", "reduce-overhead"] * 4
    assert all(p.grad is None for p in layer.parameters())


def test_tool_measures_and_draws(tool, tmp_path):
    done = tool(
        *("benchmark", "--arch", "atto", "--size", 64, "--seconds", 0),
        *("--dtype", "fp32", "--device", "cpu", "--layout", "channels_last"),
        *("--peers", "timm", "--json", tmp_path / "b.json"),
        *("--plot", tmp_path / "b.png"),
    )
    assert done.code == 0
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["about"] in done.out
    settings = [group["setting"] for group in result["measured"]]
    assert settings == [f"1 x 64 x 64, {m}, fp32" for m in ("inference", "training")]
    for group in result["measured"]:
        ours, timm = group["rows"]
        assert (ours["library"], timm["library"]) == ("convnext_dense", "timm")
        assert ours["ms_ratio"] == pytest.approx(ours["ms"] / timm["ms"])
        assert ours["images_per_second"] == pytest.approx(1e3 / ours["ms"])
    assert 0 < ours["kept"] <= 0.5 * timm["kept"]  # of the training step
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tool_measures_a_gpu(tool, tmp_path):
    done = tool(
        *("benchmark", "--arch", "atto", "--size", "64x96", "--seconds", 1, "--graphs"),
        *("--peers", "timm", "--layout", "channels_last", "--dtype", "bf16"),
        *("--json", tmp_path / "b.json", "--plot", tmp_path / "b.png"),
    )
    assert done.code == 0
    inference, training = json.loads((tmp_path / "b.json").read_text())["measured"]
    for row in inference["rows"] + training["rows"]:
        assert 0 < row["host_ms"] <= row["ms"]
        assert row["kernel_ms"] > 0
        assert row["launches"] > 0
        assert row["peak"] > 0
    names = [(row["library"], row["execution"]) for row in training["rows"]]
    ours = "convnext_dense"
    assert names == [(ours, "eager"), (ours, "graphs"), ("timm", "eager")]
    assert [row["kept"] is None for row in training["rows"]] == [False, True, False]


def test_tool_measures_whole_models(tool, tmp_path):
    done = tool(
        *("benchmark", ROOT / "configs/det/cascade_mask_rcnn_convnext_atto_shapes.py"),
        ROOT / "configs/seg/upernet_convnext_atto_shapes.py",
        *("--size", "64x96", "--seconds", 0, "--dtype", "fp32", "--device", "cpu"),
        *("--json", tmp_path / "b.json"),
    )
    assert done.code == 0
    result = json.loads((tmp_path / "b.json").read_text())
    assert [group["setting"] for group in result["measured"]] == [
        "cascade_mask_rcnn_convnext_atto_shapes, 2 x 64 x 96, fp32",
        "upernet_convnext_atto_shapes, 2 x 64 x 96, fp32",
    ]
    for group in result["measured"]:
        assert [row["library"] for row in group["rows"]] == ["convnext_dense", "timm"]
        for row in group["rows"]:
            assert row["peak"] > 0
            share = row["backbone_ms"] / row["ms"]
            assert row["backbone_share"] == pytest.approx(share)
    assert " share\n" in done.out


def test_whole_models_have_a_row_with_graphs(monkeypatch):
    MODELS.register_module(name="Graphed", module=Graphed, force=True)
    monkeypatch.setattr(Graphed, "made", 0)
    cfg = Config.fromfile(ROOT / "configs/seg/upernet_convnext_atto_shapes.py")
    cfg.model.backbone.type = "Graphed"
    monkeypatch.setattr(clock, "MIN_ROUNDS", 1)
    measured = models.compare(cfg, (32, 64), 2, "cpu", "fp32", 0, graphs=True)
    assert [row.name for row in measured] == [
        *("convnext_dense", "convnext_dense, graphs", "timm")
    ]
    assert Graphed.made == 1
    assert all(row.share > 0 and row.images == 2 for row in measured)


class HostRow(NamedTuple):
    channels: int
    blocks: int
    forward_us: float
    backward_us: float
    forward_launches: int
    backward_launches: int


def test_the_hosts_part_is_a_line_a_stage_and_one_for_a_block(
    tool, monkeypatch, tmp_path
):
    asked = []

    def measure(*arguments):
        asked.append(arguments)
        return [HostRow(8, 1, 100.0, 150.0, 7, 12), HostRow(16, 3, 140.0, 210.4, 9, 15)]

    package = ModuleType("convnext_dense.models.fused.gpu")
    package.host_time = ModuleType("convnext_dense.models.fused.gpu.host_time")
    package.host_time.measure = measure
    monkeypatch.setitem(sys.modules, package.__name__, package)
    done = tool("benchmark", "--host", "--arch", "atto", "--v2", "--json", "h.json")
    assert done.code == 0
    assert asked == [("atto", True, 0.0)]
    assert done.out.splitlines()[-3:] == [
        "8 channels, 1 blocks: forward 100 us, 7 launches; backward 150 us, "
        "12 launches",
        "16 channels, 3 blocks: forward 140 us, 9 launches; backward 210 us, "
        "15 launches",
        "host time per block: forward 60 us, backward 90 us",
    ]
    (first, _) = json.loads((tmp_path / "h.json").read_text())["stages"]
    assert first == HostRow(8, 1, 100.0, 150.0, 7, 12)._asdict()


def test_the_hosts_part_is_measured_without_a_gpu(tool):
    pytest.importorskip("triton")
    done = tool("benchmark", "--host", "--arch", "atto", "--drop-path-rate", 0.1)
    assert done.code == 0
    *stages, total = done.out.splitlines()[-5:]
    assert all(re.match(r"\d+ channels, \d+ blocks: forward ", line) for line in stages)
    forward, backward = re.fullmatch(
        r"host time per block: forward (\d+) us, backward (\d+) us", total
    ).groups()
    assert int(forward) > 0
    assert int(backward) > 0


def test_without_triton_the_hosts_part_is_a_message(tool, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    package = ModuleType("convnext_dense.models.fused.gpu")
    error = ModuleNotFoundError("No module named 'triton'", name="triton")
    package.__getattr__ = lambda name: (_ for _ in ()).throw(error)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    done = tool("benchmark", "--host")
    assert done.code == 2
    assert "--host needs Triton" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "gigantic"], "gigantic"),
        (["--size", 16], "too small"),
        (["--size", "64x"], "64x is not a size"),
        (["--size", "64x-2"], "64x-2 is not a size: give a number of pixels"),
        (["--graphs"], "--graphs needs a GPU"),
        (["--execution", "reduce-overhead"], "--execution reduce-overhead needs a GPU"),
        (
            ["--peers-execution", "reduce-overhead"],
            "--peers-execution reduce-overhead needs a GPU",
        ),
        (["--drop-path-rate", 1], "drop_path_rate=1.0"),
        (["--size", 64, "--plot", "a.word"], "no picture in a.word"),
        (["nowhere.py"], "no config at nowhere.py"),
        (
            [ROOT / "configs/seg/upernet_roadmap_resnet50_shapes.py"],
            "no ConvNeXt of this package",
        ),
    ],
    ids=[
        *("arch", "size", "no size", "negative", "graphs", "reduced", "peers reduced"),
        *("drop path", "picture", "config", "other backbone"),
    ],
)
def test_mistakes_are_messages(tool, arguments, message):
    quick = "--peers", "timm", "--mode", "inference", "--dtype", "fp32"
    quick += "--device", "cpu", "--arch", "atto", "--seconds", 0
    done = tool("benchmark", *quick, *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_a_message():
    with pytest.raises(InputError, match="finds no GPU"):
        machine.choose_device("cuda")
