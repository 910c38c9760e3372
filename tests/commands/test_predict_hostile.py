"""convnext-dense predict with files, names and checkpoints made to harm."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from convnext_dense.commands.predict import coco_files, dataset_meta, decoding, results
from convnext_dense.commands.predict.decoding import Video, check_file
from convnext_dense.commands.predict.inputs import _named, find
from convnext_dense.commands.predict.predict_files import Work
from convnext_dense.commands.predict.recognition import Media
from convnext_dense.commands.predict.video_file import VideoFile
from convnext_dense.errors import InputError
from convnext_dense.utils import image_content

from ..helpers.hostile_images import jpeg, png, video, with_samples
from ..helpers.mmengine_state import logged

# Videos


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Videos of 12 frames, of 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp("videos")
    for name, codec in (
        *(("a.mp4", "mp4v"), ("a.mkv", "mp4v"), ("a.mov", "mp4v"), ("a.m4v", "mp4v")),
        *(("a.avi", "MJPG"), ("a.mpg", "PIM1")),
    ):
        video(folder / name, codec=codec)
    return folder


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.m4v", "a.avi", "a.mpg"])
def test_videos_are_read(videos, name):
    frames = list(Video(videos / name))
    assert len(frames) == 12
    assert frames[0].shape == (64, 64, 3)


def test_a_name_is_not_a_pattern(videos, tmp_path):
    file = tmp_path / "a%02d.mp4"
    file.write_bytes((videos / "a.mp4").read_bytes())
    assert len(list(Video(file))) == 12
    file.write_bytes(b"")
    cv2.imwrite(str(tmp_path / "a01.mp4.png"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "a01.mp4.png").rename(tmp_path / "a01.mp4")
    with pytest.raises(InputError, match="cannot be decoded as a video"):
        Video(file)


def test_options_of_the_user_are_kept(videos, monkeypatch):
    monkeypatch.setenv(decoding._VARIABLE, "threads;1")
    assert len(list(Video(videos / "a.mp4"))) == 12
    assert os.environ[decoding._VARIABLE] == "threads;1"
    monkeypatch.delenv(decoding._VARIABLE)
    Video(videos / "a.mp4")
    assert decoding._VARIABLE not in os.environ


def test_no_other_file_is_opened(videos, tmp_path):
    """FFmpeg opens what these name, if it may."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.mp4"
        (tmp_path / "a.avi").write_bytes((videos / "a.avi").read_bytes())
        (tmp_path / "a.ts").write_bytes((videos / "a.mp4").read_bytes())
        lists = {
            "concat": "ffconcat version 1.0\nfile a.avi\n",
            "concat of a url": f"ffconcat version 1.0\nfile {url}\n",
            "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
            "hls of a url": "#EXTM3U\n#EXTINF:5,\n" + url + "\n#EXT-X-ENDLIST\n",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
            "dash": f'<MPD profiles="urn:mpeg:dash:profile:isoff-live:2011">{url}',
            "smil": f'<smil><body><video src="{url}"/></body></smil>',
            "image": png(64, 64).decode("latin-1"),
        }
        for name, text in lists.items():
            for suffix in (".mp4", ".avi", ".m3u8"):
                file = tmp_path / f"{name}{suffix}"
                file.write_text(text.replace("{}", "a.ts"), encoding="latin-1")
                with pytest.raises(InputError, match="cannot be decoded as a video"):
                    Video(file)
        with pytest.raises(InputError, match="No such file"):
            Video(Path(url))
        server.shutdown()
    assert asked == []


def test_a_header_with_too_many_frames(videos, tmp_path):
    """FFmpeg takes 24 bytes for each frame that a file states."""
    whole = (videos / "a.mp4").read_bytes()
    peak = Path("/proc/self/status")
    for count in (10**9, 2**31):
        file = tmp_path / "x.mp4"
        file.write_bytes(with_samples(whole, 1, count))
        start = time.process_time()
        with pytest.raises(InputError, match=r"cut short|cannot be decoded"):
            list(Video(file))
        assert time.process_time() - start < 30
    (line,) = (row for row in peak.read_text().splitlines() if "VmHWM" in row)
    assert int(line.split()[1]) < 8 * 1024**2  # kB; 24 GB without the limit


