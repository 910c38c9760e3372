"""Label maps of every format are read alike, and their problems are found."""

import json
import time

import numpy as np
import PIL.Image
import pytest

from convnext_dense.datasets.custom import label_check, label_maps, summary
from convnext_dense.datasets.custom.label_check import examine
from convnext_dense.datasets.custom.label_maps import read_color_map, read_label_map
from convnext_dense.errors import InputError

from ..helpers.custom_data import (
    COLORS,
    HEIGHT,
    WIDTH,
    color_map,
    label_array,
    photograph,
    save_labels,
    write_label_maps,
)

FORMATS = ["grey", "palette", "three channels", "16 bits", "colors"]


def problems(split):
    """The names that have each problem."""
    return dict(split.problems)


@pytest.mark.parametrize("label_format", FORMATS)
def test_every_format_reads_alike(tmp_path, label_format):
    file = save_labels(label_array(), tmp_path / "a.png", label_format)
    colors = None
    if label_format == "colors":
        colors = read_color_map(color_map(tmp_path / "colors.txt")).colors
    assert (read_label_map(file, colors) == label_array()).all()


def test_reduce_zero_label_is_mmsegs(tmp_path):
    from mmseg.datasets.transforms import LoadAnnotations

    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = save_labels(labels, tmp_path / "a.png")
    theirs = LoadAnnotations(reduce_zero_label=True)(
        dict(seg_map_path=str(file), reduce_zero_label=True, seg_fields=[])
    )["gt_seg_map"]
    ours = read_label_map(file, zero=False)
    same = labels != 255  # mmseg makes it 254, then 255: so does this
    assert (ours[same] == theirs[same]).all()
    assert (ours[~same] == 255).all()


def test_colors_without_a_map_are_refused(tmp_path):
    file = save_labels(label_array(), tmp_path / "a.png", "colors")
    with pytest.raises(label_maps.NotALabelMap, match="--color-map"):
        read_label_map(file)


def test_grey_values_through_a_map(tmp_path):
    """A mask of 0 and 255, where 255 is the object."""
    file = save_labels(np.array([[0, 255], [7, 0]], np.uint8), tmp_path / "a.png")
    colors = [[0, 0, 0, 0], [255, 255, 255, 1]]
    assert read_label_map(file, colors).tolist() == [[0, 1], [-1, 0]]


EXPECTED = (tuple(COLORS), [[*c, i] for i, c in enumerate(COLORS.values())])


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{r} {g} {b} {n}" for n, (r, g, b) in COLORS.items()),
        "# label:color_rgb:parts:actions\n"
        + "\n".join(f"{n}:{r},{g},{b}::" for n, (r, g, b) in COLORS.items()),
        "name,r,g,b\n"
        + "\n".join(f"{n},{r},{g},{b}" for n, (r, g, b) in COLORS.items()),
        json.dumps(COLORS),
        "\ufeff" + json.dumps(COLORS),
    ],
    ids=["CamVid", "CVAT", "csv", "json", "json with a mark of its byte order"],
)
def test_color_map_files(tmp_path, text):
    (tmp_path / "map").write_text(text, encoding="utf-8")
    assert read_color_map(str(tmp_path / "map")) == EXPECTED


def test_colors_of_one_name_and_ignored_ones(tmp_path):
    (tmp_path / "map").write_text("1 1 1 road\n2 2 2 class 2\n3 3 3 road\n4 4 4 Ignore")
    assert read_color_map(str(tmp_path / "map")) == (
        ("road", "class 2"),
        [[1, 1, 1, 0], [2, 2, 2, 1], [3, 3, 3, 0], [4, 4, 4, 255]],
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no colours"),
        ("road\nsky\n", "has no colours"),
        ("1 2 300 road", "300"),
        ("1 2 3 road\n1 2 3 sky", "road and sky both have"),
        ('{"road": "blue"}', "road"),
        ('{"road": [1, 2]}', "give three numbers from 0 to 255"),
        ('{"road": ', "--color-map"),
    ],
)
def test_color_maps_that_are_none(tmp_path, text, says):
    (tmp_path / "map").write_text(text)
    with pytest.raises(InputError, match=says):
        read_color_map(str(tmp_path / "map"))
    with pytest.raises(InputError, match="cannot be read"):
        read_color_map(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x" + "," * 10**6 + "1", "has no colours"),
        ("x" + " " * 10**6 + "1 2", "has no colours"),
        ("x 1 2" + " " * 10**6 + "y", "has no colours"),
        ("1 2 3 " + "x" * 10**5, "cannot be the name of a class: it has 100000 char"),
        ("1 2 3 a\x1b[2J", "cannot be the name of a class: it has the control char"),
        ('{"\\ud800": [1, 2, 3]}', "cannot be the name of a class"),
        ('{"a": [Infinity, 2, 3]}', "cannot be read as"),
        ('{"a":' * 10**5, "nested too deeply"),
        ("\n".join(f"{i} 0 0 c{i}" for i in range(256)), "has 256 classes: label maps"),
        (
            "\n".join(f"{i & 255} {i >> 8 & 255} 0 c" for i in range(10**5)),
            "has more than 4096 colours",
        ),
    ],
)
def test_color_maps_that_would_take_long_or_break_a_page(tmp_path, text, says):
    (tmp_path / "map").write_text(text)
    start = time.process_time()
    with pytest.raises(InputError, match=says):
        read_color_map(str(tmp_path / "map"))
    assert time.process_time() - start < 10  # a bound, not a measurement: 0.05


