"""convnext-dense predict: its predictions equal those of a test, for any input."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from convnext_dense.commands.predict import (
    coco_files,
    dataset_meta,
    predict_files,
    predictor,
    results,
)
from convnext_dense.commands.predict.inputs import _named, find
from convnext_dense.commands.predict.recognition import Media
from convnext_dense.config.options import load_config
from convnext_dense.datasets import shapes
from convnext_dense.engine.runner import run
from convnext_dense.errors import InputError

from ..helpers import image_kinds
from ..helpers.running import shell
from ..helpers.runs import ADE, DET, NO_WORKERS, SEG, options
from ..helpers.untrained import FEW, SMALL, config_like, save_untrained


@pytest.fixture(scope="module")
def det(tmp_path_factory):
    """A config, and an untrained checkpoint as mmengine saves it."""
    folder = tmp_path_factory.mktemp("det")
    return save_untrained(DET, folder, f"backbone=dict({SMALL}), test_cfg=dict({FEW})")


@pytest.fixture(scope="module")
def detector(det):
    return det[1]


@pytest.fixture(scope="module")
def seg(tmp_path_factory, shapes_root):
    """A config of a segmentor, and the checkpoint of a run."""
    folder = tmp_path_factory.mktemp("seg")
    config = config_like(SEG, folder, f"backbone=dict({SMALL})")
    settings = [
        *NO_WORKERS,
        f"data_root={shapes_root}",
        *("train_cfg.max_iters=2", "train_cfg.val_interval=3"),
        "default_hooks.checkpoint.interval=2",
    ]
    run(load_config(str(config), settings, str(folder)), "train")
    return config, folder / "iter_2.pth"


@pytest.fixture(scope="module")
def segmentor(seg):
    return seg[1]


@pytest.fixture(scope="module")
def photo(shapes_root):
    return cv2.imread(str(sorted((shapes_root / "images/val").iterdir())[0]))


def with_change(checkpoint, file, change):
    torch.save(change(torch.load(checkpoint, weights_only=False)), file)
    return file


def with_config(change):
    return lambda content: {
        **content,
        "meta": {**content["meta"], "cfg": change(content["meta"]["cfg"])},
    }


with_sync_bn = with_config(lambda text: text.replace("type='BN'", "type='SyncBN'"))


def files(folder):
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def test_the_advice_for_a_config_that_does_not_fit_works(
    tool, det, shapes_root, tmp_path
):
    """A run on custom data has other classes than the config that it began with."""
    config, detector = det
    folder = tmp_path / "begin"
    folder.mkdir()
    other = folder / "config.py"
    other.write_text(config.read_text().replace("[1] * 4", "[1, 1, 2, 1]"))
    image = next((shapes_root / "images/val").iterdir())
    done = tool("predict", other, detector, image, "--out", "out")
    assert done.code == 2
    says = "fits the config of its run, which is inside it"
    assert f"{says}: leave out {other}" in done.err
    assert tool("predict", detector, image, "--out", "out").code == 0

    settings = options(f"data_root={shapes_root}")
    done = tool("test", other, detector, *settings)
    assert done.code == 2
    given = done.err.strip().rpartition(": give ")[2]
    assert says in done.err
    assert given == str(config)
    # Without a config inside, or with one that does not fit either, nothing is advised.
    alone = with_change(detector, tmp_path / "a.pth", lambda c: c["state_dict"])
    assert says not in tool("predict", other, alone, image, "--out", "out").err


def test_detections_are_those_of_test(tool, det, shapes_root, tmp_path):
    config, detector = det
    images = shapes_root / "images/val"
    cfg_options = options(f"data_root={shapes_root}", "test_dataloader.batch_size=1")
    assert tool("test", config, detector, "--out", "truth.pkl", *cfg_options).code == 0
    truth = pickle.loads((tmp_path / "truth.pkl").read_bytes())
    assert not torch.equal(
        *(sample["pred_instances"]["bboxes"] for sample in truth[:2])
    )

    done = tool("predict", detector, images, "--out", "out", "--score-thr", "0.99")
    assert done.code == 0
    assert "files predicted: 3" in done.out
    out = tmp_path / "out"
    names = sorted(path.stem for path in images.iterdir())
    assert files(out) == [
        "images.json",
        *(f"pictures/{name}.jpg" for name in names),
        "predictions.json",
    ]
    coco = COCO(out / "images.json")
    assert [c["name"] for c in coco.dataset["categories"]] == list(shapes.CLASSES)
    ids = {image["file_name"]: image["id"] for image in coco.dataset["images"]}
    predictions = coco.loadRes(str(out / "predictions.json"))
    for sample in truth:
        expected = sample["pred_instances"]
        detections = predictions.imgToAnns[ids[Path(sample["img_path"]).name]]
        assert len(detections) == len(expected["scores"]) > 0
        boxes = np.array([result["bbox"] for result in detections])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, expected["bboxes"], atol=1e-4)
        np.testing.assert_array_equal(
            [result["score"] for result in detections], expected["scores"].double()
        )
        assert [r["category_id"] - 1 for r in detections] == expected["labels"].tolist()
        for result, mask in zip(detections, expected["masks"], strict=True):
            assert rle.iou([result["segmentation"]], [mask], [0]).item() in (0, 1)
            assert result["segmentation"]["counts"] == mask["counts"].decode()
    # First only boxes with a score of at least 0.99 are drawn, then all.
    plain, picture = images / f"{names[0]}.jpg", out / f"pictures/{names[0]}.jpg"
    difference = cv2.absdiff(cv2.imread(str(picture)), cv2.imread(str(plain)))
    assert difference.mean() < 3  # from JPEG compression
    done = tool(
        *("predict", config, detector, images, plain, "--out", "out", "--batch", "2"),
        *("--score-thr", "0", "--device", "cpu", "--overwrite"),
        *("--cfg-options", "model.test_cfg.rcnn.max_per_img=2"),
    )
    assert done.code == 0
    difference = cv2.absdiff(cv2.imread(str(picture)), cv2.imread(str(plain)))
    assert difference.mean() > 10
    again = json.loads((out / "predictions.json").read_text())
    assert len(again) == 2 * 3  # a file that is named twice is predicted once


def test_label_maps_are_those_of_test(tool, seg, shapes_root, tmp_path):
    config, segmentor = seg
    images = shapes_root / "images/val"
    cfg_options = options(f"data_root={shapes_root}")
    assert tool("test", config, segmentor, "--out", "truth", *cfg_options).code == 0
    on_gpus = with_change(segmentor, tmp_path / "gpus.pth", with_sync_bn)
    for file, batch in (segmentor, "1"), (on_gpus, "2"):
        out = tmp_path / f"batch {batch}"
        done = tool("predict", file, images, "--out", out, "--batch", batch)
        assert done.code == 0
        for path in sorted((tmp_path / "truth").iterdir()):
            truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            labels = cv2.imread(str(out / "labels" / path.name), cv2.IMREAD_UNCHANGED)
            assert labels.dtype == np.uint8
            assert len(np.unique(truth)) > 1
            # Rounding decides between classes of equal probability.
            assert np.mean(labels != truth) < 1e-4
        assert len(files(out)) == 6  # label maps and pictures, and no json


def write_videos(folder, frames):
    def write(name, code, rate):
        height, width = frames[0].shape[:2]
        video = cv2.VideoWriter(
            str(folder / name), cv2.VideoWriter_fourcc(*code), rate, (width, height)
        )
        for frame in frames:
            video.write(frame)
        video.release()

    write("clip ä.mp4", "mp4v", 12.5)
    write("cut.avi", "MJPG", 10)
    content = (folder / "cut.avi").read_bytes()
    (folder / "cut.avi").write_bytes(content[: len(content) // 2])


def test_odd_files_do_not_stop_the_rest(tool, segmentor, photo, tmp_path):
    """Files of cameras are predicted; broken ones are reported with the reason."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    height, width = photo.shape[:2]
    wide = Image.fromarray(photo[: height // 2, :, ::-1].copy())
    good = {
        "grey.png": wide.convert("L"),
        "alpha.png": wide.convert("RGBA"),
        "palette.gif": wide.convert("P"),
        "schön [1] & 100%.tif": wide,
        "same.bmp": wide,
        "same.webp": wide,
    }
    for name, image in good.items():
        image.save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    wide.save(folder / "turned.JPG", exif=exif, quality=95)
    deep = np.asarray(wide.convert("L")).astype(np.uint16) * 257
    cv2.imwrite(str(folder / "deep.png"), deep)

    wide.save(folder / "cut.jpg")
    content = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) * 3 // 4])
    (folder / "empty.png").touch()
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    Image.fromarray(photo[:1]).save(folder / "thin.png")
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "notes.txt").write_text("no image")
    (folder / "._turned.JPG").write_text("a Mac's")
    write_videos(folder, [photo] * 4)
    (folder / "clip").write_bytes((folder / "clip ä.mp4").read_bytes())
    (folder / "moving.gif").write_bytes(image_kinds.animation("GIF", 2))
    floats = image_kinds.tiff(image_kinds.pixels(3, np.float32))
    (folder / "floats.tif").write_bytes(floats)
    (folder / "scan.tif").write_bytes(image_kinds.tiff(image_kinds.pixels(), pages=2))

    done = tool(
        *("predict", segmentor, folder, folder / "turned.JPG", folder / "notes.txt"),
        *("--out", "out", "--batch", "4"),
    )
    assert done.code == 1
    reasons = {
        "cut.jpg": "it is damaged: image file is truncated",
        "empty.png": "it is empty",
        "phone.heic": "it is a HEIC image: save it as JPEG or PNG",
        "thin.png": "320 x 1 pixels: one side is more than 100 times the other, and "
        "resizing leaves nothing of it",
        "gone.jpg": "it cannot be read: No such file",
        "notes.txt": "it is text, not an image. If it lists images, one in a line",
        "cut.avi": "it is cut short: ",
        "floats.tif": "its pixels are floats of 32 bits: save it as a PNG of 8 bits",
    }
    assert "note: moving.gif: an animation is predicted as a video" in done.out
    assert "note: scan.tif: it has 2 pages, and only the first one is read" in done.out
    error = done.err[done.err.index("error: ") :]
    assert "8 of 20 files could not be predicted" in error
    for name, reason in reasons.items():
        (line,) = [line for line in error.splitlines() if f"/{name}: " in line]
        assert reason in line
    pictures = tmp_path / "out/pictures"
    assert {f for f in files(pictures) if not f.startswith("cut")} == {
        *("moving.mp4", "scan.jpg", "clip.mp4"),
        *("alpha.jpg", "clip ä.mp4", "deep.jpg", "grey.jpg", "palette.jpg"),
        *("same.jpg", "same.webp.jpg", "schön [1] & 100%.jpg", "turned.jpg"),
    }
    assert cv2.imread(str(pictures / "turned.jpg")).shape == (width, height // 2, 3)
    label = cv2.imread(str(tmp_path / "out/labels/turned.png"), cv2.IMREAD_UNCHANGED)
    assert label.shape == (width, height // 2)
    # Gray images of 8 and of 16 bits show the same.
    labels = [(tmp_path / f"out/labels/{n}.png").read_bytes() for n in ("grey", "deep")]
    assert labels[0] == labels[1]


def test_videos(tool, detector, segmentor, shapes_root, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = [
        cv2.imread(str(p)) for p in sorted((shapes_root / "images/val").iterdir())
    ]
    write_videos(folder, frames)
    clip = folder / "clip ä.mp4"
    decoded = list(predict_files.Video(clip))
    assert len(decoded) == len(frames) == 3
    for number, frame in enumerate(decoded, 1):
        cv2.imwrite(str(folder / f"{number:06}.png"), frame)
    done = tool(
        *("predict", segmentor, f"{folder}/*.png", clip),
        *("--out", "out", "--batch", "2"),
    )
    assert done.code == 0
    drawn = predict_files.Video(tmp_path / "out/pictures/clip ä.mp4")
    assert drawn.rate == 12.5
    assert [frame.shape for frame in drawn] == [frame.shape for frame in decoded]
    labels = tmp_path / "out/labels"
    assert files(labels / clip.name) == [f"{number:06}.png" for number in range(1, 4)]
    contents = set()
    for number in range(1, 4):
        content = (labels / clip.name / f"{number:06}.png").read_bytes()
        assert content == (labels / f"{number:06}.png").read_bytes()
        contents.add(content)
    assert len(contents) > 1

    done = tool("predict", detector, clip, folder / "000001.png", "--out", "det")
    assert done.code == 0
    images = json.loads((tmp_path / "det/images.json").read_text())["images"]
    assert [(i["id"], i["file_name"], i.get("frame")) for i in images] == [
        (1, "000001.png", None),
        *((number + 1, clip.name, number) for number in range(1, 4)),
    ]
    COCO(tmp_path / "det/images.json").loadRes(str(tmp_path / "det/predictions.json"))


def test_videos_are_not_held_in_memory():
    """A batch is predicted before more frames are read."""
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            data = dict(inputs=torch.zeros(3, 32 + number % 3, 32))
            yield predict_files.Item(
                None, number, number, predict_files.Prepared(np.empty(0), data)
            )

    seen = []
    for group in predict_files._batches(items(), 8):
        assert len({tuple(item.prepared.data["inputs"].shape) for item in group}) == 1
        assert len(group) <= 8
        seen += [item.number for item in group]
        assert len(taken) - len(seen) < 4 * 8
    assert sorted(seen) == list(range(1000))


def test_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jpg", "a/x.PNG", "a/x.mp4", "b/x.jpg", "b/c/[1].jpg", "b/1.txt"):
        path = Path("in", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    out = tmp_path / "out"

    def listed(*arguments):
        sources = find(arguments, out).sources
        return [(source.file_name, source.picture) for source in sources]

    x = ("x.jpg", "pictures/x.jpg")
    assert listed("in/a/x.jpg", f"{tmp_path}/in/a/../a/x.jpg") == [x]
    assert listed("in/b") == [x]
    assert listed("in/a") == [
        ("x.PNG", "pictures/x.jpg"),
        ("x.jpg", "pictures/x.jpg.jpg"),
        ("x.mp4", "pictures/x.mp4.mp4"),
    ]
    assert listed("in/b/c/[1].jpg") == [("[1].jpg", "pictures/[1].jpg")]
    everything = listed("in/**")
    assert everything == listed("in/**/*.jpg", "in/a", "in/**") or len(everything) == 5
    assert ("b/x.jpg", "pictures/b/x.jpg") in everything
    assert ("b/c/[1].jpg", "pictures/b/c/[1].jpg") in everything
    assert len({picture for _, picture in everything}) == len(everything) == 5

    # A second run: the pattern matches the results of the first.
    (tmp_path / "out/pictures").mkdir(parents=True)
    (tmp_path / "out/pictures/x.jpg").touch()
    assert len(listed("**/*.jpg")) == 3
    with pytest.raises(InputError, match=r"folder in has no images.*'in/\*\*/\*'"):
        listed("in")
    with pytest.raises(InputError, match="no file, folder or pattern matches in/z"):
        listed("in/a", "in/z*.jpg")


def test_numbers_of_categories():
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    def ids(**meta):
        return [category["id"] for category in coco_files.categories(meta)]

    assert ids(classes=("b", "a")) == [1, 2]
    assert ids(classes=("b", "a"), category_ids=[7, 3]) == [7, 3]
    coco = coco_files.categories(CocoDataset.METAINFO)
    # From COCO's annotation files.
    known = {"person": 1, "stop sign": 13, "backpack": 27, "toothbrush": 90, "tv": 72}
    assert {c["name"]: c["id"] for c in coco if c["name"] in known} == known
    assert len(coco) == 80
    panoptic = coco_files.categories(CocoPanopticDataset.METAINFO, things=80)
    assert panoptic[:80] == [dict(category, isthing=1) for category in coco]
    stuff = {"banner": 92, "tree-merged": 184, "rug-merged": 200, "sea": 155}
    ids = {c["name"]: c["id"] for c in panoptic if not c["isthing"]}
    assert stuff.items() <= ids.items()
    assert len(ids) == 53


def sample_of(labels):
    from mmseg.structures import SegDataSample

    return SegDataSample(pred_sem_seg=PixelData(data=torch.tensor(labels)[None]))


@pytest.mark.parametrize(
    ("classes", "meta", "expected"),
    [
        (256, {}, [[0, 255]]),
        (257, {}, [[0, 255]]),
        (255, dict(reduce_zero_label=True), [[1, 256]]),
    ],
)
def test_label_files(tmp_path, classes, meta, expected):
    """Labels are numbered like the data set's; more than 256 need 16 bits."""
    meta = dict(classes=tuple(map(str, range(classes + 1 * bool(meta)))), **meta)
    writer = results.Results(tmp_path, "mmseg", meta, 0.3)
    (source,) = _named(dict.fromkeys([Path("/a.png")], Media.IMAGE))
    image = np.zeros((1, 2, 3), np.uint8)
    writer.image(source, 1, image, sample_of([[0, 255]]))
    labels = cv2.imread(str(tmp_path / "labels/a.png"), cv2.IMREAD_UNCHANGED)
    assert labels.tolist() == expected
    assert labels.dtype == (np.uint8 if classes == 256 else np.uint16)


def test_classes_that_the_data_has_not(tmp_path):
    writer = results.Results(tmp_path, "mmseg", dict(classes=("a", "b")), 0.3)
    (source,) = _named(dict.fromkeys([Path("/a.png")], Media.IMAGE))
    with pytest.raises(InputError, match=r"predicts class 2 .*, but the data has 2"):
        writer.image(source, 1, np.zeros((1, 2, 3), np.uint8), sample_of([[0, 2]]))
    assert files(tmp_path) == []


def test_weights_alone_with_a_config(tool, seg, photo, tmp_path):
    """The classes come from the config's test data set, whose files need not exist."""
    cv2.imwrite(str(tmp_path / "x.png"), photo)
    config, segmentor = seg
    file = with_change(segmentor, tmp_path / "c.pth", lambda c: c["state_dict"])
    done = tool("predict", config, file, "x.png", "--out", "out")
    assert done.code == 0
    assert files(tmp_path / "out") == ["labels/x.png", "pictures/x.jpg"]


@pytest.fixture
def folder(photo, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), photo)
    return folder


def test_interrupted(tool, detector, folder, tmp_path, monkeypatch):
    predicted, calls = predictor.Predictor.__call__, []

    def interrupted(self, batch):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predicted(self, batch)

    monkeypatch.setattr(predictor.Predictor, "__call__", interrupted)
    done = tool("predict", detector, folder, "--out", "out")
    assert done.code == 130
    assert "interrupted; files predicted: 2 of 3" in done.err
    assert len(files(tmp_path / "out/pictures")) == 2
    coco = COCO(tmp_path / "out/images.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == [
        "a.png",
        "b.png",
    ]
    assert coco.loadRes(str(tmp_path / "out/predictions.json")).getImgIds() == [1, 2]


def test_a_model_that_fails_at_one_image(
    tool, segmentor, folder, tmp_path, monkeypatch
):
    predicted = predictor.Predictor.__call__

    def fails(self, batch):
        for prepared in batch:
            if "/b.png" in prepared.data["data_samples"].img_path:
                raise IndexError("of the model")
        return predicted(self, batch)

    monkeypatch.setattr(predictor.Predictor, "__call__", fails)
    done = tool("predict", segmentor, folder, "--out", "out", "--batch", "3")
    assert done.code == 1
    assert "/b.png: IndexError: of the model" in done.err
    assert files(tmp_path / "out/pictures") == ["a.jpg", "c.jpg"]


def test_too_large_a_batch(tool, segmentor, folder, monkeypatch):
    def test_step(self, data):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("mmseg.models.EncoderDecoder.test_step", test_step)
    done = tool("predict", segmentor, folder, "--out", "out", "--batch", "3")
    assert done.code == 2
    assert "memory is too small for 3 images at once: lower --batch" in done.err


def test_a_folder_that_cannot_be_made(tool, segmentor, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/pictures").touch()
    done = tool("predict", segmentor, folder, "--out", "out")
    assert done.code == 2
    assert "out/pictures is a file, not a folder" in done.err


def test_what_test_data_says_of_itself():
    """For mmseg's data sets this includes ``reduce_zero_label``."""
    ade = dataset_meta._test_data(load_config(str(ADE)))
    assert (ade["classes"][:2], len(ade["classes"])) == (("wall", "building"), 150)
    assert ade["reduce_zero_label"] is True
    data = dataset_meta._test_data(load_config(str(SEG)))
    assert data["classes"] == ("ground", *shapes.CLASSES)
    assert not data["reduce_zero_label"]


def test_help_needs_no_arguments():
    done = shell("tools/predict.py", "--help")
    assert done.returncode == 0
    for word in ("[CONFIG] CHECKPOINT INPUT", "--score-thr", "--batch", "--device"):
        assert word in done.stdout
    done = shell("tools/predict.py", "only.pth", "--out", "out")
    assert done.returncode == 2
    assert "name a checkpoint and at least one image" in done.stderr
