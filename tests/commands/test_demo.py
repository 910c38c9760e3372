"""``convnext-dense demo``: the page, in a browser, and what it shows."""

import json
import os
import socket
import sys
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from convnext_dense.commands.demo import predictions, server
from convnext_dense.commands.demo.page import _table
from convnext_dense.commands.demo.predictions import Count, Predictions
from convnext_dense.commands.demo.server import LOCAL
from convnext_dense.commands.predict.predictor import Predictor
from convnext_dense.errors import InputError

from ..helpers import small_checkpoints
from ..helpers.hostile_images import video

CHROMIUM = Path("/usr/bin/chromium")
LONG = 60_000  # milliseconds that the browser waits


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        t: small_checkpoints.checkpoint(folder / f"{t}.pth", t) for t in ("det", "seg")
    }


@pytest.fixture(scope="module")
def predictors(files):
    return {task: Predictor(None, str(file), "cpu") for task, file in files.items()}


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    file = tmp_path / "a photo.png"
    cv2.imwrite(str(file), pixels.repeat(8, 0).repeat(8, 1))
    return file


def boxes(archive):
    with zipfile.ZipFile(archive) as content:
        return json.loads(content.read("predictions.json"))


def test_a_detector(predictors, photo, tmp_path):
    model = Predictions(predictors["det"], tmp_path)
    outcome, kept = model.predict(photo, 0, print)
    results = boxes(outcome.archive)
    assert sum(count.number for count in outcome.counts) == len(results) > 1
    names = zipfile.ZipFile(outcome.archive).namelist()
    assert {"predictions.json", "images.json"} < set(names)
    assert any(name.endswith(".jpg") for name in names)
    shown = cv2.imread(str(outcome.picture))
    assert shown.shape == (64, 96, 3)
    assert outcome.video is None
    # With another threshold the boxes are the same, and others are drawn.
    middle = float(np.median([box["score"] for box in results]))
    drawn = model.draw(kept, middle)
    assert boxes(drawn.archive) == results
    assert sum(count.number for count in drawn.counts) == sum(
        box["score"] > middle for box in results
    )
    assert not np.array_equal(cv2.imread(str(drawn.picture)), shown)
    assert model.draw(kept, 1).counts == []


def test_a_segmentor(predictors, photo, tmp_path):
    model = Predictions(predictors["seg"], tmp_path)
    outcome, _ = model.predict(photo, 0.3, print)
    (name,) = (n for n in zipfile.ZipFile(outcome.archive).namelist() if "png" in n)
    content = zipfile.ZipFile(outcome.archive).read(name)
    label_map = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    classes = predictors["seg"].dataset_meta["classes"]
    expected = {
        classes[label]: (label_map == label).mean() for label in np.unique(label_map)
    }
    assert {count.name: count.number for count in outcome.counts} == expected
    numbers = [count.number for count in outcome.counts]
    assert numbers == sorted(numbers, reverse=True)


def test_a_video(predictors, tmp_path):
    file = video(tmp_path / "clip.mp4")
    model, frames = Predictions(predictors["seg"], tmp_path), []
    outcome, kept = model.predict(file, 0.3, lambda *numbers: frames.append(numbers))
    assert frames == [(number, 12) for number in range(1, 13)]
    assert kept is outcome.picture is None
    capture = cv2.VideoCapture(str(outcome.video))
    assert outcome.video.read_bytes()[:4] == b"\x1a\x45\xdf\xa3"  # WebM
    assert sum(capture.grab() for _ in range(20)) == 12
    assert sum(count.number for count in outcome.counts) == pytest.approx(1)
    names = zipfile.ZipFile(outcome.archive).namelist()
    assert sum(name.endswith(".png") for name in names) == 12


@pytest.mark.parametrize("states", [True, False])
def test_a_video_that_is_too_long(predictors, tmp_path, monkeypatch, states):
    """Also where the file states no number of frames. Nothing is left of it."""
    file = video(tmp_path / "clip.mp4")
    monkeypatch.setattr(predictions, "MOST_FRAMES", 2)
    if not states:
        monkeypatch.setattr(predictions, "_frames_of", lambda source: None)
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(InputError, match=r"clip.mp4: it has (12|more) frames, and"):
        Predictions(predictors["seg"], root).predict(file, 0.3, lambda *_: None)
    assert not list(root.iterdir())


