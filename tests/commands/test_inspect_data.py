"""convnext-dense inspect-data as users run it, and the page that it writes."""

import copy
import json
import re
import shlex
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from convnext_dense.commands.inspect_data import inspection, page
from convnext_dense.commands.inspect_data.inspection import inspect
from convnext_dense.datasets.custom.prepare import Options, examine
from convnext_dense.errors import InputError
from convnext_dense.reports import drawing, pages
from convnext_dense.utils import files

from ..helpers.custom_data import (
    COLORS,
    coco,
    color_map,
    photograph,
    save,
    write_label_maps,
)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("objects")
    return root, coco(root / "images")


def data(root, name):
    return ["--train-json", root / name, "--train-images", root / "images"]


def contents(root):
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_healthy_data_exits_with_0(tool, healthy):
    root, content = healthy
    save(content, root / "well.json")
    done = tool("inspect_data", *data(root, "well.json"))
    assert done.code == 0
    assert "train: images: 5, classes: 2, objects: " in done.out
    assert "val: images: 1" in done.out
    row = re.search(r"^ *Käfer +(\d+) +(\d+) +([\d.]+)", done.out, re.MULTILINE)
    assert row is not None
    assert "error" not in done.out + done.err


def test_problems_are_printed_drawn_and_fixed(tool, healthy, tmp_path):
    root, content = healthy
    content = copy.deepcopy(content)
    photograph(root / "images/turned & new.jpg", 9, orientation=6)
    content["images"].append(
        dict(id=1, file_name="turned & new.jpg", width=64, height=48)
    )
    content["annotations"].append(dict(content["annotations"][0], id=90, image_id=1))
    content["annotations"][1]["bbox"] = [-20, -20, 5, 5]
    save(content, root / "bad.json")
    before = contents(root)
    done = tool(
        *("inspect_data", *data(root, "bad.json"), "--html", "page.html"),
        *("--fix", "clean"),
    )
    assert done.code == 1
    assert "error: images annotated as stored" in done.out
    assert "error: boxes outside their image: 1 (object 2 in sub folder" in done.out
    assert contents(root) == before

    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "read from COCO, " in text
    assert "ant &lt;b&gt;" in text
    assert "ant <b>" not in text
    assert "turned &amp; new.jpg" in text
    sources = re.findall(r'(?:src|href)="([^"]{5})', text)
    assert set(sources) == {"data:"}
    assert len(sources) == 3 + 7  # figures, images

    command = shlex.split(done.out.split("CONFIG", 1)[1])
    done = tool("inspect_data", *command)
    assert done.code == 0
    assert "train: images: 6" in done.out
    (clean,) = (tmp_path / "clean").iterdir()
    fixed = json.loads(clean.read_text("utf-8"))
    assert len(fixed["annotations"]) == 7
    (turned,) = [i for i in fixed["images"] if i["file_name"] == "turned & new.jpg"]
    assert (turned["width"], turned["height"]) == (48, 64)

    done = tool("inspect_data", *data(root, "bad.json"), "--fix", "clean")
    assert done.code == 2
    assert "--fix clean exists already" in done.err


def test_label_maps_are_fixed(tool, tmp_path):
    write_label_maps(tmp_path, 4, "colors")
    PIL.Image.new("RGB", (64, 48), (1, 2, 3)).save(tmp_path / "labels/Bild 3 ü.png")
    arguments = [
        *("--train-images", tmp_path / "images", "--train-labels", tmp_path / "labels"),
        *("--color-map", color_map(tmp_path / "colors.txt")),
    ]
    before = contents(tmp_path)
    done = tool("inspect_data", *arguments, "--html", "page.html", "--fix", "clean")
    assert done.code == 1
    assert "colours that are not in the colour map: 1 (Bild 3" in done.out
    assert before.items() <= contents(tmp_path).items()
    assert (tmp_path / "page.html").stat().st_size > 10_000
    command = shlex.split(done.out.split("CONFIG", 1)[1])
    assert command[-3:] == list(COLORS)
    done = tool("inspect_data", *command)
    assert done.code == 0
    assert "label maps whose pixels are all ignored: 1" in done.out


NAMES = {
    True: [
        r"$\frac{1}{$",
        r"\$\frac{1}{$$",
        "<script>alert(1)</script>",
        "[red]red[/red]",
        "\N{RIGHT-TO-LEFT OVERRIDE}txt",
    ],
    False: ["\x1b[2J\x1b[31m", "\ud800", "two\nlines", "x" * 10**5, "null \0"],
}


