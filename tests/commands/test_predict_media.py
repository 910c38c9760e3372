"""What tools/predict.py takes for images, animations and videos, and what it says."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from convnext_dense.commands.predict import decoding, results
from convnext_dense.commands.predict.animation import Animation
from convnext_dense.commands.predict.decoding import (
    TILED,
    Video,
    check_file,
    check_prediction,
)
from convnext_dense.commands.predict.inputs import _named, find
from convnext_dense.commands.predict.predict_files import _say_left_out, _say_notes
from convnext_dense.commands.predict.recognition import Media, recognize
from convnext_dense.errors import InputError
from convnext_dense.utils import image_content

from ..helpers import image_kinds
from ..helpers.hostile_images import jpeg, video
from ..helpers.mmengine_state import logged

# Endings, and codecs that OpenCV's FFmpeg writes into such files.
CONTAINERS = {
    **{"wmv": "WMV2", "asf": "WMV1", "flv": "FLV1", "ts": "mp2v", "m2ts": "mp2v"},
    **{"mts": "mp2v", "3gp": "mp4v", "mpg": "PIM1", "vob": "MPEG", "webm": "VP80"},
    **{"mkv": "mp4v", "mov": "mp4v", "m4v": "mp4v", "avi": "MJPG", "mp4": "mp4v"},
    **{"ivf": "VP80", "nut": "mp4v", "mxf": "mp2v", "rm": "RV10", "swf": "FLV1"},
    **{"wtv": "mp2v", "mjpeg": "MJPG"},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The bytes of an mp4 of 12 frames, 25 a second."""
    return video(tmp_path_factory.mktemp("clip") / "a.mp4").read_bytes()


@pytest.mark.parametrize("ending", CONTAINERS)
def test_videos_by_their_content(tmp_path, ending):
    file = video(tmp_path / f"a.{ending}", codec=CONTAINERS[ending])
    if not file.exists():
        pytest.skip("this OpenCV does not write it")
    names = [f"a.{ending}", f"b.{ending.upper()}"]
    if ending != "mjpeg":  # a JPEG, if its name does not say that many follow
        names += ["without an ending", "wrong.dat"]
    for name in names:
        (tmp_path / name).write_bytes(file.read_bytes())
    selection = find([str(tmp_path)], tmp_path / "out")
    assert [(s.file_name, s.media) for s in selection.sources] == [
        (name, Media.VIDEO) for name in sorted(names)
    ]
    frames = list(Video(tmp_path / names[-1]))
    assert len(frames) == 12
    assert Video(file).rate == 25
    assert abs(int(frames[5].mean()) - 50) < 8


def boxes(content):
    """The name, start and end of the boxes of an mp4."""
    start = 0
    while start < len(content):
        (size,) = struct.unpack_from(">I", content, start)
        yield content[start + 4 : start + 8], start, start + size
        start += size


def changed(content, **changes):
    """An mp4 with other contents of boxes: functions of the old ones."""
    whole = b""
    for name, start, end in boxes(content):
        body = content[start + 8 : end]
        if name.decode("latin-1") in changes:
            body = changes[name.decode("latin-1")](body)
        elif name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
            body = changed(body, **changes)
        whole += struct.pack(">I", 8 + len(body)) + name + body
    return whole


def test_a_portrait_video(clip, tmp_path):
    """Phones write how the camera was held, and viewers turn the video."""
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    file = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:20, :20] = 255
    writer.write(frame)
    writer.release()
    content = file.read_bytes()
    file.write_bytes(changed(content, tkhd=lambda b: b[:40] + turned + b[76:]))
    (upright,) = Video(file)
    assert upright.shape == (64, 48, 3)
    assert upright[5, 40].min() > 200
    assert upright[5, 5].max() < 50


def test_frames_at_irregular_times(clip, tmp_path):
    """As screens and phones record; the drawn video takes as long."""
    file = tmp_path / "a.mp4"
    steps = [(1, 512), (1, 5 * 512), (5, 512), (1, 10 * 512), (4, 512)]
    table = b"".join(struct.pack(">II", *step) for step in steps)
    file.write_bytes(
        changed(
            clip,
            stts=lambda b: b[:4] + struct.pack(">I", len(steps)) + table,
            elst=lambda b: b[:8] + struct.pack(">I", 10**6) + b[12:],
        )
    )
    opened = Video(file)
    assert len(list(opened)) == 12
    assert opened.rate == pytest.approx(12, abs=0.6)  # 12 frames in a second


