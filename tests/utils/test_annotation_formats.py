"""Files of other tools, given by mistake: named, with what to do instead."""

import gzip
import json
import time

import pytest

from convnext_dense.datasets.custom.prepare import Options, examine
from convnext_dense.errors import InputError
from convnext_dense.utils import annotation_formats
from convnext_dense.utils.coco_json import read_coco

from ..helpers.custom_data import coco, photograph, save
from ..helpers.formats import labelme, text, voc, voc_object, yolo_line

COCO = dict(images=[dict(id=1, file_name="a.jpg")], categories=[dict(id=1, name="bee")])
REGION = dict(shape_attributes=dict(name="rect"), region_attributes={})
VIA_FILE = dict(filename="a.jpg", size=9, regions=[REGION], file_attributes={})

# What the tools write, what they are called, and the way on.
JSON = {
    "panoptic": (
        dict(COCO, annotations=[dict(image_id=1, file_name="a", segments_info=[])]),
        "a COCO panoptic file: give the instances file",
    ),
    "captions": (
        dict(images=COCO["images"], annotations=[dict(image_id=1, caption="a bee")]),
        "a COCO captions file",
    ),
    "keypoints": (
        dict(COCO, annotations=[dict(image_id=1, category_id=1, keypoints=[1, 2, 2])]),
        "a file of keypoints without boxes",
    ),
    "VQA": (dict(questions=[dict(question="which?")]), "a file of questions"),
    "results": (
        [dict(image_id=1, category_id=1, bbox=[1, 2, 3, 4], score=0.5)],
        "a COCO results file, a list of predictions: give the file of annotations",
    ),
    "labelme": (labelme("a.jpg"), "a labelme file of one image: --data {folder} reads"),
    "VIA 1": ({"a.jpg9": VIA_FILE}, "a VIA file of annotations: in VIA, choose"),
    "VIA 2": (
        dict(_via_settings={}, _via_img_metadata={}, _via_attributes={}),
        "a VIA 2 project: in VIA, choose Annotation > Export Annotations (COCO format)",
    ),
    "VIA 3": (
        dict(project={}, config={}, attribute={}, file={}, metadata={}, view={}),
        "a VIA 3 project",
    ),
    "Datumaro": (
        dict(info={}, categories=dict(label={}), items=[dict(id="a", annotations=[])]),
        "a Datumaro file: in CVAT, export the task again as 'COCO 1.0'",
    ),
    "Label Studio": (
        [dict(id=1, data=dict(image="a.jpg"), annotations=[], predictions=[])],
        "a Label Studio export in its own JSON",
    ),
    "Label Studio's JSON-MIN": (
        [dict(image="a.jpg", id=1, label=[], annotator=1, annotation_id=1)],
        "a Label Studio export in JSON-MIN: in Label Studio, export",
    ),
    "Supervisely's classes": (
        dict(classes=[], tags=[], projectType="images"),
        "Supervisely's meta.json",
    ),
    "Supervisely": (
        dict(description="", tags=[], size=dict(height=1, width=1), objects=[]),
        "a Supervisely annotation of one image: in Supervisely, run the app Export",
    ),
    "VoTT's asset": (dict(asset={}, regions=[], version="2.1.0"), "a VoTT file"),
    "VoTT's export": (
        dict(name="p", assets={}, tags=[]),
        "a VoTT file: in VoTT, export",
    ),
    "FiftyOne": (dict(samples=[dict(filepath="a.jpg")]), "a FiftyOne data set"),
    "CreateML": (
        [dict(image="a.jpg", annotations=[dict(label="a", coordinates={})])],
        "a CreateML file: in Roboflow, export",
    ),
    "Labelbox": ([dict(data_row={}, projects={})], "a Labelbox export"),
    "V7": (dict(version="2.0", item={}, annotations=[]), "a V7 Darwin file"),
    "Cityscapes": (
        dict(imgHeight=1, imgWidth=1, objects=[]),
        "a Cityscapes file of polygons: give the label maps",
    ),
    "BDD100K": ([dict(name="a.jpg", labels=[])], "a BDD100K file"),
    "GeoJSON": (dict(type="FeatureCollection", features=[]), "a GeoJSON file"),
}

