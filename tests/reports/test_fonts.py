"""Names of classes in any script: drawn, or one line that says which font is missing.

No test depends on the fonts of the machine: a font for one character is made here.
"""

import io
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from convnext_dense.commands.test.class_names import ClassNamesHook
from convnext_dense.reports import fonts
from convnext_dense.reports.drawing import Drawer

from ..helpers.mmengine_state import logged

CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"
DOG = "\N{CJK UNIFIED IDEOGRAPH-72AC}"
FAMILY = "A Font of One Cat"


@pytest.fixture(scope="module")
def font_file(tmp_path_factory):
    """A font in which CAT is a black square, and nothing else is."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    names = [".notdef", "cat"]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(CAT): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable(dict(familyName=FAMILY, styleName="Regular"))
    builder.setupOS2()
    builder.setupPost()
    file = tmp_path_factory.mktemp("fonts") / "cat.ttf"
    builder.save(file)
    return file


@pytest.fixture
def machine(monkeypatch):
    """The fonts of a machine: matplotlib's own, and those in the list that it yields.

    They are files that matplotlib has not listed yet, as if installed a moment ago.
    """
    files = []
    manager = font_manager.fontManager
    own = [entry for entry in manager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(manager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(map(str, files)))
    caches = fonts._choose, fonts._characters, fonts._say

    def clear():
        manager._findfont_cached.cache_clear()
        for cache in caches:
            cache.cache_clear()

    clear()
    yield files
    monkeypatch.undo()
    clear()


def drawn(names):
    """The picture of one box of the first class, 200 x 100."""
    instances = InstanceData(
        bboxes=torch.tensor([[20.0, 20, 180, 90]]),
        labels=torch.zeros(1, dtype=torch.long),
        scores=torch.full((1,), 0.9),
    )
    drawer = Drawer(
        "mmdet", dict(classes=names, palette=[(255, 255, 255)] * len(names))
    )
    image = np.zeros((100, 200, 3), np.uint8)
    return drawer.prediction(image, DetDataSample(pred_instances=instances))


def labelled(names):
    """The picture of a label map of one class, 200 x 100."""
    drawer = Drawer("mmseg", dict(classes=names, palette=[(0, 0, 255)] * len(names)))
    sample = SegDataSample(
        pred_sem_seg=PixelData(data=torch.zeros(1, 100, 200, dtype=torch.long))
    )
    return drawer.prediction(np.zeros((100, 200, 3), np.uint8), sample)


@pytest.mark.parametrize("picture", [drawn, labelled])
def test_a_font_that_has_the_characters_is_taken(machine, font_file, picture):
    machine.append(font_file)
    with logged() as messages, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        image = picture([CAT])
    assert not messages
    assert has_square(image)
    machine.clear()
    fonts._choose.cache_clear()
    font_manager.fontManager.ttflist = [
        entry for entry in font_manager.fontManager.ttflist if entry.name != FAMILY
    ]
    font_manager.fontManager._findfont_cached.cache_clear()
    assert not has_square(picture([CAT]))


def has_square(image):
    """Whether a picture has a white square, which is wider than the lines of a box."""
    white = (image[23:70, 23:] > 180).all(2).astype(np.uint8)
    return bool(cv2.erode(white, np.ones((5, 5), np.uint8)).any())


def test_families(machine, font_file):
    assert fonts.families(["cat", "Käfer", "кот", "قط"]) == ["sans-serif"]
    with logged() as messages:
        assert fonts.families(["cat", CAT]) == ["sans-serif"]
        assert fonts.families(["dog", CAT]) == ["sans-serif"]
    assert len(messages) == 1  # it is said once
    assert (
        f"no font of this machine has the character {CAT} (CJK): pictures show boxes"
        in messages[0]
    )
    assert "fonts-noto-cjk" in messages[0]
    # The advice is followed: a font is installed after matplotlib listed the fonts.
    machine.append(font_file)
    fonts._choose.cache_clear()  # in a new process
    assert fonts.families([CAT, "кот"]) == ["sans-serif", FAMILY]
    with logged() as messages:
        assert fonts.families([CAT + DOG]) == ["sans-serif", FAMILY]
    assert f"no font of this machine has the character {DOG} (CJK)" in messages[0]


@pytest.mark.parametrize(
    ("name", "script", "package"),
    [
        ("\N{HANGUL SYLLABLE HAN}", "HANGUL", "fonts-noto-cjk"),
        ("\N{HIRAGANA LETTER NE}", "HIRAGANA", "fonts-noto-cjk"),
        ("\N{DEVANAGARI LETTER HA}", "DEVANAGARI", "fonts-noto-core"),
        ("\N{THAI CHARACTER THO THAHAN}", "THAI", "fonts-noto-core"),
        ("\N{LADY BEETLE}", "emoji", "fonts-symbola"),
    ],
)
def test_scripts(machine, name, script, package):
    with logged() as messages:
        fonts.families([name])
    assert f"has the character {name} ({script})" in messages[0]
    assert package in messages[0]


@pytest.mark.parametrize("picture", [drawn, labelled])
def test_no_flood_of_warnings(machine, picture):
    with logged() as messages, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        picture([CAT + DOG, DOG])
    assert len(messages) == 1
    assert "has the characters" in messages[0]


def test_damaged_fonts_are_passed_over(machine, font_file, tmp_path):
    damaged = tmp_path / "x.ttf"
    damaged.write_bytes(font_file.read_bytes()[:300])
    machine.extend([damaged, tmp_path / "gone.ttf", font_file])
    assert fonts.families([CAT]) == ["sans-serif", FAMILY]


def test_figures(machine, font_file):
    """Axes and legends of pages, in the same fonts and without warnings."""
    machine.append(font_file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with fonts.drawn_with([CAT]):
            figure = Figure()
            figure.subplots().set_title(CAT)
            figure.savefig(io.BytesIO(), format="png")
        with fonts.drawn_with([DOG]):
            Figure().subplots().set_title(DOG)


def test_pictures_of_a_test(machine, font_file):
    """--show-dir uses the visualizers of the toolboxes."""
    machine.append(font_file)
    image = np.zeros((100, 200, 3), np.uint8)
    for names in (["cat"], [CAT]):
        visualizer = DetLocalVisualizer(name="x")
        visualizer.dataset_meta = dict(classes=names)
        ClassNamesHook().before_test(SimpleNamespace(visualizer=visualizer))
        assert ("draw_texts" in vars(visualizer)) == (names == [CAT])
    visualizer = SegLocalVisualizer(name="x", alpha=0.5)
    visualizer.dataset_meta = dict(classes=[CAT], palette=[(0, 0, 255)])
    ClassNamesHook().before_test(SimpleNamespace(visualizer=visualizer))
    label_map = PixelData(data=torch.zeros(1, 100, 200, dtype=torch.long))
    sample = SegDataSample(gt_sem_seg=label_map, pred_sem_seg=label_map)
    pictures = []
    visualizer.add_image = lambda name, picture, step: pictures.append(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        visualizer.add_datasample("x", image, sample)
    (both,) = pictures
    assert both.shape == (100, 400, 3)
    for half in np.split(both, 2, 1):
        assert (half > 200).all(2).sum() > 30  # OpenCV draws question marks in its font