def test_headers_that_say_the_impossible(videos, tmp_path, monkeypatch):
    whole = bytearray((videos / "a.avi").read_bytes())
    main, stream = whole.index(b"avih"), whole.index(b"strh")
    whole[main + 8 : main + 12] = bytes(4)  # microseconds for each frame
    whole[main + 24 : main + 28] = b"\xff\xff\xff\x7f"  # frames
    whole[stream + 28 : stream + 36] = bytes(8)  # frames a second
    whole[stream + 40 : stream + 44] = b"\xff\xff\xff\x7f"
    file = tmp_path / "x.avi"
    file.write_bytes(whole)
    opened = Video(file)
    assert opened.rate == decoding.FRAMES_PER_SECOND
    with pytest.raises(InputError, match="cut short: 12 of 2147483647"):
        list(opened)

    class Capture:
        def isOpened(self):
            return True

        def get(self, name):
            return {
                cv2.CAP_PROP_FRAME_WIDTH: 100_000.0,
                cv2.CAP_PROP_FRAME_HEIGHT: 100_000.0,
            }.get(name, float("nan"))

    monkeypatch.setattr(decoding, "open_video", lambda _: Capture())
    with pytest.raises(InputError, match="100000 x 100000 pixels, and the most are"):
        Video(file)


def test_a_video_whose_name_is_not_utf8(tmp_path):
    """OpenCV crashes the process."""
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    file.touch()
    with pytest.raises(InputError, match=r"its path is not UTF-8.*rename"):
        Video(file)
    with pytest.raises(InputError, match="could not be written: its path is not UTF-8"):
        VideoFile(file, 25)


# Images


def test_images_that_are_too_large_to_predict(tmp_path, monkeypatch):
    file = tmp_path / "x.png"
    file.write_bytes(png(66_000, 1000))
    monkeypatch.setattr(image_content, "free_memory", lambda: 10**12)
    with pytest.raises(InputError, match="a JPEG has at most 65,500"):
        check_file(file)
    monkeypatch.setattr(image_content, "free_memory", lambda: 10**9)
    file.write_bytes(png(3000, 3000))
    with pytest.raises(InputError, match=r"need 1\.4 GB .* 1\.0 GB are free: cut it"):
        check_file(file)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("of matplotlib")])
def test_an_image_that_cannot_be_drawn_does_not_stop_the_rest(error, monkeypatch):
    sources = list(_named(dict.fromkeys([Path("/a.png"), Path("/b.png")], Media.IMAGE)))
    work = Work(None, SimpleNamespace(), 1)

    def predicted(items, fail):
        for number, source in enumerate(sources):
            prepared = SimpleNamespace(image=None)
            item = SimpleNamespace(source=source, number=number, prepared=prepared)
            yield item, None

    def image(source, *_):
        if source == sources[0]:
            raise error

    monkeypatch.setattr(work, "_predicted", predicted)
    work._results.image = image
    work.images(sources)
    assert work.done == 1
    ((path, why),) = work.failures
    assert path == sources[0].path
    assert why.startswith(("the memory is too small", "ValueError: of matplotlib"))


# Inputs


