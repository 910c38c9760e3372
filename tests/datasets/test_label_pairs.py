"""Images and label maps are paired by their names, and never wrongly."""

import unicodedata

import pytest

from convnext_dense.datasets.custom import label_check
from convnext_dense.datasets.custom.label_layouts import label_map_folders
from convnext_dense.datasets.custom.label_pairs import pair, pair_folders, separate
from convnext_dense.datasets.custom.layouts import find_dataset
from convnext_dense.datasets.custom.prepare import Options, examine
from convnext_dense.errors import InputError

from ..helpers.custom_data import label_array, photograph, save_labels

CITY = "aachen/aachen_{:06}_000019_"
TWO = {
    "an ending": ("im{}.jpg", "im{}_mask.png"),
    "an ending after a hyphen": ("im{}.png", "im{}-seg.png"),
    "CamVid": ("0001TP_{:06}.png", "0001TP_{:06}_L.png"),
    "an ending that nobody knows": ("im{}.jpg", "im{}_xyz.png"),
    "CHASE": ("Image_{:02}L.jpg", "Image_{:02}L_1stHO.png"),
    "DRIVE": ("{}_training.tif", "{}_manual1.gif"),
    "words before numbers": ("image_{}.jpg", "mask_{}.png"),
    "short words before numbers": ("img-{:03}.jpg", "lbl-{:03}.png"),
    "words without a sign": ("photo{}.jpg", "gt{}.bmp"),
    "a word that nobody knows": ("street_{}.jpg", "label_{}.png"),
    "DeepGlobe": ("{}_sat.jpg", "{}_mask.png"),
    "ISPRS": ("top_potsdam_2_{}_RGB.tif", "top_potsdam_2_{}_label.tif"),
    "Cityscapes": (CITY + "leftImg8bit.png", CITY + "gtFine_labelTrainIds.png"),
    "both endings": ("im{}.jpg", "im{}.jpg.png"),
    "capitals": ("IM{}.JPG", "im{}.png"),
    "an image with a label word": ("im{}_l.jpg", "im{}_l_mask.png"),
    "Roboflow": ("im{}_jpg.rf.3e1l.jpg", "im{}_jpg.rf.3e1l_mask.png"),
    "brackets": ("photo {}.jpg", "photo {} (mask).png"),
    "folders on one side": ("train/a{}.jpg", "a{}.png"),
    "folders of words": ("images/{}.jpg", "masks/{}.png"),
    "decomposed": (
        unicodedata.normalize("NFC", "fête{}.jpg"),
        unicodedata.normalize("NFD", "fête{}_mask.png"),
    ),
}


@pytest.mark.parametrize("names", TWO.values(), ids=TWO)
def test_names_that_belong_together(names):
    image, label_map = names
    images = [image.format(i) for i in (1, 10, 11)]
    maps = [label_map.format(i) for i in (11, 10, 1)]
    result = pair(images, maps)
    assert result.pairs == dict(zip(images, maps[::-1], strict=True))
    assert result.by_words == sorted(images)
    assert (result.images, result.maps) == ([], [])


def test_endings_kept_and_mixed():
    result = pair(["im0.jpg", "im1.jpg"], ["im0.png", "im1.jpg.png"])
    assert result.pairs == {"im0.jpg": "im0.png", "im1.jpg": "im1.jpg.png"}


@pytest.mark.parametrize(
    ("images", "maps"),
    [
        (["im1.jpg"], ["im10.png"]),
        (["im1.jpg"], ["im1_2.png"]),
        (["cam0_1.jpg", "cam0_2.jpg"], ["cam1_1.png", "cam1_2.png"]),
        (["front_1.jpg", "front_2.jpg"], ["rear_1.png", "rear_2.png"]),
        (["cam0/1.jpg", "cam0/2.jpg"], ["cam1/1.png", "cam1/2.png"]),
        (["a.jpg"], ["b.png"]),
        (["0.jpg", "1.jpg"], ["rear0.png", "rear1.png"]),
        (["image.jpg"], ["mask.png"]),
    ],
)
def test_names_that_do_not_belong_together(images, maps):
    assert pair(images, maps).pairs == {}


