"""``convnext_dense.load``: images to data samples, as ``convnext-dense predict``."""

import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from mmdet.structures import DetDataSample
from mmseg.structures import SegDataSample

import convnext_dense
from convnext_dense.datasets.shapes import CLASSES
from convnext_dense.errors import InputError

from .helpers import image_kinds, small_checkpoints
from .helpers.mmengine_state import logged

SAMPLES = dict(det=DetDataSample, seg=SegDataSample)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {t: small_checkpoints.checkpoint(folder / f"{t}.pth", t) for t in SAMPLES}


@pytest.fixture(scope="module")
def predictors(files):
    return {task: convnext_dense.load(file, "cpu") for task, file in files.items()}


@pytest.fixture(scope="module", params=SAMPLES)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def predictor(predictors, task):
    return predictors[task]


def noise(*shape, dtype=np.uint8):
    """Pixels whose predictions differ between images."""
    high = np.iinfo(dtype).max
    small = np.random.default_rng(0).integers(0, high, (4, 6, *shape[2:]), dtype)
    return small.repeat(shape[0] // 4, 0).repeat(shape[1] // 6, 1)


def values(sample):
    if "pred_sem_seg" in sample:
        return sample.seg_logits.data
    return torch.cat(
        [sample.pred_instances.bboxes.flatten(), sample.pred_instances.scores]
    )


def same(a, b):
    return torch.equal(values(a), values(b))


def test_paths_arrays_and_pillow_images(predictor, task, tmp_path):
    image = noise(64, 96, 3)
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), image)
    sample = predictor(file)
    assert type(sample) is SAMPLES[task]
    assert same(predictor(str(file)), sample)
    assert same(predictor(image), sample)
    assert not same(predictor(image[..., ::-1]), sample)  # arrays are BGR
    assert same(predictor(PIL.Image.open(file)), sample)


def test_a_list_gives_a_list(predictor):
    images = [noise(64, 96, 3), noise(96, 64, 3)[::-1], 255 - noise(64, 96, 3)]
    samples = predictor(images)
    assert len(samples) == 3
    for image, sample in zip(images, samples, strict=True):
        assert same(predictor(image), sample)
    assert not same(samples[0], samples[2])
    for alone, batched in zip(samples, predictor(images, batch=2), strict=True):
        torch.testing.assert_close(values(batched), values(alone), rtol=1e-4, atol=1e-4)
    assert [type(s) for s in predictor(tuple(images[:1]))] == [type(samples[0])]
    assert predictor([]) == []


def pillow_kinds():
    """Images of modes and tags, and the (H, W, 3) RGB that their files give."""
    rgb, grey = noise(64, 96, 3), noise(64, 96)
    alpha = np.dstack([rgb, grey])
    three = grey[..., None].repeat(3, 2)
    turned = PIL.Image.fromarray(rgb)
    turned.getexif()[0x0112] = 6
    deep = noise(64, 96, dtype=np.uint16)
    yield "grey", PIL.Image.fromarray(grey), three
    yield "alpha", PIL.Image.fromarray(alpha), rgb
    yield "grey and alpha", PIL.Image.fromarray(np.dstack([grey, grey])), three
    yield "turned", turned, np.rot90(rgb, -1)
    yield "16 bits", PIL.Image.fromarray(deep), (deep >> 8)[..., None].repeat(3, 2)
    black = PIL.Image.fromarray(grey > 100)
    yield "two values", black, np.uint8(255 * (grey > 100))[..., None].repeat(3, 2)
    colors = PIL.Image.fromarray(rgb).quantize(8)
    yield "palette", colors, np.asarray(colors.convert("RGB"))


@pytest.mark.parametrize(
    ("name", "image", "rgb"), pillow_kinds(), ids=[kind[0] for kind in pillow_kinds()]
)
def test_pillow_images_of_any_mode(predictors, tmp_path, name, image, rgb):
    """The same values as the array's, and as the file's."""
    predictor = predictors["seg"]
    sample = predictor(image)
    assert sample.pred_sem_seg.data.shape[1:] == rgb.shape[:2]
    assert same(sample, predictor(np.ascontiguousarray(rgb[..., ::-1], np.uint8)))
    image.save(tmp_path / "a.png", exif=image.getexif())
    if name != "turned" or "exif" in PIL.Image.open(tmp_path / "a.png").info:
        assert same(sample, predictor(PIL.Image.open(tmp_path / "a.png")))
    if name != "turned":  # not every OpenCV turns a PNG
        assert same(sample, predictor(tmp_path / "a.png"))