def test_files_that_are_no_images(predictors, tmp_path):
    file = tmp_path / "a.jpg"
    file.write_text("text")
    with pytest.raises(InputError, match=r"a.jpg: it is text, not an image"):
        Predictions(predictors["seg"], tmp_path).predict(file, 0.3, print)


def test_names_of_classes_are_no_html():
    table = _table([Count("<b>", (1, 2, 3), 4)], True)
    assert "&lt;b&gt;" in table
    assert "<b>" not in table
    many = [Count(str(i), (0, 0, 0), 1) for i in range(40)]
    assert "10 more classes" in _table(many, True)
    assert "No object is above the threshold" in _table([], True)


def test_without_gradio(tool, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = tool("demo", files["seg"])
    assert done.code == 2
    assert "pip install 'convnext-dense[demo]'" in done.err


def test_addresses_that_cannot_be_used(monkeypatch):
    with socket.socket() as taken:
        taken.bind((LOCAL, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port} is in use"):
            server._free_port(LOCAL, port)
        monkeypatch.setattr(server, "PORTS", [port])
        with pytest.raises(InputError, match="give --port"):
            server._free_port(LOCAL, None)
    assert server._free_port(LOCAL, port) == port
    with pytest.raises(InputError, match="from 1 to 65535"):
        server._free_port(LOCAL, 70_000)
    with pytest.raises(InputError, match="--host"):
        server._free_port("192.0.2.1", port)  # of no machine: RFC 5737


def test_a_threshold_that_is_none(tool, files):
    done = tool("demo", files["seg"], "--score-thr", "3")
    assert done.code == 2
    assert "give a number from 0 to 1" in done.err


def test_the_end(files, monkeypatch, capsys, tmp_path):
    """Ctrl-C closes the page and removes its files."""
    pytest.importorskip("gradio")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    during = []

    def interrupt(self, timeout=None):
        during.extend(os.listdir(tmp_path))
        raise KeyboardInterrupt

    # gradio's own threads wait for events, too.
    monkeypatch.setattr(
        server, "threading", type("", (), dict(Event=_event(interrupt)))
    )
    server.wait_for_the_end(None, str(files["seg"]), 0.3, None, None, "cpu")
    out = capsys.readouterr().out
    assert f"the page is at http://{LOCAL}:" in out
    assert "every machine" not in out
    assert len(during) == 1
    assert not os.listdir(tmp_path)
    assert os.environ.get("GRADIO_TEMP_DIR") is None


def _event(wait):
    return type("Event", (), dict(wait=wait))


@pytest.fixture
def page(predictors, tmp_path, monkeypatch):
    """The page in a browser, and the addresses that it asks for."""
    pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    port = server._free_port(LOCAL, None)
    asked = []
    with (
        server.serving(predictors["det"], "run/a<b>.pth", 0.0, LOCAL, port) as url,
        playwright.sync_playwright() as browsers,
    ):
        browser = browsers.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.set_default_timeout(LONG)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        yield page, asked
        browser.close()


def test_the_page(page, photo, tmp_path):
    page, asked = page

    def upload(file):
        page.set_input_files("input[type=file]", str(file))

    def number_of_objects():
        cells = page.locator(".counts td:last-child").all_inner_texts()
        return sum(map(int, cells))

    page.get_by_text("Drop an image or a video").wait_for()
    assert page.get_by_role("heading").inner_text() == "run/a<b>.pth"
    upload(photo)
    page.locator(".counts table").wait_for()
    picture = page.locator("img").first
    picture.wait_for()
    assert (
        picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    )
    before = number_of_objects()

    with page.expect_download() as download:
        page.get_by_text("Download the results").click()
    archive = tmp_path / "download.zip"
    download.value.save_as(archive)
    assert download.value.suggested_filename == "a photo-predictions.zip"
    assert len(boxes(archive)) == before > 1

    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("End")  # 1: nothing is above it
    slider.dispatch_event("pointerup")
    page.get_by_text("No object is above the threshold").wait_for()

    page.get_by_label("Clear").first.click()
    page.locator(".counts").first.wait_for(state="hidden")
    bad = tmp_path / "bad.jpg"
    bad.write_text("text")
    upload(bad)
    page.get_by_role("alert").filter(has_text="bad.jpg: it is text").wait_for()
    outside = [
        u for u in asked if not u.startswith((f"http://{LOCAL}", "blob:", "data:"))
    ]
    assert outside == []
    # Not even this machine is let in under another of its addresses.
    port = int(asked[0].split(":")[2].strip("/"))
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))