def test_long_lines_of_a_color_map_are_read(tmp_path):
    (tmp_path / "map").write_text("road" + " " * 10**5 + "1 2 3\nsky: 4,5,6:: 7")
    colors = [[1, 2, 3, 0], [4, 5, 6, 1]]
    assert read_color_map(str(tmp_path / "map")) == (("road", "sky"), colors)


@pytest.mark.parametrize("label_format", FORMATS)
def test_a_healthy_folder_has_nothing_wrong(tmp_path, label_format):
    write_label_maps(tmp_path, label_format=label_format)
    colors = None
    if label_format == "colors":
        colors = read_color_map(color_map(tmp_path / "colors.txt")).colors
    classes = tuple(COLORS) if colors else None
    split = examine(tmp_path / "images", tmp_path / "labels", "train", classes, colors)
    assert problems(split) == {}
    assert split.classes == (classes or ("class 0", "class 1", "class 2"))
    for i, counter in enumerate(split.pixels):
        labels = label_array(i)
        assert counter == {c: (labels == c).sum() for c in range(3)}
        _, sample = split.sample(i)
        assert (sample.gt_sem_seg.data[0].numpy() == labels).all()


def damage_size(root):
    save_labels(label_array()[:-1], root / "labels/Bild 0 ü.png")


def damage_value(root):
    labels = label_array()
    labels[9, 9] = 77
    save_labels(labels, root / "labels/Bild 0 ü.png")


def damage_text(root):
    (root / "labels/Bild 0 ü.png").write_bytes(b"hello")


def damage_image(root):
    file = root / "images/Bild 0 ü.jpg"
    file.write_bytes(file.read_bytes()[:500])


def damage_turn(root):
    photograph(root / "images/Bild 0 ü.jpg", orientation=6)