@pytest.mark.parametrize(
    ("images", "maps", "says"),
    [
        (["a.jpg"], ["a.png", "a.tif"], "a.png, a.tif are label maps that fit one"),
        (["a.jpg"], ["a.png", "a_mask.png"], "a.png, a_mask.png are label maps"),
        (["a.jpg"], ["a_mask.png", "a_label.png"], "fit one image, a.jpg"),
        (["a.jpg", "b.jpg"], ["a_x.png", "b_x.png", "a_y.png", "b_y.png"], "a_x.png"),
        (["a.jpg", "a.tif"], ["a.png"], "a.jpg, a.tif are images of one name"),
        (["image_1.jpg", "photo_1.jpg"], ["mask_1.png"], "mask_1.png fits all"),
    ],
)
def test_ambiguous_names(images, maps, says):
    with pytest.raises(InputError, match=says):
        pair(images, maps)


def test_versions_of_cityscapes():
    image = "aachen_000000_000019_leftImg8bit.png"
    words = ("color", "instanceIds", "labelIds", "labelTrainIds")
    maps = [f"aachen_000000_000019_gtFine_{word}.png" for word in words]
    (used, others) = pair([image], maps).versions[0]
    assert used == maps[3]
    assert sorted(others) == sorted(words[:3])
    assert pair([image], maps[:3]).pairs == {image: maps[2]}
    assert pair([image], maps, colored=True).pairs == {image: maps[0]}
    assert pair([image], maps[1:2]).pairs == {}


def test_pictures_beside_label_maps():
    result = pair(["a.jpg", "b.jpg"], ["a.png", "a_color.png", "b.png", "b_vis.png"])
    assert result.pairs == {"a.jpg": "a.png", "b.jpg": "b.png"}
    assert result.versions == [("a.png", ["color"]), ("b.png", ["vis"])]


@pytest.mark.parametrize(
    ("images", "maps"),
    [
        (["im0.jpg"], ["im0_mask.png"]),
        (["im0.png"], ["im0_mask.png"]),
        (["im0.jpg"], ["im0.png"]),
        (["im0.jpg"], ["im0_mask.jpg"]),
        (["image_1.jpg"], ["mask_1.png"]),
        (["01_mask.jpg"], ["01_mask_label.png"]),
        (["face_mask_1.jpg", "face_mask_2.jpg"], ["face_mask_1.png"]),
        (["a.jpg"], ["a_mask.png", "a_mask_color.png"]),
        (["a.png"], ["a_L.png"]),
        (["a.jpg"], ["a.npy"]),
        (["a.jpg", "a_l.jpg"], ["a_mask.png", "a_l_mask.png"]),
        (["images/1.png"], ["masks/1.png"]),
        (["t_1_leftImg8bit.png"], ["t_1_gtFine_labelIds.png"]),
        (["a.png", "b.png"], []),
    ],
)
def test_photographs_and_label_maps_of_one_folder(images, maps):
    assert separate([*maps, *images]) == (images, maps)


def write(root, image="im{}.jpg", label_map="im{}_mask.png", number=4):
    """Write images and label maps with names of these forms."""
    for i in range(number):
        photograph(root / image.format(i), i)
        save_labels(label_array(i), root / label_map.format(i))


@pytest.mark.parametrize("image", ["im{}.jpg", "im{}.png"])
def test_roboflows_folders_are_found_with_their_classes(tmp_path, image):
    for split in ("train", "valid", "test"):
        write(tmp_path / split, image)
        text = "Pixel Value, Class\r\n0, background\r\n1, road\r\n2, car\r\n"
        (tmp_path / split / "_classes.csv").write_text(text)
    train, val = examine(Options(data=str(tmp_path)))
    assert train.classes == val.classes == ("background", "road", "car")
    assert (train.folder.name, val.folder.name) == ("train", "valid")
    assert train.pairs[0] == (image.format(0), "im0_mask.png")
    assert not train.problems.stop
    (tmp_path / "valid/_classes.csv").write_text("Pixel Value, Class\n0, a\n1, b")
    with pytest.raises(InputError, match="two lists of classes, train/"):
        examine(Options(data=str(tmp_path)))


