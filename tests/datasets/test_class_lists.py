"""Lists of classes of many tools are read by id, and others are refused."""

import json

import pytest

from convnext_dense.datasets.custom.class_lists import class_list, read_class_list
from convnext_dense.datasets.custom.prepare import Options, _is_settings, examine
from convnext_dense.errors import InputError

from ..helpers.custom_data import write_label_maps

THREE = ("background", "road", "car")
HEADING = "Idx\tRatio\tTrain\tVal\tStuff\tName\n"

UNDERSTOOD = {
    "names": "background\nroad\ncar\n",
    "Windows": "\ufeffbackground\r\nroad\r\n\r\ncar\r\n",
    "comments": "# classes\nbackground\n# more\nroad\ncar",
    "Roboflow": "Pixel Value, Class\n0, background\n1, road\n2, car\n",
    "Roboflow in another order": "Pixel Value, Class\n2, car\n0, background\n1, road",
    "labelme": "__ignore__\nbackground\nroad\ncar\n",
    "id and name": "0 background\n1 road\n2 car",
    "id: name": "0: background\n1: road\n2: car",
    "id, tab, name": "0\tbackground\n1\troad\n2\tcar",
    "name, id": "background,0\nroad,1\ncar,2",
    "name id": "road 1\nbackground 0\ncar 2",
    "a table": "name;id\nbackground;0\nroad;1\ncar;2",
    "a table with spaces": "id name\n0 background\n1 road\n2 car",
    "quoted": '"id","name"\n0,"background"\n1,"road"\n2,"car"',
    "void": "255 void\n-1 license plate\n0 background\n1 road\n2 car",
    "a list": '["background", "road", "car"]',
    "by id": '{"2": "car", "0": "background", "1": "road"}',
    "by name": '{"car": 2, "background": 0, "road": 1}',
    "Label Studio": '{"categories": [{"id": 1, "name": "road"}, {"id": 0, "name": '
    '"background"}, {"id": 2, "name": "car"}], "info": {}}',
    "Supervisely": '{"classes": [{"title": "background", "id": 71, "color": "#0"}, '
    '{"title": "road", "id": 70}, {"title": "car", "id": 72}], "tags": []}',
    "Hugging Face": '{"id2label": {"0": "background", "1": "road", "2": "car"}}',
    "Mapillary": '{"labels": [{"name": "background", "color": [1, 2, 3]}, '
    '{"name": "road"}, {"name": "car"}]}',
}