def test_loops_of_links(tmp_path, monkeypatch):
    """By two links to their own folder, 2^40 paths lead to each file."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "x/b.jpg", "x/y/c.jpg", "x/.hidden/d.jpg", "[1]/e.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    before = find(["**/*.jpg"], tmp_path / "out").sources
    for link, target in {
        **{"one": ".", "two": ".", "x/up": "..", "x/y/top": str(tmp_path)},
        **{"this": "that", "that": "this", "to x": "x"},
    }.items():
        Path(link).symlink_to(target)
    start = time.process_time()
    assert find(["**/*.jpg"], tmp_path / "out").sources == before
    assert time.process_time() - start < 5
    assert len(before) == 4
    Path("elsewhere").symlink_to("x/y", target_is_directory=True)
    names = [
        source.file_name
        for source in find(["elsewhere/**/c.jpg"], tmp_path / "o").sources
    ]
    assert names == ["c.jpg"]  # links to folders are followed


@pytest.mark.parametrize(
    "pattern",
    ["**", "**/*", "x/**", "x/**/y/*", "*/**/*.jpg", "**/**/*.jpg", "x//**/*", "x/**/"],
)
def test_patterns_are_those_of_glob(tmp_path, monkeypatch, pattern):
    import glob

    from convnext_dense.commands.predict.inputs import _expand

    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "x/b.jpg", "x/y/c.jpg", "x/.h/d.jpg", "[1]/e.jpg", "x/y/z/f"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()

    def files(paths):
        return {os.path.normpath(path) for path in paths if os.path.isfile(path)}

    assert files(_expand(pattern)) == files(glob.glob(pattern, recursive=True))


# What a checkpoint says of the data


def read(more=None, **meta):
    meta.update(more or {})
    return dataset_meta.read(dict(meta=dict(dataset_meta=meta)), None, "x.pth")


class Unprintable:
    def __str__(self):
        raise AssertionError("its text was made")

    __repr__ = __str__


@pytest.mark.parametrize(
    "classes",
    [None, (), "abc", 7, {}, {"a": 1}, np.array(["a"]), torch.zeros(2), Unprintable()],
    ids=range(9),
)
def test_classes_that_are_none(classes):
    with pytest.raises(InputError, match=r"x\.pth has no class names: put a config"):
        read(classes=classes)


@pytest.mark.parametrize(
    "name", [None, 1.5, True, 10**5000, ("a",), Unprintable()], ids=range(6)
)
def test_classes_that_are_not_names(name):
    with pytest.raises(InputError, match=r"name of class 1 .* is not text but a"):
        read(classes=["a", name])


@pytest.mark.parametrize("content", [{}, {"meta": 1}, {"meta": {"dataset_meta": [1]}}])
def test_meta_of_another_type(content):
    with pytest.raises(InputError, match="has no class names"):
        dataset_meta.read(content, None, "x.pth")


def test_classes_of_every_size():
    start = time.process_time()
    many = [str(number) for number in range(10**5)]
    assert read(classes=many, palette=[[1, 2, 3]] * 10**5)["classes"] == tuple(many)
    assert time.process_time() - start < 10
    meta = read({"CLASSES": ["a" * 10**5, 7], 3: 4, "palette": "random"})
    assert meta == dict(
        classes=("a" * 10**5, "7"),
        palette=None,
        category_ids=None,
        reduce_zero_label=False,
    )


@pytest.mark.parametrize(
    "palette",
    [
        7,
        [[1, 2, 3]],
        [[1, 2, 3], [1, 2]],
        [[1, 2, 3], [1, 2, 300]],
        [[1, 2, 3], [1, 2, -1]],
        [[1, 2, 3], [1, 2, float("nan")]],
        [[1, 2, 3], [1, 2, 10**400]],
        [[1, 2, 3], "red"],
        [[1, 2, 3], None],
        [[1, 2, 3], np.zeros((3, 3))],
        torch.zeros(2, 3),
        {0: [1, 2, 3], 1: [1, 2, 3]},
    ],
    ids=range(12),
)
def test_palettes_that_do_not_fit(palette):
    with logged() as messages:
        assert read(classes=["a", "b"], palette=palette)["palette"] is None
    assert (
        "".join(messages).count(
            "its palette does not fit its classes; other colours are"
        )
        == 1
    )


@pytest.mark.parametrize(
    "palette",
    [
        [(1, 2, 3), [4, 5.0, 6]],
        ((1, 2, 3), np.array([4, 5, 6], np.uint8)),
        [(1, 2, 3), (4, 5, 6), (7, 8, 9)],
    ],
    ids=range(3),
)
def test_palettes_that_fit(palette):
    with logged() as messages:
        colors = read(classes=["a", "b"], palette=palette)["palette"]
    assert colors[:2] == [(1, 2, 3), (4, 5, 6)]
    assert not messages


@pytest.mark.parametrize(
    "ids",
    [7, [1], [1, 1], [1, "2"], [1, None], [1, 10**400], [1.0, 2], torch.ones(2)],
    ids=range(8),
)
def test_category_ids_that_do_not_fit(ids):
    with logged() as messages:
        meta = read(classes=["a", "b"], category_ids=ids)
    assert meta["category_ids"] is None
    assert [c["id"] for c in coco_files.categories(meta)] == [1, 2]
    assert "its category_ids does not fit its classes" in "".join(messages)


def test_reduce_zero_label():
    def reduced(value):
        return read(classes=["a"], reduce_zero_label=value)["reduce_zero_label"]

    assert reduced(True) is True
    for value in (False, None, "yes", [1], torch.ones(2), float("nan")):
        assert reduced(value) is False


# Results

HOSTILE = (
    *("$\\frac{1}{$", "a\nb", "\udcff", "\u202egnp", "\x1b[31m", "\0", "a" * 10**5),
    *("</style><script>", "$$", "\\$", "%s{}", "Käfer"),
)


def det_sample(boxes, scores):
    instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(scores)) % len(HOSTILE),
        scores=torch.tensor(scores, dtype=torch.float32),
    )
    return DetDataSample(pred_instances=instances)


def test_names_in_the_results_are_exact(tmp_path):
    meta = read(classes=HOSTILE)
    writer = results.Results(tmp_path, "mmdet", meta, 0.3)
    (source,) = _named(dict.fromkeys([Path("/\udcff\n$x$.png")], Media.IMAGE))
    boxes = [[1, 2, 30, 40]] * len(HOSTILE)
    image = np.zeros((48, 64, 3), np.uint8)
    writer.image(source, 1, image, det_sample(boxes, [0.9] * len(HOSTILE)))
    writer.close()
    written = json.loads((tmp_path / "images.json").read_bytes().decode("utf-8"))
    assert [category["name"] for category in written["categories"]] == list(HOSTILE)
    assert written["images"][0]["file_name"] == "\udcff\n$x$.png"
    assert len(list((tmp_path / "pictures").iterdir())) == 1


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path, wrong):
    writer = results.Results(tmp_path, "mmdet", read(classes=HOSTILE), 0.3)
    (source,) = _named(dict.fromkeys([Path("/a.png")], Media.IMAGE))
    image = np.zeros((48, 64, 3), np.uint8)
    for boxes, score in (([[1, 2, 3, wrong]], 0.5), ([[1, 2, 3, 4]], wrong)):
        with pytest.raises(InputError, match="are not finite numbers: the weights in"):
            writer.image(source, 1, image, det_sample(boxes, [score]))
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_names_on_label_maps(tmp_path):
    writer = results.Results(tmp_path, "mmseg", read(classes=HOSTILE), 0.3)
    labels = torch.arange(len(HOSTILE)).repeat_interleave(20).repeat(30, 1)[None]
    image = np.zeros((*labels.shape[1:], 3), np.uint8)
    (source,) = _named(dict.fromkeys([Path("/a.png")], Media.IMAGE))
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    writer.image(source, 1, image, sample)
    assert (tmp_path / "pictures/a.jpg").is_file()


def test_a_hostile_folder(tool, tmp_path):
    """One bad file is an error of that file; the process neither waits nor crashes."""
    from ..bad_inputs.weights import save

    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"\xff.jpg", b"[bold].jpg", b"\xe2\x80\xae.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(jpeg())
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xfe.mp4")).write_bytes(b"\0\0\0\x18ftyp")
    video(folder / "a.mp4", 1)
    (folder / "a.mp4").rename(folder / "[x] [red].mp4")
    done = tool("predict", save(tmp_path, "seg"), folder, "--out", "out")
    assert done.code == 1, done.err
    assert "4 of 8 files could not be predicted" in done.err
    assert "\\udcfe.mp4: its path is not UTF-8" in done.err
    assert "Traceback" not in done.err
    assert len(list((tmp_path / "out/pictures").iterdir())) == 4