class Capture:
    """A video whose container states other rates and numbers of frames than it has."""

    def __init__(self, rate, count, times):
        self.values = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: count}
        self.values |= {cv2.CAP_PROP_FRAME_WIDTH: 64, cv2.CAP_PROP_FRAME_HEIGHT: 48}
        self.times = list(times)

    def isOpened(self):
        return True

    def release(self):
        pass

    def get(self, name):
        return float(self.values[name])

    def grab(self):
        if not self.times:
            return False
        self.values[cv2.CAP_PROP_POS_MSEC] = self.times.pop(0)
        return True

    def read(self):
        return self.grab(), np.zeros((48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("rate", "count", "times", "says", "expected"),
    [
        # Browsers' WebM: steps of a millisecond, the count estimated from them.
        (1000, 5000, range(0, 5000, 50), None, 20),
        (1000, -(10**18), range(0, 5000, 50), None, 20),
        (25, 1000, range(0, 40_000, 400), None, 25),  # a count from a duration
        (25, 1000, range(0, 4000, 40), "cut short: 100 of 1000 frames", 25),
        (1000, 5000, range(0, 500, 50), "cut short: 10 of 100 frames", 20),
        (240, 24, [0] * 24, None, 240),  # no times are stated
        (0, 0, [], "none of its frames can be read", 25),
    ],
)
def test_rates_and_counts(tmp_path, monkeypatch, rate, count, times, says, expected):
    file = tmp_path / "a.webm"
    file.touch()
    monkeypatch.setattr(decoding, "open_video", lambda _: Capture(rate, count, times))
    opened = Video(file)
    assert opened.rate == pytest.approx(expected, rel=0.02)
    if says:
        with pytest.raises(InputError, match=says):
            list(opened)
    else:
        assert len(list(opened)) == len(times)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations(tmp_path, image_format):
    file = tmp_path / "x.jpg"
    content = image_kinds.animation(image_format, durations=[40, 40, 120])
    file.write_bytes(content)
    assert recognize(file) is Media.ANIMATION
    animation = Animation(file)
    assert animation.count == 3
    assert animation.rate == pytest.approx(15, rel=0.02)  # 3 frames in 200 ms
    frames = list(animation)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    lefts = [frame[24, 16, ::-1].tolist() for frame in frames]
    for left, color in zip(
        lefts, ([200, 100, 50], [20, 40, 220], [200, 100, 50]), strict=True
    ):
        assert np.abs(np.subtract(left, color)).max() < 8
    file.write_bytes(image_kinds.animation(image_format, frames=1))
    assert recognize(file) is Media.IMAGE
    file.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=r"it is damaged|cannot be decoded"):
        list(Animation(file))


def test_frames_without_a_duration(tmp_path):
    file = tmp_path / "x.gif"
    file.write_bytes(image_kinds.animation("GIF", durations=0))
    assert Animation(file).rate == 10  # as browsers show it


def test_a_folder_of_everything(tmp_path, clip, capfd):
    """What is not read is counted, and never passed over silently."""
    contents = {
        **{"a.JPG": jpeg(), "b.Jpeg": jpeg(), "no ending": jpeg(), "c.png.part": clip},
        **{"notes.json": b"{}", "notes.txt": b"BM and more", "array.npy": b"\x93NUMPY"},
        **{"x.bin": bytes(range(256)) * 9, "x.pdf": b"%PDF-1.7"},
        **{"Thumbs.db": b"\xd0\xcf\x11\xe0", ".DS_Store": b"\0", "._a.JPG": b"\0"},
        **{"phone.heic": b"\0\0\0\x18ftypheic", "empty.mp4": b"", "sub/d.jpg": jpeg()},
    }
    folder = tmp_path / "in"
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe")
    selection = find([str(folder)], folder / "out")
    assert capfd.readouterr().err == ""  # of OpenCV, for each file
    assert {source.file_name: source.media.value for source in selection.sources} == {
        **{"a.JPG": "image", "b.Jpeg": "image", "no ending": "image"},
        **{"c.png.part": "video", "phone.heic": "image", "empty.mp4": "video"},
    }
    with logged() as messages:
        _say_left_out(selection)
        _say_notes([(Path("a.gif"), "n"), (Path("b.gif"), "n"), (Path("c.gif"), "m")])
    left_out, folders, *notes = messages
    assert left_out.startswith(
        "left out: files that are not read as images or videos: 6 "
    )
    assert f"({folder}/array.npy, {folder}/notes.json, {folder}/notes.txt and 3" in (
        left_out
    )
    assert folders == (
        "left out: subfolders (to take their files, write 'FOLDER/**/*'): 1 "
        f"({folder}/sub)"
    )
    assert notes == ["note: a.gif, b.gif: n", "note: c.gif: m"]
    everything = find([f"{folder}/**/*"], folder / "out")
    assert len(everything.sources) == 7
    assert everything.folders == []