@pytest.mark.parametrize("text", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_lists_of_three_classes(tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert read_class_list(tmp_path / "list.txt") == (THREE, None)


@pytest.mark.parametrize(
    "text",
    [
        "names:\n  0: background\n  1: road\n  2: car\nnc: 3\n",
        "train: images\nnames: [background, road, car]\n",
        "- background\n- road\n- car",
    ],
)
def test_yaml(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert class_list([str(tmp_path / "data.yaml")]) == (THREE, None)


WITH_IDS = {
    "ADE20K": (
        HEADING + "1\t0.1576\t11664\t1172\t1\tbuilding, edifice\n"
        "2\t0.1072\t6046\t612\t1\tsky\n",
        ("building, edifice", "sky"),
        [1, 2],
    ),
    "gaps": ("7 road\n0 sky\n26 car", ("sky", "road", "car"), [0, 7, 26]),
    "255": ("0: sky\n255: road", ("sky", "road"), [0, 255]),
    "synonyms": ("wall\nbuilding, edifice", ("wall", "building, edifice"), None),
    "numbers at the end": ("A 707\nB 320", ("A 707", "B 320"), None),
    "numbers alone": ("5\n7", ("5", "7"), None),
}


@pytest.mark.parametrize("case", WITH_IDS)
def test_ids_and_names_as_they_are(tmp_path, case):
    text, classes, ids = WITH_IDS[case]
    (tmp_path / "list").write_text(text)
    assert read_class_list(tmp_path / "list") == (classes, ids)


def test_labelmes_background_is_the_first_class(tmp_path):
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nperson\nbus\n")
    names = read_class_list(tmp_path / "labels.txt").classes
    assert names == ("_background_", "person", "bus")


def test_names_and_ids_on_the_command_line():
    assert class_list(["0:sky", "255:road"]) == (("sky", "road"), [0, 255])
    assert class_list(["1=sky", "0=road"]) == (("road", "sky"), None)
    assert class_list(["sky", "1:road"]) == (("sky", "1:road"), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name\nroad\ncar", "line 1: 'name' looks like a heading"),
        ("# made by me\n\nClass\nroad", "line 3: 'Class' looks like a heading"),
        ("0 road\n1 car\nsky", "line 3: 'sky' has no id, and other lines have one"),
        ("road,0\ncar", "line 2: 'car' has no id"),
        ("id,name\n0,road\nx,car", "line 3: 'x car' does not fit the heading"),
        ("id,name\n0,road\n1", "line 3: '1' does not fit the heading"),
        ("road,car,sky", "line 1: 'road,car,sky' has several columns"),
        ("road,yes\ncar,no", "line 1: 'road,yes' has several columns"),
        ("item {\n  id: 1\n  name: 'road'\n}", "is not the name of a class"),
        ("<annotation>\n<name>road</name>", "is not the name of a class"),
        ("road\tdrivable\ncar\tno", "is not the name of a class"),
        ("1 road\n1 car", "road and car both have the id 1"),
        ("0 road\n1 road", "road is given twice"),
        ("3 wheeler\n4 wheeler", "wheeler is given twice"),
        ("0 road\n99999999999 car", "car has the id 99999999999"),
        ("__ignore__", "has no classes"),
        ("# label:color_rgb:parts:actions\nroad:1,2,3::\ncar:4,5,6::", "--color-map"),
        ("name,r,g,b\nroad,1,2,3\ncar,4,5,6", "is a colour map"),
        ("0 0 0 road\n1 1 1 car", "is a colour map"),
        ('{"road": [1, 2, 3]}', "a file with colours is given as --color-map"),
        ('{"images": [1]}', "is not a list of classes"),
        ('[{"id": 0}]', "is not a list of classes"),
        ("[[1]]", "is not a list of classes"),
        ('{"0": "a", "x": "b"}', "is not a list of classes"),
        ("[true]", "is not a list of classes"),
        ('{"a": ', "--classes"),
        ("[" * 10**5, "nested too deeply"),
        ("\n".join(f"{i} class {i}" for i in range(300)), "has 300 classes"),
    ],
)
def test_lists_that_are_not_understood(tmp_path, text, says):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        class_list([str(tmp_path / "list.txt")])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names: [a, b", "is not YAML"),
        ("names: !!python/object/apply:os.getcwd []", "is not a list of classes"),
        ("names: 2001-99-99", "is not a list of classes"),
        ("a: &a [x]\nnames: [*a, *a]", "has YAML aliases"),
        ("[" * 10**5, "is nested too deeply"),
        ("x: " + "y" * 2**21, "the longest YAML that is read has 1000000"),
    ],
)
def test_yaml_that_is_no_list_of_classes(tmp_path, text, says):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=f"--classes .*{says}"):
        class_list([str(tmp_path / "data.yaml")])


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match="there is no such file"):
        class_list(["none/classes.txt"])


def test_a_colour_map_given_as_a_class_list_and_its_advice(tmp_path):
    write_label_maps(tmp_path, label_format="colors")
    file = tmp_path / "labelmap.txt"
    text = "# label:color_rgb:parts:actions\nground:0,0,0::\nant:10,200,10::\n"
    text += "Käfer:200,10,10::\nignore:255,255,255::\n"
    file.write_text(text, encoding="utf-8")
    folders = dict(
        train_images=str(tmp_path / "images"), train_labels=str(tmp_path / "labels")
    )
    with pytest.raises(InputError, match="--color-map") as error:
        examine(Options(classes=[str(file)], **folders))
    advised = str(error.value).split("--color-map ")[1]
    by_advice = examine(Options(color_map=advised, **folders))
    by_folder = examine(Options(data=str(tmp_path)))
    for train, _ in (by_advice, by_folder):
        assert train.classes == ("ground", "ant", "Käfer")
        assert not train.problems.stop


def test_ids_reach_training_and_old_settings_are_read(tmp_path):
    from mmengine.config import ConfigDict

    from convnext_dense.datasets.custom.into_config import _load_label_maps
    from convnext_dense.datasets.custom.prepare import _settings

    write_label_maps(tmp_path)
    splits = examine(
        Options(
            train_images=str(tmp_path / "images"),
            train_labels=str(tmp_path / "labels"),
            classes=["2:ant", "0:ground", "1:Käfer", "9:bee"],
        )
    )
    assert not splits[0].problems.stop
    data = _settings(splits)
    assert data["classes"] == ("ground", "Käfer", "ant", "bee")
    assert data["ids"] == [0, 1, 2, 9]
    for split in splits:
        data[split.name] = dict(annotations="a", images="b", labels="c")
    data = json.loads(json.dumps(data))
    assert _is_settings(data, "mmseg")
    assert not _is_settings(dict(data, ids=[0]), "mmseg")
    transforms = [ConfigDict(type="LoadAnnotations", reduce_zero_label=True)]
    _load_label_maps(transforms, data)
    expected = dict(type="LoadLabelMapAnnotations", colors=None, ids=[0, 1, 2, 9])
    assert transforms == [expected]
    del data["ids"]  # as older versions wrote it
    assert _is_settings(data, "mmseg")
    _load_label_maps(transforms, data)
    assert transforms == [dict(type="LoadLabelMapAnnotations", colors=None)]
