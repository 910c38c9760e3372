"""Label maps of every format are read alike, and their problems are found."""

import io
import json
import re
import time

import numpy as np
import PIL.Image
import pytest

from convnext_dense.datasets.custom import label_check, label_maps, summary
from convnext_dense.datasets.custom.class_lists import class_list
from convnext_dense.datasets.custom.label_check import examine
from convnext_dense.datasets.custom.label_files import NotALabelMap
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
    with pytest.raises(NotALabelMap, match="--color-map"):
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
    [
        ((0, 255), label_check.ONE_CLASS),
        ((0, 100, 200), label_check.FEW_VALUES),
        ((0, 128, 255), label_check.FEW_VALUES),
    ],
)
def test_values_that_are_no_labels_until_they_have_names(tmp_path, values, problem):
    """The advice is a list of classes, which makes all values classes."""
    labels = np.array(values, np.uint8)[label_array() % len(values)]
    photograph(tmp_path / "images/a.jpg")
    save_labels(labels, tmp_path / "labels/a.png")
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    (advice,) = [p.remedy for p in problems(split) if p.what == problem.what]
    assert split.problems.stop
    names = class_list(re.findall(r"\d+:\w+", advice))
    assert names.ids == list(values)
    folders = tmp_path / "images", tmp_path / "labels"
    split = examine(*folders, "train", names.classes, ids=names.ids)
    assert not split.problems.stop
    assert (split._label_map(0) == label_array() % len(values)).all()


def test_names_with_an_ending_and_folders_below(tmp_path):
    for i in range(3):
        photograph(tmp_path / f"images/city {i}/a_{i}.JPG")
        save_labels(label_array(), tmp_path / f"labels/city {i}/a_{i}_mask.png")
    photograph(tmp_path / "images/a.jpg")
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    assert set(problems(split)) == {label_check.NO_LABELS, label_check.BY_WORDS}
    assert problems(split)[label_check.NO_LABELS] == ["a.jpg"]
    assert split.pairs[2] == ("city 2/a_2.JPG", "city 2/a_2_mask.png")


def save_numbers(numbers, root):
    """Write a label map of 32 bits, integers or floats, in place of the first one."""
    (root / "labels/Bild 0 ü.png").unlink()
    PIL.Image.fromarray(numbers).save(root / "labels/Bild 0 ü.tif")


LARGE = (label_array() % 255).astype(np.int32)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("names", [("ground", "Käfer", "ant"), None])
@pytest.mark.parametrize("shift", [10**9, -5, -1, -(2**31)])
def test_numbers_that_are_no_labels(tmp_path, shift, names, zero):
    """Large ones are errors, negative ones are ignored; none becomes a class."""
    write_label_maps(tmp_path)
    numbers = LARGE + shift if shift > -(2**31) else np.full_like(LARGE, shift)
    save_numbers(numbers, tmp_path)
    folders = tmp_path / "images", tmp_path / "labels"
    split = examine(*folders, "train", names, zero=zero)
    assert (label_check.NO_SUCH_LABEL in problems(split)) == (numbers.max() > 255)
    negative = int((numbers < 0).sum())
    assert problems(split).get(label_check.MISSING_VALUES, []) == (
        [f"Bild 0 ü.tif: {negative} pixels"] if negative else []
    )
    assert len(split.classes) <= 255
    assert len(summary.table([split])) == len(split.classes)
    cleaned = split._label_map(0)
    assert set(np.unique(cleaned)) <= {*range(len(split.classes)), 255}
    assert (cleaned[numbers < 0] == 255).all()


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
    with pytest.raises(InputError, match=r"1 images .* 1 label maps \(b.png\)"):
        examine(tmp_path / "images", tmp_path / "labels", "train")


def split_of(root, name, labels):
    """Read a split of one image and its label map, below ``root``/``name``."""
    photograph(root / name / "images/a.jpg", len(name))
    save_labels(labels, root / name / "labels/a.png")
    return label_check.read(root / name / "images", root / name / "labels", name)


def test_classes_are_counted_over_both_splits(tmp_path):
    train = split_of(tmp_path, "train", label_array() % 2)
    val = split_of(tmp_path, "val", label_array() % 255 * 3)
    label_check.check([train, val], None)
    assert train.classes == val.classes == tuple(f"class {i}" for i in range(7))
    assert problems(train) == {
        label_check.IN_VAL_ONLY: ["class 3", "class 6"],
        label_check.UNUSED: ["class 2", "class 4", "class 5"],
    }
    assert problems(val)[label_check.IN_TRAIN_ONLY] == ["class 1"]
    assert not val.problems.stop