DAMAGE = {
    "another size": (damage_size, label_check.OTHER_SIZE, 3),
    "a strange value": (damage_value, label_check.NO_SUCH_LABEL, 4),
    "text": (damage_text, label_check.UNREADABLE_LABELS, 3),
    "a truncated image": (damage_image, label_check.UNREADABLE, 3),
    "labelled as stored": (damage_turn, label_check.AS_STORED, 4),
    "no label map": (
        lambda root: (root / "labels/Bild 0 ü.png").unlink(),
        label_check.NO_LABELS,
        3,
    ),
    "no image": (
        lambda root: (root / "images/Bild 0 ü.jpg").unlink(),
        label_check.NO_IMAGE,
        3,
    ),
    "in colours": (
        lambda root: save_labels(label_array(), root / "labels/Bild 0 ü.png", "colors"),
        label_check.UNREADABLE_LABELS,
        3,
    ),
    "all ignored": (
        lambda root: save_labels(
            np.full((HEIGHT, WIDTH), 255, np.uint8), root / "labels/Bild 0 ü.png"
        ),
        label_check.ALL_IGNORED,
        4,
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_and_its_repair(tmp_path, case):
    damage, problem, left = DAMAGE[case]
    write_label_maps(tmp_path)
    damage(tmp_path)
    names = ("ground", "Käfer", "ant")
    split = examine(tmp_path / "images", tmp_path / "labels", "train", names)
    assert set(problems(split)) == {problem}
    assert len(split.files) == left
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    folder = split.fixed(tmp_path / "fixed")
    again = examine(tmp_path / "images", folder, "train", names)
    assert not again.problems.stop
    assert len(again.files) == left
    assert before.items() <= {p: p.read_bytes() for p in tmp_path.rglob("*.*")}.items()
    if case == "labelled as stored":
        turned = np.rot90(label_array(), -1)
        assert (again.sample(0)[1].gt_sem_seg.data[0].numpy() == turned).all()
    if case == "a strange value":
        assert again.sample(0)[1].gt_sem_seg.data[0, 9, 9] == 255


def test_unknown_colors_are_named(tmp_path):
    write_label_maps(tmp_path, label_format="colors")
    (tmp_path / "map").write_text("0 0 0 ground\n255 255 255 ignore\n10 200 10 ant")
    classes, colors = read_color_map(str(tmp_path / "map"))
    split = examine(tmp_path / "images", tmp_path / "labels", "train", classes, colors)
    names = problems(split)[label_check.NO_SUCH_COLOR]
    assert len(names) == 4
    assert names[0].endswith("(200, 10, 10)")


@pytest.mark.parametrize(
    ("values", "problem"),
    [((0, 255), label_check.ONE_CLASS), ((0, 100, 200), label_check.FEW_VALUES)],
)
def test_values_that_are_no_labels(tmp_path, values, problem):
    labels = np.array(values, np.uint8)[label_array() % len(values)]
    photograph(tmp_path / "images/a.jpg")
    save_labels(labels, tmp_path / "labels/a.png")
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    assert problem in problems(split)
    assert split.problems.stop


def test_names_with_an_ending_and_folders_below(tmp_path):
    for i in range(3):
        photograph(tmp_path / f"images/city {i}/a_{i}.JPG")
        save_labels(label_array(), tmp_path / f"labels/city {i}/a_{i}_mask.png")
    photograph(tmp_path / "images/a.jpg")
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    assert problems(split) == {label_check.NO_LABELS: ["a.jpg"]}
    assert split.pairs[2] == ("city 2/a_2.JPG", "city 2/a_2_mask.png")


def save_numbers(numbers, root):
    """Write a label map of 32 bits, integers or floats, in place of the first one."""
    (root / "labels/Bild 0 ü.png").unlink()
    PIL.Image.fromarray(numbers).save(root / "labels/Bild 0 ü.tif")


LARGE = label_array().astype(np.int32)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("names", [("ground", "Käfer", "ant"), None])
@pytest.mark.parametrize(
    "numbers",
    [
        LARGE + 10**9,
        LARGE - 5,
        LARGE - 1,
        np.full_like(LARGE, -(2**31)),
        np.full(LARGE.shape, np.nan, np.float32),
    ],
    ids=["10^9", "-5", "-1", "-2^31", "NaN"],
)
def test_numbers_that_are_no_labels(tmp_path, numbers, names, zero):
    """They are neither counted as classes nor as the last classes."""
    write_label_maps(tmp_path)
    save_numbers(numbers, tmp_path)
    folders = tmp_path / "images", tmp_path / "labels"
    split = examine(*folders, "train", names, zero=zero)
    assert label_check.NO_SUCH_LABEL in problems(split)
    assert len(split.classes) <= 255
    assert len(summary.table([split])) == len(split.classes)
    cleaned = split._label_map(0)
    assert set(np.unique(cleaned)) <= {*range(len(split.classes)), 255}


def test_label_maps_of_very_many_values(tmp_path):
    write_label_maps(tmp_path)
    save_numbers(np.arange(WIDTH * HEIGHT, dtype=np.int32).reshape(48, 64), tmp_path)
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    (name,) = problems(split)[label_check.UNREADABLE_LABELS]
    assert name.endswith("it has 3072 different values: give each class one value")


def test_unknown_colors_stay_unknown_without_a_class_0(tmp_path):
    file = save_labels(np.array([[0, 9], [7, 1]], np.uint8), tmp_path / "a.png")
    colors = [[0, 0, 0, 0], [9, 9, 9, 1]]
    assert read_label_map(file, colors, zero=False).tolist() == [[255, 0], [-1, -1]]


def test_a_photograph_as_a_label_map_in_colours(tmp_path):
    """Thousands of colours are counted, and three are named."""
    noise = photograph(tmp_path / "a.png")
    names = label_maps.unknown_colors(noise, [[0, 0, 0, 0]])
    assert names.endswith(" more")
    assert names.count("(") == 3


def test_nothing_in_common(tmp_path):
    photograph(tmp_path / "images/a.jpg")
    PIL.Image.new("L", (4, 4)).save(photograph(tmp_path / "labels/b.png"))
    with pytest.raises(InputError, match=r"1 images and .* 1 label maps"):
        examine(tmp_path / "images", tmp_path / "labels", "train")