def test_a_fixed_copy_of_one_folder_can_be_trained_on(tmp_path):
    """The label maps that stay beside the photographs are not used as images."""
    write(tmp_path / "both", "im{}.png")
    split = label_check.examine(tmp_path / "both", tmp_path / "both", "train")
    folder = split.fixed(tmp_path / "fixed")
    again = label_check.examine(tmp_path / "both", folder, "train")
    assert again.files == [f"im{i}.png" for i in range(4)]
    assert dict(again.problems)[label_check.NOT_PHOTOGRAPHS][0] == "im0_mask.png"
    assert again.pixels == split.pixels


def test_fixed_copies_of_images_of_one_name(tmp_path):
    photograph(tmp_path / "images/a.jpg", 0)
    photograph(tmp_path / "images/a.tif", 1)
    for i, name in enumerate(("a.jpg.png", "a.tif.png")):
        save_labels(label_array(i), tmp_path / "labels" / name)
    folders = tmp_path / "images", tmp_path / "labels"
    split = label_check.examine(*folders, "train")
    again = label_check.examine(folders[0], split.fixed(tmp_path / "fixed"), "train")
    assert again.pixels == split.pixels
    assert again.pixels[0] != again.pixels[1]


def test_a_photograph_is_never_its_own_label_map(tmp_path):
    for i, mode in enumerate(("L", "RGB")):
        photograph(tmp_path / f"images/im{i}.png", i, mode)
        photograph(tmp_path / f"labels/im{i}.png", i, mode)
    save_labels(label_array(), photograph(tmp_path / "images/im2.png"))
    save_labels(label_array(), tmp_path / "labels/im2.png")
    split = label_check.examine(tmp_path / "images", tmp_path / "labels", "train")
    assert dict(split.problems)[label_check.ITS_OWN_LABELS] == [
        *("im0.png", "im1.png", "im2.png")
    ]
    assert split.problems.stop


def test_label_maps_in_a_folder_among_the_images(tmp_path):
    write(tmp_path, "im{}.png", "masks/im{}.png")
    split = label_check.examine(tmp_path, tmp_path / "masks", "train")
    assert len(split.pairs) == 4
    assert not dict(split.problems)


@pytest.mark.parametrize(
    ("image", "label_map", "says"),
    [
        ("im{}.jpg", "other{}.png", "The name most like im0.jpg is other0.png"),
        ("im{}.jpg", "im{}.txt", "4 .txt files; .txt files are perhaps YOLO"),
        ("im{}.jpg", "im{}.npz", "4 .npz files"),
    ],
)
def test_folders_without_pairs(tmp_path, image, label_map, says):
    write(tmp_path / "images", image, "unused{}.txt", 0)
    for i in range(4):
        photograph(tmp_path / "images" / image.format(i), i)
        file = tmp_path / "labels" / label_map.format(i)
        save_labels(label_array(), file.with_suffix(".png")).rename(file)
    with pytest.raises(InputError, match=says):
        label_check.examine(tmp_path / "images", tmp_path / "labels", "train")


def test_half_without_a_partner(tmp_path):
    write(tmp_path, "images/im{}.jpg", "labels/im{}.png")
    photograph(tmp_path / "images/extra.jpg")
    folders = tmp_path / "images", tmp_path / "labels"
    assert not label_check.examine(*folders, "train").problems.stop
    for i in (1, 2):
        (tmp_path / f"labels/im{i}.png").rename(tmp_path / f"labels/lm{i}x.png")
    with pytest.raises(InputError, match="3 of 5 images have no label map, such as ex"):
        label_check.examine(*folders, "train")
    (tmp_path / "images/extra.jpg").unlink()
    with pytest.raises(InputError, match=r"im1\.jpg; the name most like it is lm1x"):
        label_check.examine(*folders, "train")