POLYGON = "<polygon><pt><x>1</x><y>1</y></pt></polygon>"
CVAT = "<annotations><version>1.1</version><meta/>{}</annotations>"
TEXT = {
    "a.xml": (voc("a.jpg"), "a Pascal VOC file of one image: --data {folder} reads it"),
    "vid.xml": (
        voc("a", voc_object(more="<trackid>0</trackid>")),
        "an ImageNet VID annotation",
    ),
    "labelme web.xml": (
        f"<annotation><object>{POLYGON}</object></annotation>",
        "an annotation of LabelMe's web tool: import it in CVAT as 'LabelMe 3.0'",
    ),
    "images.xml": (
        CVAT.format("<image name='a'/>"),
        "a CVAT file (CVAT for images): in CVAT, export the task again as 'COCO 1.0'",
    ),
    "video.xml": (CVAT.format("<track id='0'/>"), "a CVAT file (CVAT for video)"),
    "none.xml": (CVAT.format(""), "a CVAT file without images"),
    "dlib.xml": ("<dataset><images/></dataset>", "a dlib (imglab) file"),
    "via.csv": (
        "filename,file_size,file_attributes,region_count,region_id,"
        'region_shape_attributes,region_attributes\na.jpg,9,"{}",0,0,"{}","{}"\n',
        "a VIA table of annotations",
    ),
    "_annotations.csv": (
        "filename,width,height,class,xmin,ymin,xmax,ymax\n",
        "a table of boxes (TensorFlow's CSV)",
    ),
    "oid.csv": (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n",
        "an Open Images table",
    ),
    "other.csv": ("a,b\n", "a table: convert it to a COCO file"),
    "data.yaml": (
        "train: images\nnames: [bee]\n",
        "a description of YOLO data: --data {folder}/data.yaml reads it",
    ),
    "yolo.txt": (
        yolo_line(0, (4, 6, 30, 20)),
        "a YOLO label file of one image: --data {folder} reads it",
    ),
    "dota.txt": (
        "imagesource:GoogleEarth\ngsd:0.1\n1 1 9 1 9 9 1 9 plane 0\n",
        "a DOTA file of oriented boxes",
    ),
    "kitti.txt": ("Car 0.00 0 -1.58 587 173 614 200 1 1 3 -0.6 1 46 -1\n", "a KITTI"),
    "mot.txt": ("1,1,912,484,97,109,0,7,1\n", "a MOT table"),
    "train.txt": ("images/a.jpg\nimages/b.jpg\n", "a list of images: give the"),
    "a.tfrecord": ("x", "a TFRecord file: in Roboflow, export"),
    "a.tfrecord-00000-of-00002": ("x", "a TFRecord file"),
    "a.parquet": ("x", "a Parquet table"),
    "a.zip": ("x", "an archive: unpack it"),
    "a.mat": ("x", "a MATLAB file"),
    "a.vott": ("x", "a VoTT project"),
    "a.jsonl": ('{"data_row": {}, "projects": {}}\n', "a Labelbox export"),
    "b.ndjson": ('{"a": 1}\n{"a": 2}\n', "a file of JSON lines"),
}


def says(folder, expected):
    return expected.replace("{folder}", str(folder))


@pytest.mark.parametrize("name", JSON)
def test_json_files_of_other_formats(tmp_path, name):
    """Given as a COCO file, and in a folder given as --data."""
    content, expected = JSON[name]
    file = save(content, tmp_path / "a.json")
    with pytest.raises(InputError) as error:
        read_coco(file)
    assert f"{file} is {says(tmp_path, expected)}" in str(error.value)
    if name != "labelme":  # --data reads it
        (tmp_path / "images").mkdir()
        with pytest.raises(InputError) as error:
            examine(Options(data=str(tmp_path)), "mmdet")
        assert f"which is {says(tmp_path, expected)}" in str(error.value)
    with pytest.raises(InputError) as error:
        examine(Options(data=str(file)))
    assert f"{file} is {says(tmp_path, expected)}" in str(error.value)


