"""What the page about a run shows of many classes: figures, tables, its size."""

import json
import re

import numpy as np
import pytest
from mmengine.config import Config

from convnext_dense.reports.run import (
    curves,
    figures,
    page,
    panels,
    result_figures,
    tables,
)
from convnext_dense.reports.run.results import ValidationResults

HOSTILE = ("<b>disc</b>", "squäre & co", '"triangle"', "$x_1$", "<script>alert(1)")


def log(folder, rows):
    file = folder / "20260101_000000/vis_data/scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(map(json.dumps, rows)))


def step(iteration, **more):
    return dict(iter=iteration, step=iteration, loss=1.0, lr=0.1, time=0.5, **more)


def validation(epoch, values):
    """What mmdet logs with ``classwise=True``, for boxes and masks."""
    rows = {f"coco/{name}_precision": value for name, value in values.items()}
    means = {f"coco/{group}_mAP": 0.1 * epoch for group in ("bbox", "segm")}
    return dict(rows, **means, step=epoch)


def detection_results(count):
    """Made results of ``count`` classes; class 7 has no objects."""
    rng = np.random.default_rng(0)
    classes = (*HOSTILE, *(f"class {i}" for i in range(count - len(HOSTILE))))
    matrix = np.diag(np.full(count + 1, 50))
    places = rng.integers(0, count, (2, 4 * count))
    np.add.at(matrix, tuple(places), 1)
    matrix[0, 1], matrix[2, count] = 30, 90
    ap = np.where(np.arange(count) == 7, np.nan, rng.random(count))
    falling = np.linspace(1, 0, 101) ** rng.uniform(0.2, 4, (count, 1))
    return ValidationResults(
        classes=classes,
        columns=("box AP", "objects"),
        per_class=np.stack([ap, rng.integers(0, 99, count)], 1),
        matrix=matrix,
        matrix_names=(*classes, "background"),
        matrix_note="",
        precision=np.where(np.isnan(ap)[:, None], np.nan, falling),
        best=[],
        worst=[],
        measure="",
        unreadable=0,
    )


def write_page(tmp_path, results, rows):
    log(tmp_path / "run", rows)
    cfg = Config(dict(default_scope="mmdet", work_dir="x"))
    page.write(tmp_path / "p.html", tmp_path / "run", cfg, results, None, None, {})
    return (tmp_path / "p.html").read_text()


