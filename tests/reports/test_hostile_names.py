"""Names and logs made to break figures, drawings and pages, or to run in a browser."""

import base64
import html.parser
import io
import json
import os
import re
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from convnext_dense.commands.inspect_data.page import _short
from convnext_dense.errors import InputError
from convnext_dense.optim import layer_decay_plot
from convnext_dense.reports import drawing, pages
from convnext_dense.reports.drawing import Drawer, palette
from convnext_dense.reports.run import (
    curves,
    figures,
    page,
    panels,
    result_figures,
    tables,
)
from convnext_dense.reports.run.hook import MOST_CLASSES, RunReportHook
from convnext_dense.reports.run.results import draw_picture
from convnext_dense.utils import image_content

NAMES = (
    *("$\\frac{1}{$", "$$", "\\$", "a\nb", "\udcff", "\u202egnp.exe", "\x1b[31m", "\0"),
    *(
        "</style><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "a" * 10**5,
    ),
    *("javascript:alert(1)", "]]>", "<!--", "{{ 7 * 7 }}", "{% raw %}", "&#60;b&#62;"),
    *("\u2028", "\ufeff", "_hidden", "%s {}", "'\"", "\U0001f41e", "Käfer"),
)


class Reader(html.parser.HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links = [v for name, v in attributes if name in ("href", "src")]
        assert all(v.startswith("data:image/") for v in self.links)

    def handle_data(self, text):
        self.texts.append(text)


def test_a_page_shows_names_as_text(tmp_path):
    file = tmp_path / "page.html"
    split = dict(
        name="train", facts=[], samples=[(n, Markup("<b></b>")) for n in NAMES]
    )
    problem = SimpleNamespace(level="error", what="what", remedy="remedy")
    pages.write(
        file,
        "data_report.html",
        title=NAMES[8],
        folders=[(name, Path(name)) for name in NAMES],
        with_objects=False,
        splits=[dict(split, problems=[(problem, "advice", NAMES)])],
        names_shown=100,
        classes_drawn=1,
        rows=[dict(name=name, splits=[]) for name in NAMES],
        classes="",
        sizes=[],
    )
    text = file.read_text(encoding="utf-8")
    read = Reader(text)
    assert "script" not in read.tags
    assert not {name for name in read.attributes if name.startswith("on")}
    assert not set(text) & {"\u202e", "\x1b", "\0", "\u2028", "\ufeff"}
    shown = "".join(read.texts)
    for name in ("Käfer", "{{ 7 * 7 }}", "\\udcff", "\\u202egnp.exe", "&#60;b&#62;"):
        assert name in shown
    assert "\U0001f41e" in shown


def svg_of(element: str) -> ElementTree.Element:
    encoded = re.search('base64,([^"]*)', element)[1]
    return ElementTree.fromstring(base64.b64decode(encoded))


def test_names_in_any_script_stay_text():
    figure = Figure()
    figure.subplots().set_title("猫")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = [element.text for element in svg_of(pages.figure(figure)).iter()]
    assert "猫" in texts


def test_figures_are_valid_svg():
    train = [
        {"iter": i, "loss": 1.0, **{f"loss{n}": 1.0 for n in NAMES}} for i in (1, 2)
    ]
    precision = np.full((len(NAMES), 101), np.nan)
    precision[:9] = 0.5
    validation = curves.Validation(1, None, dict.fromkeys(NAMES, 1.0))
    classes = curves.ClassValues("AP", list(NAMES), np.ones((2, len(NAMES))))
    with panels.style():
        drawn = [
            *figures.training(train),
            *figures.metrics([validation], NAMES[0], validation),
            figures.class_values(classes, [validation] * 2),
            result_figures.confusion(np.eye(len(NAMES)), NAMES),
            result_figures.precision_recall(precision, NAMES),
        ]
        for figure in drawn:
            tree = svg_of(pages.figure(figure))
            assert not [e for e in tree.iter() if e.tag.endswith("script")]
            texts = {e.text for e in tree.iter() if e.tag.endswith("text")}
            assert all(len(text) <= 80 for text in texts if text)


def test_logged_names_are_bounded():
    names = [f"loss{number}" for number in range(1000)]
    row = {"iter": 1, "loss": 1.0, **dict.fromkeys(names, 1.0)}
    _, figure = figures.training([row, {**row, "iter": 2}])
    (axes,) = figure.axes
    assert len(axes.lines) == panels.MOST_LINES + 1  # and "... more"
    validation = curves.Validation(1, None, dict.fromkeys([*names, "mIoU"], 1.0))
    (figure,) = figures.metrics([validation], "mIoU", validation)
    assert len(figure.axes[0].lines) == panels.MOST_LINES + 2  # and its star


def test_drawings_of_names():
    drawer = Drawer("mmdet", dict(classes=NAMES))
    count = len(NAMES)
    instances = InstanceData(
        bboxes=torch.tensor([[5.0, 5, 60, 40]]).repeat(count, 1),
        labels=torch.arange(count),
        scores=torch.full((count,), 0.9),
    )
    image = np.zeros((64, 96, 3), np.uint8)
    start = time.process_time()
    drawn = drawer.prediction(image, DetDataSample(pred_instances=instances))
    assert time.process_time() - start < 20
    assert drawn.shape == image.shape
    assert drawn.any()
    assert len(palette(NAMES)) == count
    assert palette((7, None)) == palette(("7", "None"))


def test_images_too_large_to_draw(tmp_path, monkeypatch):
    import cv2

    monkeypatch.setattr(image_content, "ALWAYS_FREE", 0)
    monkeypatch.setattr(image_content, "free_memory", lambda: 100 * drawing.DRAWING)
    drawer = Drawer("mmdet", dict(classes=("a",)))
    sample = DetDataSample(pred_instances=InstanceData(bboxes=torch.zeros(0, 4)))
    with pytest.raises(InputError, match="GB of memory"):
        drawer.prediction(np.zeros((20, 20, 3), np.uint8), sample)
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((20, 20, 3), np.uint8))
    assert draw_picture(drawer, str(tmp_path / "x.png"), "", sample) is None


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_on_axes(name):
    figure = Figure()
    figure.subplots().set_title(_short(name))
    figure.savefig(io.BytesIO(), format="png")
    assert len(_short(name)) < 100