@pytest.mark.parametrize("labels", [label_array(), label_array() + (label_array() < 3)])
def test_labels_that_lack_a_zero_label_and_its_advice(tmp_path, labels):
    """Labels 0 to N or 1 to N, and N names."""
    names = ("Käfer", "ant") if labels.min() == 0 else ("ground", "Käfer", "ant")
    photograph(tmp_path / "images/a.jpg")
    save_labels(labels, tmp_path / "labels/a.png")
    folders = tmp_path / "images", tmp_path / "labels"
    split = examine(*folders, "train", names)
    (problem,) = [p for p in problems(split) if p.level == "error"]
    assert problem == label_check.ONE_MORE_LABEL
    assert "--reduce-zero-label" in problem.remedy
    split = examine(*folders, "train", names, zero=False)
    assert problems(split) == {}
    assert split.pixels[0].keys() == set(range(len(names)))


def test_ids_from_1_and_a_zero_label(tmp_path):
    """ADE20K has 150 names with ids from 1, and labels from 0, which is no class."""
    photograph(tmp_path / "images/a.jpg")
    save_labels(label_array(), tmp_path / "labels/a.png")
    folders = tmp_path / "images", tmp_path / "labels"
    names = ("Käfer", "ant")
    split = examine(*folders, "train", names, ids=[1, 2])
    assert problems(split)[label_check.NO_ZERO] == ["a.png: 0"]
    split = examine(*folders, "train", names, ids=[1, 2], zero=False)
    assert problems(split) == {}
    expected = np.array([255, 0, 1])[label_array() % 255]
    expected[label_array() == 255] = 255
    assert (split._label_map(0) == expected).all()


def soften(labels, quality=None):
    """Grey values 0 and 255 with soft edges; with a quality, after a JPEG."""
    image = PIL.Image.fromarray((labels == 1).astype(np.uint8) * 255)
    if quality:
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality)
        return np.asarray(PIL.Image.open(content))
    return np.asarray(image.resize((200, 150), PIL.Image.BICUBIC).resize(image.size, 2))


@pytest.mark.parametrize("quality", [None, 50, 95])
@pytest.mark.parametrize("scale", [1, 1 / 64])
def test_smoothed_label_maps(tmp_path, quality, scale):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = ((y - 24) ** 2 + (x - 30) ** 2 < 300).astype(np.uint8)
    labels = np.rint(soften(disc, quality) * scale).astype(np.uint8)
    photograph(tmp_path / "images/a.jpg")
    save_labels(labels, tmp_path / "labels/a.png")
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    smoothed = label_check.SMOOTHED in problems(split)
    # Four values may as well be classes.
    assert smoothed == (scale == 1)


def test_label_maps_of_thin_objects_are_not_smoothed(tmp_path):
    """Lines of one pixel, and values with gaps: both are found in true label maps."""
    labels = label_array().astype(np.uint8)
    for i in range(12):
        labels[3 * i + 5] = 10 * i + 3
    photograph(tmp_path / "images/a.jpg")
    save_labels(labels, tmp_path / "labels/a.png")
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    assert label_check.SMOOTHED not in problems(split)


def test_noise_is_not_smoothed(tmp_path):
    """Few values have most pixels in smoothed label maps."""
    labels = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH)).astype(np.uint8)
    photograph(tmp_path / "images/a.jpg")
    save_labels(labels, tmp_path / "labels/a.png")
    split = examine(tmp_path / "images", tmp_path / "labels", "train")
    assert problems(split) == {}


def test_values_that_a_class_list_has_are_not_smoothed(tmp_path):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    labels = soften(((y - 24) ** 2 + (x - 30) ** 2 < 300).astype(np.uint8)) // 2
    photograph(tmp_path / "images/a.jpg")
    save_labels(labels, tmp_path / "labels/a.png")
    folders = tmp_path / "images", tmp_path / "labels"
    for names in (128, 127):
        classes = tuple(map(str, range(names)))
        split = examine(*folders, "train", classes)
        assert label_check.SMOOTHED not in problems(split)
    assert label_check.ONE_MORE_LABEL in problems(split)
    assert label_check.SMOOTHED in problems(examine(*folders, "train", classes[:60]))