@pytest.mark.parametrize("usable", NAMES)
def test_names_that_are_formulas_or_control_a_terminal(tool, healthy, tmp_path, usable):
    root, content = healthy
    content = copy.deepcopy(content)
    names = NAMES[usable]
    content["categories"] = [dict(id=i, name=name) for i, name in enumerate(names)]
    for i, annotation in enumerate(content["annotations"]):
        annotation["category_id"] = i % len(names)
    save(content, root / "names.json")
    done = tool(
        *("inspect_data", *data(root, "names.json")),
        *("--val-json", root / "names.json", "--val-images", root / "images"),
        *("--html", "page.html", "--fix", "clean"),
    )
    assert done.code == (0 if usable else 1)
    html = (tmp_path / "page.html").read_text("utf-8")
    for text in (html, done.out):
        assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert len(max(done.out.split("\n"), key=len)) < 3000
    assert "<script" not in html
    clean = tmp_path / "clean/train.json"
    done = tool("inspect_data", "--train-json", clean, *data(root, "")[2:])
    assert done.code == 0


def test_a_page_without_a_class(healthy, tmp_path):
    root, content = healthy
    save(dict(content, categories=[]), root / "none.json")
    options = Options(
        train_json=str(root / "none.json"), train_images=str(root / "images")
    )
    assert not inspect(options, str(tmp_path / "page.html"), None, 0)
    assert "error" in (tmp_path / "page.html").read_text("utf-8")


def test_a_table_of_very_many_classes(healthy, capsys, monkeypatch):
    """Each has its row, up to a number; the time grows with the classes."""
    root, content = healthy
    more = [dict(id=1000 + i, name=f"class {i}") for i in range(3000)]
    save(dict(content, categories=content["categories"] + more), root / "many.json")
    options = Options(
        train_json=str(root / "many.json"), train_images=str(root / "images")
    )
    monkeypatch.setattr(inspection, "ROWS_SHOWN", 300)
    start = time.process_time()
    assert inspect(options, None, None, 0)
    assert time.process_time() - start < 60  # a bound, not a measurement: 2
    assert "and 2702 more classes, which --html FILE shows" in capsys.readouterr().out


def test_a_page_of_many_classes(healthy, tmp_path, monkeypatch):
    """The figure has the most frequent ones, and says so; its ticks are numbers."""
    root, content = healthy
    more = [dict(id=1000 + i, name=f"class {i}") for i in range(100)]
    last = dict(content["annotations"][0], category_id=1099)
    annotations = [
        *content["annotations"],
        *(dict(last, id=500 + i) for i in range(99)),
    ]
    content = dict(
        content,
        categories=content["categories"] + more,
        annotations=annotations,
    )
    save(content, root / "hundred.json")
    options = Options(
        train_json=str(root / "hundred.json"), train_images=str(root / "images")
    )
    splits = examine(options, seed=0)
    figure = page._draw_classes(splits)
    figure.canvas.draw()
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert len(names) == page.MAX_CLASSES
    assert names[0] == "class 99"
    assert all(float(t.get_text()) >= 0 for t in axes.get_yticklabels())
    monkeypatch.setattr(page, "SAMPLES", 0)
    page.write(str(tmp_path / "page.html"), splits)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert f"the {page.MAX_CLASSES} most frequent of 102 classes" in text
    assert "<td>class 50</td>" in text


def test_images_are_shared_out_among_bins_of_objects():
    for number, most in ((4, 3), (24, 60), (10_000, 500)):
        counters = [Counter({0: i % (most + 1)}) for i in range(number)]
        split = SimpleNamespace(objects=counters)
        edges = page._bins([split])
        widths = np.diff(edges)
        assert (widths == round(widths[0])).all()
        assert edges[0] < 0
        assert edges[-1] > max(counter.total() for counter in counters)
        assert len(widths) <= page.MOST_BINS
    assert len(page._bins([SimpleNamespace(objects=[])])) == 2


def test_nothing_to_inspect(tool):
    done = tool("inspect_data")
    assert done.code == 2
    assert "--data FOLDER" in done.err
    done = tool("inspect_data", "--data", "none", "--html", "no/folder/page.html")
    assert done.code == 2
    assert "there is no folder" in done.err


def test_pages_are_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("before")
    with pytest.raises(InputError, match=r"page\.html could not be written: disk"):
        fail_to_write(file)
    assert file.read_text() == "before"
    with pytest.raises(ZeroDivisionError):
        pages.write(file, "base.html", title=property(lambda self: 1 / 0).fget(0))
    assert contents(tmp_path) == {file: b"before"}
    pages.write(file, "base.html", title="a < b")
    assert "<title>a &lt; b</title>" in file.read_text()
    assert contents(tmp_path).keys() == {file}


def fail_to_write(file):
    with files.whole(file) as partial:
        partial.write_text("half")
        raise OSError("disk full")


def test_palettes_tell_classes_apart():
    colors = np.array(drawing.palette((*"abcdefgh", "Background")), int)
    assert colors[-1].tolist() == [90, 90, 90]
    for number in (8, 81, 150):
        colors = np.array(drawing.palette(tuple(map(str, range(number)))), int)
        apart = np.abs(colors[:, None] - colors[None]).max(-1) + 255 * np.eye(number)
        assert apart.min() > (50 if number == 8 else 5)
