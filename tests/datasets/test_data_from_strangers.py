"""More data as tools write it: names that YAML takes for values, boxes without a size.

Each case is data that was read wrongly, in silence or with a message that did not help.
"""

import copy
import json
import unicodedata

import pytest

from convnext_dense.datasets.custom.class_lists import read_class_list
from convnext_dense.datasets.custom.coco_check import ALIKE, SAME_CLASS
from convnext_dense.datasets.custom.coco_check import examine as examine_coco
from convnext_dense.datasets.custom.coco_objects import (
    MASK_BOX,
    NO_BOX,
    NO_SUCH_CLASS,
    NOT_TRAINED,
)
from convnext_dense.datasets.custom.formats.yolo_layouts import from_yaml
from convnext_dense.datasets.custom.image_names import ImageNames
from convnext_dense.datasets.custom.layouts import find_dataset
from convnext_dense.errors import InputError
from convnext_dense.utils.coco_json import read_coco

from ..helpers.custom_data import coco, photograph, write_label_maps
from ..helpers.formats import text, write_yolo


def problems_of(split):
    return dict(split.problems)


@pytest.fixture
def plain(tmp_path):
    """A folder of images, and the content of a COCO file without crowd regions."""
    content = copy.deepcopy(coco(tmp_path / "images"))
    content["annotations"] = [a for a in content["annotations"] if not a["iscrowd"]]
    return tmp_path / "images", content


@pytest.mark.parametrize("names", ["[on, 007]", "{0: on, 1: 007}"])
def test_names_that_yaml_takes_for_other_values_stay(tmp_path, names):
    write_yolo(tmp_path / "images/train", tmp_path / "labels/train", ("a", "b"))
    file = tmp_path / "data.yaml"
    text(file, f"train: images/train\nnc: 2\nnames: {names}\n")
    categories = from_yaml(file)["train"].read().content["categories"]
    assert [category["name"] for category in categories] == ["on", "007"]
    assert read_class_list(file).classes == ("on", "007")


def test_composed_and_decomposed_class_names_are_one_class(plain):
    folder, content = plain
    first = content["categories"][0]
    first["name"] = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    name = unicodedata.normalize("NFD", first["name"])
    content["categories"].append(dict(id=99, name=name))
    content["annotations"][0]["category_id"] = 99
    split = examine_coco(content, folder, "train")
    assert SAME_CLASS in problems_of(split)
    assert split.classes.count(first["name"]) == 1
    assert name not in split.classes


def test_class_names_that_differ_in_capitals_are_named(plain):
    folder, content = plain
    name = content["categories"][0]["name"]
    trained = examine_coco(content, folder, "train")
    assert ALIKE not in problems_of(trained)
    content["categories"][0]["name"] = name.upper()
    problems = problems_of(examine_coco(content, folder, "val", trained.categories))
    assert problems[ALIKE] == [f"{name} and {name.upper()}"]
    assert NOT_TRAINED in problems


def test_a_box_without_a_size_is_made_from_the_mask(plain):
    folder, content = plain
    masked = [a for a in content["annotations"] if a.get("segmentation")]
    number = sum(examine_coco(content, folder, "train").objects[0].values())
    masked[0]["bbox"] = [0, 0, 0, 0]
    split = examine_coco(content, folder, "train")
    assert len(problems_of(split)[MASK_BOX]) == 1
    assert not split.problems.stop
    assert sum(split.objects[0].values()) == number


def test_a_box_that_cannot_be_read_is_shown(plain):
    folder, content = plain
    content["annotations"][0]["bbox"] = {"x": 1, "y": 2, "width": 3, "height": 4}
    (name,) = problems_of(examine_coco(content, folder, "train"))[NO_BOX]
    assert "'x': 1" in name


def test_ids_of_classes_that_count_from_0_in_objects_are_explained(plain):
    folder, content = plain
    content["annotations"][0]["category_id"] = 0
    assert NO_SUCH_CLASS in problems_of(examine_coco(content, folder, "train"))
    assert "count from 0" in NO_SUCH_CLASS.advice()


def test_lists_that_are_objects_are_called_so(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(dict(images={"1": {}}, annotations=[], categories=[])))
    with pytest.raises(InputError, match="its images are a dict, not a list"):
        read_coco(file)


def test_an_address_with_one_slash_is_of_another_machine(tmp_path):
    photograph(tmp_path / "a b.jpg")
    names = ImageNames(tmp_path)
    assert names.find("file:/C:/Users/x/a%20b.jpg").file == "a b.jpg"
    assert names.find("x/a b.jpg").file is None


def test_label_maps_beside_a_json_file_are_found(tmp_path):
    write_label_maps(tmp_path)
    text(tmp_path / "meta.json", '{"road": 1}')
    assert find_dataset(tmp_path)[0] == "mmseg"
