"""Pipes, devices, loops, odd names and long lists among custom data."""

import json
import os
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from convnext_dense.datasets.custom import label_layouts
from convnext_dense.datasets.custom.draw_split import draw_split
from convnext_dense.datasets.custom.layouts import find_dataset
from convnext_dense.datasets.custom.mmseg_dataset import LabelMapDataset
from convnext_dense.datasets.custom.prepare import Options, _read_settings, examine
from convnext_dense.errors import InputError

from ..helpers.custom_data import (
    coco,
    label_array,
    photograph,
    save,
    save_labels,
    write_label_maps,
)


@pytest.fixture
def pipe(tmp_path):
    """A pipe to which nobody writes: opening it waits forever."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def maps(tmp_path):
    """The options of a folder of images and label maps."""
    write_label_maps(tmp_path)
    return Options(
        train_images=str(tmp_path / "images"), train_labels=str(tmp_path / "labels")
    )


@pytest.mark.parametrize("flag", ["classes", "color_map"])
def test_pipes_devices_and_folders_as_lists_of_classes(maps, pipe, flag):
    for path, says in (
        (pipe, "is a pipe"),
        ("/dev/zero", "is a device"),
        (pipe.parent, "is a folder"),
    ):
        setattr(maps, flag, [str(path)] if flag == "classes" else str(path))
        with pytest.raises(InputError, match=f"--{flag.replace('_', '.')} .*{says}"):
            examine(maps)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a" * 10**5], "it has 100000 characters, more than 200"),
        (["a\0"], "control character"),
        (["a", "\udcff"], "control character"),
        (["a", "b\nc"], "control character"),
        ([f"c{i}" for i in range(256)], "has 256 classes: label maps have at most 255"),
        ([*map(str, range(254)), "253"], "253 is given twice"),
    ],
)
def test_class_names_that_are_refused(maps, names, says):
    maps.classes = names
    with pytest.raises(InputError, match=f"--classes.*{says}"):
        examine(maps)


def test_a_file_of_a_million_classes(maps, tmp_path):
    lines = "\n".join(f"class {i // 2 if i > 10**6 - 3 else i}" for i in range(10**6))
    (tmp_path / "names.txt").write_text(lines)
    maps.classes = [str(tmp_path / "names.txt")]
    start = time.process_time()
    with pytest.raises(InputError, match=r"names.txt has 1000000 classes"):
        examine(maps)
    assert time.process_time() - start < 10  # a bound, not a measurement: 0.1


def test_links_in_circles_and_names_of_two_lines(maps, tmp_path):
    (tmp_path / "images/circle").symlink_to(tmp_path / "images")
    (tmp_path / "labels/up").symlink_to("..")
    (tmp_path / "labels/self.png").symlink_to("self.png")
    photograph(tmp_path / "images/two\nlines.jpg", 9)
    save_labels(label_array(), tmp_path / "labels/two\nlines.png")
    train, val = examine(maps)
    assert len(train.files) + len(val.files) == 5
    assert not train.problems.stop
    folder = train.fixed(tmp_path / "fixed")
    written = {path.relative_to(folder) for path in folder.rglob("*.png")}
    assert len(written) == len(train.files)


def test_pairs_with_names_that_are_not_utf8_survive(tmp_path):
    """As they are written into the work dir, so they are read again."""
    pairs = [["a\udcff.jpg", "b\n\udcfe.png"]]
    save(pairs, tmp_path / "train.json")
    dataset = object.__new__(LabelMapDataset)
    dataset.data_prefix = dict(img_path="images", seg_map_path="labels")
    dataset.ann_file, dataset.reduce_zero_label = str(tmp_path / "train.json"), False
    (entry,) = dataset.load_data_list()
    assert os.fsencode(entry["img_path"]) == b"images/a\xff.jpg"
    assert os.fsencode(entry["seg_map_path"]) == b"labels/b\n\xfe.png"


@pytest.mark.parametrize("content", ["pipe", "device", "deep", "utf-16", "names"])
def test_coco_files_that_a_folder_may_have(tmp_path, pipe, content):
    """None of them is waited for, and the message is that of the reader."""
    root = tmp_path / "data"
    coco(root / "images")
    file = root / "train.json"
    if content == "pipe":
        file.symlink_to(pipe)
    elif content == "device":
        file.symlink_to("/dev/zero")
    elif content == "deep":
        file.write_text("[" * 10**5)
    elif content == "utf-16":
        file.write_text("{}", encoding="utf-16")
    else:
        names = ["a" * 10**5, "\0", "\udcff", 5, None, ["a"]]
        save(dict(images=[dict(file_name=name) for name in names]), file)
    with pytest.raises(InputError, match=r"train\.json"):
        examine(Options(data=str(root)))


def test_folders_that_may_not_be_read_are_passed_over(tmp_path, monkeypatch):
    """Root reads every folder, so that reading fails by hand."""
    save(dict(images=[dict(file_name="0.jpg")]), tmp_path / "train.json")
    photograph(tmp_path / "images/0.jpg")
    (tmp_path / "closed").mkdir()
    read = type(tmp_path).iterdir

    def refuse(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return read(folder)

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    _, paths = find_dataset(tmp_path)
    assert paths["train"].images == tmp_path / "images"


def test_pairs_of_folders_are_looked_up(tmp_path, monkeypatch):
    """Each folder of images is listed once, and none is compared with all others."""
    for i in range(40):
        photograph(tmp_path / f"city {i}/images/a.jpg")
        save_labels(label_array(), tmp_path / f"city {i}/labels/a.png")
        save_labels(label_array(), tmp_path / f"city {i}/masks/a.png")
    listed = Counter()
    list_images = label_layouts.list_images

    def count(folder):
        listed[folder] += 1
        return list_images(folder)

    monkeypatch.setattr(label_layouts, "list_images", count)
    assert len(list(label_layouts._folder_pairs(tmp_path, lambda name: None))) == 80
    assert listed.total() <= 80
    assert max(listed.values()) == 1


def test_a_split_of_very_many_images_is_drawn(monkeypatch):
    """Each image has a class of its own, so that all but one go back to training."""
    number = 100_000
    split = SimpleNamespace(
        files=range(number),
        objects=[Counter([i]) for i in range(number)],
        select=lambda indices, name: indices,
    )
    start = time.process_time()
    train, val = draw_split(split, 0)
    assert time.process_time() - start < 20  # a bound, not a measurement: 0.3
    assert (len(train), len(val)) == (number - 1, 1)
    assert sorted(train + val) == list(range(number))


def settings(scope):
    split = dict(annotations="a.json", images="images")
    data = dict(classes=["a"], images=1, train=dict(split), val=dict(split))
    if scope == "mmdet":
        return dict(data, category_ids=[1], has_masks=False)
    for name in ("train", "val"):
        data[name]["labels"] = "labels"
    return dict(data, colors=None, zero=True)


def test_the_settings_of_a_run_that_is_resumed(tmp_path, pipe):
    for content in ("[]", "{}", '{"classes": []}', "[" * 10**5):
        (tmp_path / "data.json").write_text(content)
        with pytest.raises(InputError, match=r"data\.json is (damaged|nested)"):
            _read_settings(tmp_path / "data.json", "mmdet")
    with pytest.raises(InputError, match="is a pipe"):
        _read_settings(pipe, "mmdet")


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_each_setting_of_a_run_that_is_resumed(tmp_path, scope):
    file = tmp_path / "data.json"
    right = settings(scope)
    file.write_text(json.dumps(right))
    assert _read_settings(file, scope) == right
    for name in right:
        for wrong in (None, {}, [1], "x", 1.5):
            if wrong is right[name]:
                continue
            if (name, wrong) in (("category_ids", [1]), ("colors", [1])):
                continue
            file.write_text(json.dumps({**right, name: wrong}))
            with pytest.raises(InputError, match="damaged: remove its folder"):
                _read_settings(file, scope)
