"""The table of ``make test-gpu``, on the CPU with small models."""

import pytest

from convnext_dense.commands.benchmark import clock

from ...programs import gpu_table
from ...programs.gpu_table import Backbones, Model

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])
STEP = dict(ms=1.0, peak=0.5, kept=0.5)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setattr(clock, "MIN_ROUNDS", 1)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_line_for_each_figure():
    header, rule, *lines = gpu_table.lines(
        [Backbones((1, (32, 64), "training"), STEP, arch=SMALL)], "cpu", 0
    )
    assert cells(header) == ["", "figure", "aim", "ratio", "ours", "timm"]
    assert len(cells(rule)) == 6
    assert [cells(line)[1:3] for line in lines] == [
        *(["time", "1.00"], ["peak", "0.50"], ["kept for backward", "0.50"])
    ]
    for line in lines:
        assert cells(line)[0].endswith("training, 1 x 32 x 64")
        assert float(cells(line)[3]) > 0
        for side in cells(line)[4:]:
            amount, unit = side.split()
            assert float(amount) >= 0
            assert unit == ("ms" if "time" in line else "MB")


def test_a_failed_comparison_does_not_stop_the_others(capsys):
    lines = list(
        gpu_table.lines(
            [
                Backbones((1, (32, 32), "training"), STEP, arch="gigantic"),
                Backbones((1, (32, 32), "inference"), dict(ms=1.0), arch=SMALL),
            ],
            *("cpu", 0),
        )
    )[2:]
    assert ["FAILED: " in line for line in lines] == [True] * 3 + [False]
    assert "gigantic" in lines[0]
    assert "Traceback" in capsys.readouterr().err


def test_whole_models():
    model = Model("seg/upernet_convnext_atto_shapes.py", 2, 64, dict(ms=0.9))
    *_, line = gpu_table.lines([model], "cpu", 0)
    assert cells(line)[0] == "upernet_convnext_atto_shapes, 2 x 64 x 64"
    assert float(cells(line)[3]) > 0


@pytest.mark.parametrize("lines", [["| 0.4 |"], ["| 0.4 |", "| FAILED: x |"]])
def test_exit_code(monkeypatch, capsys, lines):
    monkeypatch.setattr(gpu_table.machine, "choose_device", lambda name: "cpu")
    monkeypatch.setattr(gpu_table, "lines", lambda *arguments: iter(lines))
    assert gpu_table.main([]) == len(lines) - 1
    assert capsys.readouterr().out.splitlines()[2:] == lines


def test_configs_of_all_comparisons_exist():
    assert len(set(map(str, gpu_table.COMPARISONS))) == len(gpu_table.COMPARISONS)
    for comparison in gpu_table.COMPARISONS:
        if isinstance(comparison, Model):
            assert (gpu_table.CONFIGS / comparison.config).is_file()