def test_label_maps_that_count_from_another_number(tmp_path):
    """Paired by their numbers, every label map would be of another image."""
    for i in range(4):
        photograph(tmp_path / f"images/img_{i}.jpg", i)
        save_labels(label_array(i), tmp_path / f"labels/mask_{i + 1}.png")
    says = "img_0.jpg has no label map, and mask_4.png no image"
    with pytest.raises(InputError, match=says):
        pair_folders(tmp_path / "images", tmp_path / "labels", "train")
    (tmp_path / "images/img_0.jpg").rename(tmp_path / "images/img_4.jpg")
    pairing, _ = pair_folders(tmp_path / "images", tmp_path / "labels", "train")
    assert len(pairing.pairs) == 4


def test_a_folder_of_label_maps_for_both_splits(tmp_path):
    write(tmp_path, "images/im{}.jpg", "labels/im{}.png")
    for i in (1, 2, 3):
        (tmp_path / f"images/im{i}.jpg").unlink()
    folders = tmp_path / "images", tmp_path / "labels"
    split = label_check.examine(*folders, "train")
    assert len(dict(split.problems)[label_check.NO_IMAGE]) == 3


def test_a_jpeg_is_no_label_map(tmp_path):
    write(tmp_path, "images/im{}.jpg", "labels/im{}.jpg")
    split = label_check.examine(tmp_path / "images", tmp_path / "labels", "train")
    names = dict(split.problems)[label_check.UNREADABLE_LABELS]
    assert len(names) == 4
    assert names[0].startswith("im0.jpg: it is a JPEG, which changes values")
    assert len(split.problems) == 1


def split_of(name):
    """The split of a path, as layouts finds it."""
    return next((s for s in ("train", "val") if s in name), None)


def test_all_cities_of_a_split_are_found(tmp_path):
    for split in ("train", "val", "test"):
        for city in ("aachen", "bonn"):
            write(
                tmp_path,
                f"leftImg8bit/{split}/{city}/{city}_{{}}_leftImg8bit.png",
                f"gtFine/{split}/{city}/{city}_{{}}_gtFine_labelIds.png",
                1,
            )
    folders = label_map_folders(tmp_path, split_of)
    gt, images = tmp_path / "gtFine", tmp_path / "leftImg8bit"
    assert folders == {s: (gt / s, images / s) for s in ("train", "val")}


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/train", "labels/train"),
        ("train/Images", "train/Masks"),
        ("train_images", "train_masks"),
        ("train/images_png", "train/masks_png"),
        ("training/image_2", "training/label_2"),
        ("img_dir/train", "ann_dir/train"),
    ],
)
def test_names_of_folders(tmp_path, images, labels):
    """The last one is mmseg's own."""
    write(tmp_path, f"{images}/{{}}.png", f"{labels}/{{}}.png", 2)
    folders = label_map_folders(tmp_path, split_of)
    assert folders == {"train": (tmp_path / labels, tmp_path / images)}


def test_folders_of_one_split_are_read_as_one(tmp_path):
    """Supervisely's folders: ds0/img and ds0/masks_machine."""
    for name in ("ds0", "ds1"):
        write(tmp_path, f"{name}/img/{{}}.png", f"{name}/masks_machine/{{}}.png", 2)
    _, paths = find_dataset(tmp_path, "mmseg")
    assert paths["train"].images == paths["train"].annotations == tmp_path
    train, val = examine(Options(data=str(tmp_path)))
    pairs = sorted(train.pairs + val.pairs)
    assert len(pairs) == 4
    assert pairs[2] == ("ds1/img/0.png", "ds1/masks_machine/0.png")


def test_folders_of_a_split_that_cannot_be_read_as_one(tmp_path):
    for name in ("a_train", "b_train", "c/d_val"):
        write(tmp_path, f"{name}/images/{{}}.png", f"{name}/labels/{{}}.png", 1)
    with pytest.raises(InputError, match="train has images in 2 folders"):
        label_map_folders(tmp_path, split_of)