def test_dark_images_of_16_bits_are_named(predictors):
    with logged() as lines:
        predictors["seg"](PIL.Image.fromarray(noise(64, 96, dtype=np.uint16) >> 5))
    assert "become nearly black" in " ".join(lines)


IMAGE = noise(64, 96, 3)
WRONG = {
    "uint8, from 0 to 255, not float32 of shape": IMAGE.astype(np.float32),
    r"in BGR, not uint8 of shape \(64, 96, 4\)": np.dstack([IMAGE, IMAGE[..., 0]]),
    r"in BGR, not uint8 of shape \(3, 64, 96\)": IMAGE.transpose(2, 0, 1),
    r"not uint8 of shape \(0, 96, 3\)": IMAGE[:0],
    "a Tensor is not an image: give a path": torch.zeros(3, 64, 96),
    "has floats": PIL.Image.fromarray(np.ones((64, 96), np.float32)),
    "has integers of 32 bits": PIL.Image.fromarray(np.full((64, 96), 70_000, np.int32)),
    "cannot be read: No such file": "nothing.jpg",
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_image(predictors, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predictor = predictors["seg"]
    with pytest.raises(InputError, match=message):
        predictor(WRONG[message])
    with pytest.raises(InputError, match=f"image 2 of 2: .*({message})"):
        predictor([IMAGE, WRONG[message]])


def test_damaged_files_and_videos(predictors, tmp_path):
    predictor = predictors["seg"]
    file = tmp_path / "a.jpg"
    file.write_bytes(image_kinds.saved(noise(640, 960, 3), "JPEG")[:-900])
    with pytest.raises(InputError, match=f"{file}: it is damaged"):
        predictor(file)
    with pytest.raises(InputError, match="the image is damaged"):
        predictor(PIL.Image.open(file))
    file.write_bytes(image_kinds.animation("GIF"))
    with pytest.raises(InputError, match="is a video: give its frames"):
        predictor(file)


def test_classes_colours_and_drawings(predictor, task):
    names = {"det": CLASSES, "seg": ("ground", *CLASSES)}[task]
    assert predictor.classes == names
    assert len(predictor.palette) == len(names)
    assert predictor.scope == {"det": "mmdet", "seg": "mmseg"}[task]
    sample = predictor(IMAGE)
    drawn = predictor.draw(IMAGE, sample, 0)
    assert drawn.size == (96, 64)
    assert not np.array_equal(drawn, IMAGE[..., ::-1])
    # mmdet varies the colours of masks a little.
    again = np.asarray(predictor.draw(IMAGE, score_thr=0), np.int16)
    assert np.abs(np.asarray(drawn) - again).mean() < 20
    plain = np.array_equal(predictor.draw(IMAGE, sample, 1), IMAGE[..., ::-1])
    assert plain == (task == "det")  # nothing is above 1


def test_supervision(predictor, task):
    pytest.importorskip("supervision")
    sample = predictor(IMAGE)
    detections = predictor.detections(IMAGE, 0)
    names = [predictor.classes[i] for i in detections.class_id]
    assert list(detections["class_name"]) == names
    if task == "det":
        assert np.array_equal(detections.xyxy, sample.pred_instances.bboxes)
        assert np.array_equal(detections.mask, sample.pred_instances.masks)
        middle = float(np.median(detections.confidence))
        assert 0 < len(predictor.detections(IMAGE, middle)) < len(detections)
        assert len(predictor.detections(IMAGE, 1)) == 0
    else:
        labels = sample.pred_sem_seg.data[0].numpy()
        assert list(detections.class_id) == list(np.unique(labels))
        for index, mask in zip(detections.class_id, detections.mask, strict=True):
            assert np.array_equal(mask, labels == index)
    two = predictor.detections([IMAGE, IMAGE], 0)
    assert [len(d) for d in two] == [len(detections)] * 2


def test_without_supervision(predictors, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="pip install supervision"):
        predictors["det"].detections(IMAGE)


def test_configs_work_dirs_and_mistakes(files, predictors, tmp_path):
    text = torch.load(files["seg"], weights_only=False)["meta"]["cfg"]
    config = tmp_path / "config.py"
    config.write_text(text)
    with pytest.raises(InputError, match="its load_from names no checkpoint") as error:
        convnext_dense.load(config, "cpu")
    assert f"config={str(config)!r}" in str(error.value)
    expected = predictors["seg"](IMAGE)
    # The advice works.
    assert same(convnext_dense.load(files["seg"], "cpu", config)(IMAGE), expected)
    config.write_text(text + f"\nload_from = {str(files['seg'])!r}\n")
    assert same(convnext_dense.load(config, "cpu")(IMAGE), expected)
    work_dir = tmp_path / "run"
    work_dir.mkdir()
    (work_dir / "iter_9.pth").write_bytes(files["seg"].read_bytes())
    assert same(convnext_dense.load(work_dir, "cpu")(IMAGE), expected)
    with pytest.raises(InputError, match="a config without weights"):
        convnext_dense.load("seg/upernet_convnext_t_ade20k")
    with pytest.raises(InputError, match="no checkpoint at"):
        convnext_dense.load(tmp_path / "none.pth")
    with pytest.raises(InputError, match="device nothing cannot be used"):
        convnext_dense.load(files["seg"], "nothing")


def test_load_is_a_name_of_the_package():
    assert "load" in convnext_dense.__all__
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = convnext_dense.lode


def test_arrays_of_other_types_and_layouts(predictors):
    predictor = predictors["seg"]
    expected = predictor(IMAGE)
    assert same(predictor(np.asfortranarray(IMAGE)), expected)
    grey = IMAGE[..., 0]
    # Its rows are matrices again: numpy crashes where it adds an axis.
    assert same(predictor(np.asmatrix(grey)), predictor(grey))
    for array, advice in (
        (IMAGE[None], r"list\(images\)"),
        (IMAGE.transpose(2, 0, 1), r"image\.transpose\(1, 2, 0\)"),
        (np.dstack([IMAGE, grey]), r"image\[\.\.\., :3\]"),
    ):
        with pytest.raises(InputError, match=advice):
            predictor(array)
    assert same(predictor(np.dstack([IMAGE, grey])[..., :3]), expected)
    with pytest.raises(InputError, match=r"generator is not .* or a list of these"):
        predictor(image for image in [IMAGE])
    for batch in 0, -1, 1.5, None:
        with pytest.raises(InputError, match="batch="):
            predictor([IMAGE], batch=batch)


def test_rare_modes_of_pillow(predictors):
    predictor, deep = predictors["seg"], noise(64, 96, dtype=np.uint16)
    expected = predictor((deep >> 8).astype(np.uint8))
    for mode, order in ("I;16B", ">u2"), ("I;16L", "<u2"):
        pixels = deep.astype(order).tobytes()
        image = PIL.Image.frombytes(mode, deep.shape[::-1], pixels)
        assert same(predictor(image), expected)
    assert predictor(PIL.Image.new("La", (96, 64))).pred_sem_seg.shape == (64, 96)


def test_draw_takes_predictions_of_this_image_alone(predictors, task):
    predictor, other = predictors[task], predictors["det" if task == "seg" else "seg"]
    sample = predictor(IMAGE)
    with pytest.raises(InputError, match=r"96 x 32 pixels, .* of 96 x 64"):
        predictor.draw(IMAGE[:32], sample)
    for wrong in other(IMAGE), [sample], IMAGE:
        with pytest.raises(
            InputError, match="the prediction of one image by this model"
        ):
            predictor.draw(IMAGE, wrong)
    for threshold in -0.1, 30, float("nan"), "0.3":
        with pytest.raises(InputError, match="score_thr="):
            predictor.draw(IMAGE, sample, threshold)


def test_several_threads(predictors):
    """They share mmengine's default scope, and a picture of matplotlib."""
    expected = {task: np.asarray(p.draw(IMAGE)) for task, p in predictors.items()}
    with ThreadPoolExecutor(4) as pool:
        tasks = ["det", "seg"] * 4
        drawn = list(pool.map(lambda task: predictors[task].draw(IMAGE), tasks))
    for name, picture in zip(tasks, drawn, strict=True):
        assert np.array_equal(picture, expected[name])


def test_a_checkpoint_that_names_too_few_classes(files, tmp_path):
    for task in SAMPLES:
        content = torch.load(files[task], weights_only=False)
        content["meta"]["dataset_meta"] = dict(classes=("a",))
        torch.save(content, tmp_path / "few.pth")
        predictor = convnext_dense.load(tmp_path / "few.pth", "cpu")
        for predict in predictor, predictor.draw:
            with pytest.raises(InputError, match="but the data has 1 classes"):
                predict(IMAGE)