def test_title_of_the_plot_of_layer_decay(tmp_path):
    names = ["backbone.stages.0.0.gamma", "backbone.norm0.weight"]
    groups = [dict(param_names=names, lr_scale=0.5)]
    for title in (NAMES[0], NAMES[4]):
        layer_decay_plot.draw(groups, tmp_path / "x.png", title)


# Logs


def written(folder, *lines):
    file = folder / "20260101_000000/vis_data/scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join([*lines, '{"step": 30, "iter": 30, "loss": 1.0}']))
    return curves.read(folder)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 10**5,
        '{"a":' * 10**5,
        '{"step": 1, "iter": ' + "9" * 10**5 + "}",
        '{"step": 1e999, "iter": 1}',
        '{"step": 1, "iter": NaN}',
        '{"step": 1, "iter": null}',
        '{"step": true, "iter": 1}',
        '{"step": 1, "iter": 10000000000000000000000}',
        '{"step": 1, "iter": 1, "epoch": "1"}',
        "\ufeff",
    ],
    ids=range(10),
)
def test_lines_that_are_left_out(tmp_path, line):
    start = time.process_time()
    read = written(tmp_path, line)
    assert (read.unreadable, len(read.train)) == (1, 1)
    assert time.process_time() - start < 5


def test_values_that_are_no_numbers(tmp_path):
    row = dict(step=10, iter=10, loss="x", lr=[1], time=None, data_time={}, memory="y")
    read = written(tmp_path, json.dumps(row))
    assert read.unreadable == 0
    assert read.train[0] == dict(step=10, iter=10)


@pytest.mark.parametrize("value", ["1e308", "-1e308", "9" * 22, "1e-320", "1e37"])
def test_numbers_that_cannot_be_drawn(tmp_path, value):
    line = '{"step": 10, "iter": 10, "loss": %s, "lr": %s, "memory": %s}'
    read = written(tmp_path, line % ((value,) * 3))
    assert page._warnings(read, None)[:1] == (
        ["The loss is not finite at 1 of 2 logged iterations, first at 10."]
        if "308" in value
        else []
    )
    with panels.style():
        for figure in figures.training(read.train):
            figure.savefig(io.BytesIO(), format="svg")


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1", "1e300", "9" * 90])
def test_times_that_are_no_times(tmp_path, seconds):
    line = '{"step": 10, "iter": 10, "loss": Infinity, "time": %s, "data_time": %s}'
    read = written(tmp_path, line % (seconds, seconds))
    assert tables.timing(read, None) == {}
    with panels.style():
        for figure in (*figures.training(read.train), figures.timing(read.train)):
            figure.savefig(io.BytesIO(), format="svg")


def test_a_log_that_is_a_pipe(tmp_path):
    folder = tmp_path / "20260101_000000/vis_data"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "scalars.json")
    with pytest.raises(InputError, match=r"scalars\.json is a pipe"):
        curves.read(tmp_path)


def test_too_many_classes_for_a_matrix(monkeypatch):
    from convnext_dense.reports.run import hook

    monkeypatch.setattr(hook, "collect_results", lambda records, _: [{}])
    dataset = SimpleNamespace(metainfo=dict(classes=range(MOST_CLASSES + 1)))
    runner = SimpleNamespace(
        val_loop=1, val_dataloader=SimpleNamespace(dataset=SizedDataset(dataset))
    )
    assert RunReportHook().results(runner) == "The data has more than 5000 classes."


class SizedDataset(list):
    """A data set with the ``metainfo`` of another object."""

    def __init__(self, dataset):
        super().__init__([0])
        self.metainfo = dataset.metainfo