@pytest.mark.parametrize("name", TEXT)
def test_other_files(tmp_path, name):
    content, expected = TEXT[name]
    file = text(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        read_coco(file)
    assert f"{file} is {says(tmp_path, expected)}" in str(error.value)


def test_folders_given_as_a_file(tmp_path):
    """The advice names the folder of the data set, and following it works."""
    text(tmp_path / "Annotations/a.xml", voc("a.jpg", voc_object()))
    for path in (tmp_path / "Annotations/a.xml", tmp_path / "Annotations"):
        with pytest.raises(InputError, match="a Pascal VOC file of one image") as error:
            read_coco(path)
        assert f"--data {tmp_path} reads it" in str(error.value)
    (tmp_path / "Annotations").rename(tmp_path / "val")
    (tmp_path / "other").mkdir()
    photograph(tmp_path / "val/a.jpg")
    with pytest.raises(InputError, match="put the training data into a folder train"):
        examine(Options(data=str(tmp_path), boxes_only=True))
    (tmp_path / "val").rename(tmp_path / "train")  # what it says
    with pytest.raises(InputError, match="has one image: name a validation split"):
        examine(Options(data=str(tmp_path)))
    text(tmp_path / "project/meta.json", json.dumps(JSON["Supervisely's classes"][0]))
    with pytest.raises(InputError, match=r"project has meta\.json, which is Superv"):
        read_coco(tmp_path / "project")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty is a folder: name a file"):
        read_coco(tmp_path / "empty")


def test_folders_without_data(tmp_path):
    """Supervisely's project, and CVAT's archive, deep in a folder."""
    text(tmp_path / "a/ds0/ann/1.json", json.dumps(JSON["Supervisely"][0]))
    with pytest.raises(InputError, match=r"1\.json, which is a Supervisely annotation"):
        examine(Options(data=str(tmp_path)))
    (tmp_path / "a/ds0/ann/1.json").unlink()
    text(tmp_path / "a/annotations.xml", TEXT["images.xml"][0])
    with pytest.raises(InputError, match=r"annotations\.xml, which is a CVAT file"):
        examine(Options(data=str(tmp_path)))


def test_files_given_as_data(tmp_path):
    content = coco(tmp_path / "images")
    file = save(content, tmp_path / "a.json")
    with pytest.raises(InputError) as error:
        examine(Options(data=str(file)))
    advice = f"give a COCO file as --train-json {file} --train-images FOLDER"
    assert advice in str(error.value)
    # What it says works.
    examine(Options(train_json=str(file), train_images=str(tmp_path / "images")))
    image = tmp_path / "images/sub folder/0.jpg"
    with pytest.raises(InputError, match="is a file, not a folder: give its folder"):
        examine(Options(data=str(image)))
    with pytest.raises(InputError, match="there is no folder"):
        examine(Options(data=str(tmp_path / "gone")))


def test_coco_files_are_not_taken_for_others(tmp_path):
    """COCO's own, LVIS's and those with extra keys, whatever else they have."""
    content = coco(tmp_path)
    keypoints = dict(num_keypoints=1, keypoints=[1, 2, 2], caption="a bee")
    for annotation in content["annotations"]:
        annotation.update(keypoints)
    for more in (
        dict(info={}, licenses=[], type="instances"),
        dict(tags=[], version="1", project={}, samples=5, shapes={}),
    ):
        assert annotation_formats.of_json(dict(content, **more)) is None
    assert annotation_formats.of_json(dict(content, annotations=[])) is None


def test_files_that_cannot_be_read_are_not_recognised(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY x "ha">]><annotation>&x;</annotation>'
    for name, content in (
        ("a.json", b"[" * 10**5),
        ("b.json", b"\xff\xfe"),
        ("a.xml", bomb.encode()),
        ("b.xml", b"<a>" * 10**5),
        ("a.csv", b""),
        ("a.txt", b"\0" * 100),
        ("a.jsonl", b"{"),
        ("a.yaml", b"x: " + b"[" * 10**5),
    ):
        (tmp_path / name).write_bytes(content)
        start = time.process_time()
        assert annotation_formats.of_file(tmp_path / name) is None
        assert time.process_time() - start < 5  # a bound, not a measurement
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"{}"))
    assert str(annotation_formats.of_file(tmp_path / "a.gz")).endswith("is in it")
