"""Which split the names of files and folders name."""

import pytest

from convnext_dense.datasets.custom.layouts import find_dataset
from convnext_dense.datasets.custom.split_paths import split_of
from convnext_dense.errors import InputError

from ..helpers.custom_data import coco, photograph, save

NAMES = {
    "train": "train2017 training TRAIN trainSet train_set trainset traindata Training "
    "trainval instances_train2017.json training_2024 images/train my-train.v2 "
    "labels_train imagestrain valminusminival2014 train/_annotations.coco.json",
    "val": "val2017 valid validation Val VALID valset dev instances_val2017.json "
    "minival images/valid train_data/val my.dev validationSet valimages",
    "test": "test test2017 Testing test-dev2017 testset",
    None: "carnival.json foodstuff.json evaluation retrained interval invalid strain "
    "terrain trainer constraint rival testimony latest device developer images "
    "validity arrival approval",
}


@pytest.mark.parametrize("split", NAMES)
def test_words_of_splits(split):
    """They are whole words: parts of other words do not count."""
    names = NAMES[split].split()
    assert {name: split_of(name) for name in names} == dict.fromkeys(names, split)


@pytest.mark.parametrize("name", ["carnival", "foodstuff", "captionless", "test"])
def test_a_single_file_of_any_name(tmp_path, name):
    file = save(coco(tmp_path / "images"), tmp_path / f"{name}.json")
    scope, paths = find_dataset(tmp_path)
    assert scope == "mmdet"
    assert {split: p.annotations for split, p in paths.items()} == {"train": file}


def test_words_within_words_do_not_divide_the_data(tmp_path):
    content = coco(tmp_path / "images")
    for name in ("retrained", "interval"):
        save(content, tmp_path / f"{name}.json")
    photograph(tmp_path / "evaluation/a.jpg")
    with pytest.raises(InputError, match=r"2 files for train: interval.json, retrai"):
        find_dataset(tmp_path, "mmdet")
    train = save(content, tmp_path / "train.json")
    _, paths = find_dataset(tmp_path, "mmdet")
    assert {split: p.annotations for split, p in paths.items()} == {"train": train}
    assert paths["train"].not_read == "interval.json, retrained.json"


def test_test_splits_are_not_trained_on(tmp_path):
    for name in ("a", "test"):
        save(coco(tmp_path / "images"), tmp_path / f"{name}.json")
    _, paths = find_dataset(tmp_path)
    assert paths["train"].annotations == tmp_path / "a.json"
    save({"images": []}, tmp_path / "b.json")
    with pytest.raises(InputError, match=r"2 files for train: a.json, b.json; name"):
        find_dataset(tmp_path)


NAMES_OF_TOOLS = {
    "path of Windows": "D:\\set\\{split}\\IM.jpg",
    "URL": "https://example.org/{split}/im.jpg?size=2",
    "capitals": "IM.JPG",
    "another key": "im.jpg",
}


@pytest.mark.parametrize("name", NAMES_OF_TOOLS)
def test_folders_of_images_that_tools_name_otherwise(tmp_path, name):
    """Both splits have an image of this name, and only one folder is that of each."""
    key = "path" if name == "another key" else "file_name"
    photograph(tmp_path / "more/other.jpg")
    for split in ("train", "val"):
        photograph(tmp_path / split / "images/im.jpg")
        image = {"id": 1, key: NAMES_OF_TOOLS[name].format(split=split)}
        save(dict(images=[image]), tmp_path / f"{split}.json")
    _, paths = find_dataset(tmp_path)
    folders = {split: source.images for split, source in paths.items()}
    assert folders == {s: tmp_path / s / "images" for s in ("train", "val")}