def names_in(legend):
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(("count", "limit"), [(80, 5e5), (900, 1e6)])
def test_a_page_is_small_and_starts_with_the_worst(tmp_path, count, limit):
    results = detection_results(count)
    rows = [
        step(50 * i, epoch=1 + i // 100, loss_a=1.0, grad_norm=2.0)
        for i in range(1, 1001)
    ]
    rng = np.random.default_rng(1)
    final = dict(zip(results.classes, rng.random(count), strict=True))
    for epoch in range(1, 10):
        values = {name: value * epoch / 9 for name, value in final.items()}
        rows.insert(101 * epoch - 2, validation(epoch, values))
    text = write_page(tmp_path, results, rows)
    assert len(text) < limit
    assert not re.search("<b>disc|<script", text)
    assert f"1 of {count} classes are not in the data" in text

    ap = results.per_class[:, 0]
    worst, best, whole = re.findall(
        r"<table(?: class=\"short\")?>\s*<tr><th>class</th>.*?</table>", text, re.S
    )
    shown = [
        [float(v) for v in re.findall(r"<td>(\d\.\d{3})</td>", table)]
        for table in (worst, best, whole)
    ]
    assert shown[0] == pytest.approx(np.sort(ap)[: tables.ROWS], abs=6e-4)
    known = np.sort(ap[np.isfinite(ap)])[::-1]
    assert shown[1] == pytest.approx(known[: tables.ROWS], abs=6e-4)
    assert shown[2] == pytest.approx([known.mean(), *known], abs=6e-4)
    assert text.index(worst) < text.index(best) < text.index("<details><summary>All")
    assert text.index("<details><summary>All") < text.index(whole)

    changed = re.search("Changed most.*?</table>", text, re.S)[0]
    differences = [float(v) for v in re.findall(r"([+-]\d\.\d{3})<", changed)]
    expected = np.sort(list(final.values()))[::-1][: tables.ROWS] * 8 / 9
    assert differences == pytest.approx(expected, abs=6e-4)
    assert "class, mask AP</th><th>epoch 1</th><th>epoch 9</th>" in changed
    pairs = re.findall(
        r'<tr><td>([^<]*)</td><td style="text-align: left">([^<]*)<', text
    )
    assert pairs[0] == ("&lt;b&gt;disc&lt;/b&gt;", "squäre &amp; co")
    assert len(pairs) == tables.CONFUSED


def class_values(count, validations=5):
    names = [f"class {i}" for i in range(count)]
    values = np.linspace(0, 1, validations)[:, None] * np.linspace(0.1, 0.9, count)
    values[:, 1] = np.nan
    return curves.ClassValues("box AP", names, values)


@pytest.mark.parametrize("count", [3, 80, 150, 900])
def test_curves_of_classes(count):
    logged = class_values(count)
    validations = [curves.Validation(10 * e, e, {}) for e in range(1, 6)]
    figure = figures.class_values(logged, validations)
    (axes,) = figure.axes
    (legend,) = figure.legends
    names = names_in(legend)
    if count == 3:
        assert names == logged.names
        return
    assert len(axes.lines) == 9
    assert len(names) == 11
    assert names[:3] == [f"80 % of {count} classes", f"50 % of {count}", "mean"]
    assert set(names[3:7]) == set(logged.names[-4:])  # they changed most
    assert set(names[7:]) == {"class 0", "class 2", "class 3", "class 4"}  # the worst
    assert axes.lines[0].get_ydata() == pytest.approx(np.nanmean(logged.values, 1))


def test_metrics_of_classes_do_not_crowd_out_the_others(tmp_path):
    values = {f"c{i}": i / 100 for i in range(80)} | {"a/b_c": 0.5}
    rows = [step(1, epoch=1), validation(1, values), step(2, epoch=2)]
    log(tmp_path, [*rows, validation(2, {**values, "c3": float("nan")})])
    read, by_class = curves.without_classes(curves.read(tmp_path).validations)
    assert list(read[0].metrics) == ["coco/bbox_mAP", "coco/segm_mAP"]
    assert by_class.measure == "mask AP"
    assert by_class.names == list(values)
    assert np.isnan(by_class.values[1, 3])
    assert 3 not in by_class.changed()
    assert 3 not in by_class.worst()
    drawn = figures.metrics(read, "coco/bbox_mAP", read[1])
    assert [f.axes[0].get_title(loc="left") for f in drawn] == [
        *("coco/bbox", "coco/segm")
    ]
    # A project whose only metric has such a name.
    only = [curves.Validation(1, 1, {"x_precision": 0.5})]
    assert curves.without_classes(only) == (only, None)


def test_precision_of_many_classes_is_two_areas():
    precision = detection_results(80).precision
    figure = result_figures.precision_recall(precision, range(80))
    assert len(figure.axes[0].lines) == 1
    assert names_in(figure.legends[0])[0] == "80 % of 79 classes"
    assert result_figures.precision_recall(precision[7:8], ("x",)) is None


def test_the_confusion_shows_the_most_confused_classes():
    results = detection_results(900)
    matrix, names = result_figures.most_confused(
        results.matrix, results.matrix_names, 900
    )
    assert len(matrix) == len(names) == result_figures.MOST_SHOWN + 2
    assert matrix.sum() == results.matrix.sum()
    assert names[:2] == list(HOSTILE[:2])
    assert matrix[0, 1] == 30
    others = 900 - result_figures.MOST_SHOWN
    assert names[-2:] == [f"{others} other classes", "background"]
    assert matrix[:-2, -1].sum() + matrix[-2, -1] == results.matrix[:-1, -1].sum()
    (axes, _) = result_figures.confusion(matrix, names).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == names

    few = result_figures.most_confused(np.eye(21), [*"abcdefghijklmnopqrst", "bg"], 20)
    assert len(few[1]) == 21
    nothing = result_figures.most_confused(np.eye(900), list(map(str, range(900))), 900)
    assert nothing[0].sum() == 900


def test_many_terms_of_the_loss_have_a_short_legend():
    rows = [
        {"iter": i, **{f"d{n}.loss_cls": 1.0 + n for n in range(40)}} for i in (1, 2)
    ]
    (figure,) = figures.training(rows)
    names = names_in(figure.legends[0])
    assert names == [f"d{n}.loss_cls" for n in range(32, 40)] + ["and 32 more"]
    assert len(figure.axes[0].lines) == 41


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        ([1], ["1"]),
        ([1, 2], ["1", "2"]),
        ([0, 160_000], ["0", "40k", "80k", "120k", "160k"]),
        ([10, 4000], ["0", "1k", "2k", "3k", "4k"]),
    ],
)
def test_axes_count_in_whole_numbers(at, shown):
    figure, axes = panels.panel("")
    panels.draw(axes, [panels.curve("a", [(x, 1.0) for x in at])])
    panels.count_axis(axes, "epoch")
    figure.canvas.draw()
    left, right = axes.get_xlim()
    ticks = [
        text.get_text()
        for text in axes.get_xticklabels()
        if left <= text.get_position()[0] <= right and text.get_text()
    ]
    assert ticks == shown