def test_own_results_are_not_predicted(tmp_path):
    """A pattern matches the drawings of an earlier prediction, into another folder."""
    for name in ("a.jpg", "first/pictures/a.jpg", "second/pictures/b/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg())
    for name in ("predictions.json", "images.json"):
        (tmp_path / "first" / name).write_text("{}")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/b.jpg").write_bytes(jpeg())  # a folder of the user's
    selection = find([f"{tmp_path}/**/*.jpg"], tmp_path / "second")
    assert [s.file_name for s in selection.sources] == ["a.jpg", "pictures/b.jpg"]
    assert selection.results == [f"{tmp_path}/first/pictures/a.jpg"]
    # The folder of the results in the folder of the images is no subfolder to name.
    assert find([str(tmp_path)], tmp_path / "second").folders == [
        f"{tmp_path}/first",
        f"{tmp_path}/pictures",
    ]
    with pytest.raises(InputError, match="all 1 images are results of an earlier"):
        find([f"{tmp_path}/first/**/*.jpg"], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.com/a.jpg", "is the address of a file elsewhere: download"),
        ("s3://bucket/a.jpg", "is the address of a file elsewhere: download"),
        ("rtsp://camera/1", "is the address of a file elsewhere: download"),
        ("-", "standard input .* is not read: name a file"),
        ("0", "no file is called 0; cameras are not read: record a video"),
        ("gone.jpg", "no file, folder or pattern matches gone.jpg"),
    ],
)
def test_inputs_that_are_no_files(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        find([name], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", b"a.jpg\nb.jpg\n", r"text, not an image. If it lists .* xargs -d"),
        ("coco.json", b'{"images": []}', "text, not an image"),
        ("x.pth", b"PK\3\4", r"not an image: the order is \[CONFIG\] CHECKPOINT"),
        ("a.zip", b"PK\3\4", "a zip archive: unpack it"),
        ("a.dcm", bytes(128) + b"DICM", "a DICOM file: save its image as PNG"),
        ("a.tga", b"\0\0\2" + bytes(50), "cannot be decoded as an image"),
    ],
)
def test_files_that_are_no_images(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"it (is )?{message}"):
        check_file(file)


def test_notes_of_images(tmp_path):
    """A prediction reads what training reads, and says where that is not all."""
    file = tmp_path / "x"

    def note(content, **options):
        file.write_bytes(content)
        return check_file(file, **options)

    assert note(jpeg()) is None
    assert "only the first one is" in note(
        image_kinds.tiff(image_kinds.pixels(), pages=2)
    )
    dark = image_kinds.saved(image_kinds.pixels(1, np.uint16, 16)[..., 0], "PNG")
    assert "nearly black" in note(dark)
    floats = image_kinds.tiff(image_kinds.pixels(3, np.float32))
    with pytest.raises(InputError, match="its pixels are floats of 32 bits"):
        note(floats)
    assert note(floats, as_colors=False) is None  # another loader may read them
    pam = cv2.imencode(".pam", image_kinds.pixels())[1].tobytes()
    assert note(pam) is None


def test_names_that_differ_by_their_endings(tmp_path):
    files = ["a.jpg", "a.png", "A.gif", "a.mp4", "x/a.jpg", "x/a.mp4"]
    media = {tmp_path / name: Media.IMAGE for name in files}
    media[tmp_path / "a.mp4"] = media[tmp_path / "x/a.mp4"] = Media.VIDEO
    media[tmp_path / "A.gif"] = Media.ANIMATION
    sources = list(_named(media))
    outputs = [source.picture.lower() for source in sources]
    outputs += [source.labels(1).lower() for source in sources]
    assert len(set(outputs)) == len(outputs)


@pytest.mark.parametrize("best", [0.12, 0.7, None])
def test_nothing_is_drawn(tmp_path, best):
    writer = results.Results(tmp_path, "mmdet", dict(classes=("a", "b")), 0.3)
    (source,) = _named({Path("/a.png"): Media.IMAGE})
    scores = [] if best is None else [0.05, best]
    instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2, 30, 40]] * len(scores)).reshape(-1, 4),
        labels=torch.zeros(len(scores), dtype=torch.long),
        scores=torch.tensor(scores),
    )
    sample = DetDataSample(pred_instances=instances)
    writer.image(source, 1, np.zeros((48, 64, 3), np.uint8), sample)
    with logged() as messages:
        writer.say_if_nothing_is_drawn()
    writer.close()
    assert (
        messages
        == {
            0.12: ["nothing above 0.3; the best was 0.12: lower --score-thr"],
            0.7: [],
            None: ["nothing above 0.3; no object was found"],
        }[best]
    )


def test_the_advice_for_too_little_memory_works(monkeypatch):
    """Tiles are named where they help."""
    monkeypatch.setattr(image_content, "free_memory", lambda: 3 * 10**9)
    with pytest.raises(InputError, match=r"7\.2 GB .* or predict it with --tile 1024"):
        check_prediction(8000, 6000)
    check_prediction(8000, 6000, TILED)
    with pytest.raises(InputError, match=r"cut it into tiles$"):
        check_prediction(100_000, 6000)
