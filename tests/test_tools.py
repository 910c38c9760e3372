"""tools/train.py and tools/test.py as a user runs them, rightly and wrongly."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import pytest
import torch

from convnext_dense import inputs

from .conftest import ROOT, SHARED

DET = ROOT / "configs/det/cascade_mask_rcnn_convnext_atto_shapes.py"
SEG = ROOT / "configs/seg/upernet_convnext_atto_shapes.py"
COCO = ROOT / "configs/det/cascade_mask_rcnn_convnext_t_coco.py"
ADE = ROOT / "configs/seg/upernet_convnext_t_ade20k.py"

NO_WORKERS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]


def options(*more):
    return ["--cfg-options", *NO_WORKERS, *map(str, more)]


def metric(out, name):
    return float(re.findall(rf"{name}: (-?[\d.]+)", out)[-1])


def test_detection_trains_tests_and_resumes(tool, shapes_root, tmp_path):
    run = tmp_path / "run"
    here = options(
        f"data_root={shapes_root}",
        "train_dataloader.batch_size=2",
        "train_cfg.max_epochs=1",
        "default_hooks.logger.interval=1",
    )
    done = tool("train", DET, "--work-dir", run, "--amp", "--auto-scale-lr", *here)
    assert done.code == 0
    assert "LR is set based on batch size of 4" in done.out
    assert done.out.count("no GPU here: mixed precision by fp32 replaced") == 1
    assert "coco/bbox_mAP" in done.out
    assert (run / "epoch_1.pth").is_file()

    done = tool(
        *("test", DET, run / "epoch_1.pth", "--work-dir", run),
        *("--show-dir", "pictures", "--out", "predictions.pkl"),
        *options(f"data_root={shapes_root}", "model.test_cfg.rcnn.score_thr=0."),
    )
    assert done.code == 0
    for name in ("bbox_mAP", "segm_mAP"):
        assert 0 <= metric(done.out, f"coco/{name}") < 0.5  # three steps teach little
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 3
    predictions = pickle.loads((tmp_path / "predictions.pkl").read_bytes())
    assert [sorted(p["pred_instances"]) for p in predictions] == [
        ["bboxes", "labels", "masks", "scores"]
    ] * 3

    done = tool(
        *("test", DET, run / "epoch_1.pth", "--work-dir", run, "--tta"),
        *options(f"data_root={shapes_root}", "model.test_cfg.rcnn.score_thr=0."),
    )
    assert done.code == 0
    assert "masks are left out" in done.out
    assert "coco/bbox_mAP" in done.out
    assert "coco/segm_mAP" not in done.out

    here = options(
        f"data_root={shapes_root}",
        "train_dataloader.batch_size=2",
        "train_cfg.max_epochs=2",
    )
    done = tool("train", DET, "--work-dir", run, "--resume", *here)
    assert done.code == 0
    assert "resumed epoch: 1, iter: 3" in done.out
    assert (run / "epoch_2.pth").is_file()
    done = tool("train", DET, "--work-dir", run, "--resume", run / "nothing.pth", *here)
    assert done.code == 2
    assert "no checkpoint at" in done.err


def test_segmentation_trains_and_tests(tool, shapes_root, tmp_path):
    run = tmp_path / "run"
    done = tool(
        *("train", SEG, "--work-dir", run),
        *options(
            f"data_root={shapes_root}",
            "train_cfg.max_iters=2",
            "train_cfg.val_interval=2",
            "default_hooks.checkpoint.interval=2",
            "model.decode_head.norm_cfg.type=SyncBN",
        ),
    )
    assert done.code == 0
    assert done.out.count("no GPU here: SyncBN by BN replaced") == 1
    assert "mIoU" in done.out

    done = tool(
        *("test", SEG, run / "iter_2.pth", "--work-dir", run),
        *("--out", "labels", "--show-dir", "pictures"),
        *options(f"data_root={shapes_root}"),
    )
    assert done.code == 0
    assert 0 < metric(done.out, "mIoU") < 50
    assert len(list((tmp_path / "labels").glob("*.png"))) == 3
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 3

    done = tool(
        *("test", SEG, run / "iter_2.pth", "--work-dir", run, "--tta"),
        *options(f"data_root={shapes_root}"),
    )
    assert done.code == 0
    assert "mIoU" in done.out


def test_checkpoints_carry_plain_weights(tool, shapes_root, tmp_path):
    """A run's own checkpoint starts another one's backbone."""
    run = tmp_path / "run"
    short = options(
        f"data_root={shapes_root}",
        *("train_cfg.max_iters=1", "train_cfg.val_interval=2"),
        "default_hooks.checkpoint.interval=1",
    )
    assert tool("train", SEG, "--work-dir", run, *short).code == 0
    weights = [
        "model.backbone.init_cfg.type=Pretrained",
        f"model.backbone.init_cfg.checkpoint={run / 'iter_1.pth'}",
        "model.backbone.init_cfg.prefix=backbone.",
    ]
    done = tool("train", SEG, "--work-dir", tmp_path / "next", *short, *weights)
    assert done.code == 0
    state = torch.load(run / "iter_1.pth", weights_only=False)["state_dict"]
    count = sum(name.startswith("backbone.") for name in state)
    assert f"{count} of {count} tensors of the backbone" in done.out


@pytest.mark.skipif(not SHARED.exists(), reason="the real samples are not here")
def test_real_ade20k(tool, tmp_path):
    """The T config on real photographs, by options alone; a small crop to be quick."""
    done = tool(
        *("train", ADE, "--work-dir", tmp_path / "run"),
        *options(
            f"data_root={SHARED / 'data/ade_sample'}",
            "model.backbone.init_cfg=None",
            *("train_cfg.max_iters=1", "train_cfg.val_interval=1"),
            "train_dataloader.dataset.pipeline.3.crop_size=(128,128)",
            "model.data_preprocessor.size=(128,128)",
            "val_dataloader.dataset.pipeline.1.scale=(512,128)",
            "model.test_cfg.mode=whole",
        ),
    )
    assert done.code == 0
    assert "mIoU" in done.out


@pytest.mark.skipif(not SHARED.exists(), reason="the real samples are not here")
def test_real_coco(tool, tmp_path):
    """The same of COCO; its json has no ``info``."""
    few = [f"model.train_cfg.rcnn.{i}.sampler.num=8" for i in range(3)]
    done = tool(
        *("train", COCO, "--work-dir", tmp_path / "run"),
        *options(
            f"data_root={SHARED / 'data/coco_tiny'}",
            "model.backbone.init_cfg=None",
            "train_cfg.max_epochs=1",
            "train_dataloader.dataset.indices=2",
            "val_dataloader.dataset.indices=2",
            "train_dataloader.dataset.pipeline.3.transforms.0.0.scales=[(256,256)]",
            "train_dataloader.dataset.pipeline.3.transforms.1.2.scales=[(256,256)]",
            "val_dataloader.dataset.pipeline.1.scale=(256,256)",
            "model.test_cfg.rpn.max_per_img=20",
            "model.test_cfg.rcnn.score_thr=0.",
            *few,
        ),
    )
    assert done.code == 0
    assert "coco/segm_mAP" in done.out


def write(path, text):
    path.write_text(text)
    return path


WRONG = {
    "no config": (
        lambda t: ["train", "configs/det/nothing.py"],
        r"no config at configs/det/nothing\.py",
    ),
    "config is not Python": (
        lambda t: ["train", write(t / "c.py", "model = dict(")],
        r"c\.py could not be read: .*yntax",
    ),
    "config imports what is not there": (
        lambda t: ["train", write(t / "c.py", "custom_imports=dict(imports='nope')")],
        r"c\.py could not be read: .*nope",
    ),
    "config of neither toolbox": (
        lambda t: ["train", write(t / "c.py", "model = dict(type='X')")],
        r"neither an MMDetection nor an MMSegmentation config",
    ),
    "config without a model": (
        lambda t: ["train", write(t / "c.py", "default_scope = 'mmdet'")],
        r"it has no model",
    ),
    "option that is not key=value": (
        lambda t: ["train", DET, "--cfg-options", "model"],
        r"'model' is not key=value",
    ),
    "option that does not fit": (
        lambda t: ["train", DET, "--cfg-options", "model.train_cfg.rcnn.7.mask_size=1"],
        r"--cfg-options could not be applied",
    ),
    "data_root of a config that has none": (
        lambda t: [
            *("train", write(t / "c.py", "default_scope = 'mmdet'\nmodel = dict()")),
            *("--cfg-options", "data_root=x"),
        ],
        r"has no data_root to change",
    ),
    "unknown arch": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.arch=tinny"],
        r"unknown arch 'tinny'.*tiny, small",
    ),
    "out_indices out of range": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.out_indices=(0,4)"],
        r"out_indices=.*0 to 3",
    ),
    "out_indices empty": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.out_indices=()"],
        r"at least one",
    ),
    "negative drop path rate": (
        lambda t: ["train", DET, "--cfg-options", "model.backbone.drop_path_rate=-0.1"],
        r"drop_path_rate=-0\.1.*probability",
    ),
    "COCO is not there": (
        lambda t: ["train", COCO],
        r"the train data is not there.*data/coco/annotations/instances_train2017\.json"
        r".*--cfg-options data_root=FOLDER",
    ),
    "ADE20K is not there": (
        lambda t: ["train", ADE],
        r"data/ade/ADEChallengeData2016/images/training.*data_root=FOLDER",
    ),
    "checkpoint is not there": (
        lambda t: ["test", DET, "nowhere.pth"],
        r"no checkpoint at nowhere\.pth",
    ),
    "weights cannot be downloaded": (
        lambda t: [
            *("train", DET, "--cfg-options", "model.backbone.init_cfg.type=Pretrained"),
            "model.backbone.init_cfg.checkpoint=http://127.0.0.1:9/x.pth",
        ],
        r"http://127\.0\.0\.1:9/x\.pth could not be downloaded"
        r".*init_cfg\.checkpoint=FILE.*from scratch.*init_cfg=None",
    ),
    "weights are not there": (
        lambda t: [
            *("train", DET, "--cfg-options", "model.backbone.init_cfg.type=Pretrained"),
            "model.backbone.init_cfg.checkpoint=x.pth",
        ],
        r"no checkpoint at x\.pth",
    ),
    "no batch size to scale from": (
        lambda t: [
            "train",
            DET,
            "--auto-scale-lr",
            "--cfg-options",
            "auto_scale_lr=None",
        ],
        r"--auto-scale-lr: .* add auto_scale_lr = dict\(base_batch_size=16\)",
    ),
    "launcher without a GPU": (
        lambda t: ["train", DET, "--launcher", "pytorch"],
        r"--launcher pytorch: .*no GPU here",
    ),
    "--out is no pickle": (
        lambda t: ["test", DET, write(t / "x.pth", ""), "--out", "x.json"],
        r"--out x\.json.*\.pkl",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_one_message(tool, tmp_path, shapes_root, case):
    arguments, says = WRONG[case]
    shutil.copytree(shapes_root, tmp_path / "data/shapes")
    arguments = arguments(tmp_path)
    before = set(tmp_path.rglob("*"))
    done = tool(*arguments)
    assert done.code == 2
    assert re.search(says, done.err, re.DOTALL), done.err
    assert "Traceback" not in done.out + done.err
    assert done.err.count("error:") == 1
    assert set(tmp_path.rglob("*")) == before  # nothing half-written


ANNOTATIONS = {
    "not JSON": ("{", "is not JSON"),
    "a list": ("[]", "is not a COCO annotation file: it holds a list"),
    "no annotations": ('{"images": [], "categories": []}', "no list of annotations"),
    "other classes": (
        json.dumps(
            dict(
                images=[dict(id=1, file_name="000001.jpg", width=320, height=320)],
                annotations=[],
                categories=[dict(id=1, name="dog")],
            )
        ),
        "none of the config's classes (disc, square, triangle, star, cross); "
        "its own are dog",
    ),
}


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_annotation_files_that_are_not_coco(tool, tmp_path, shapes_root, case):
    text, says = ANNOTATIONS[case]
    shutil.copytree(shapes_root, tmp_path / "shapes")
    file = tmp_path / "shapes/annotations/instances_train.json"
    file.write_text(text)
    before = set(tmp_path.rglob("*"))
    done = tool("train", DET, *options(f"data_root={tmp_path / 'shapes'}"))
    assert done.code == 2
    assert f"{file}, the annotations for train, " in done.err
    assert says in done.err
    assert "Traceback" not in done.out + done.err
    assert set(tmp_path.rglob("*")) == before


def test_an_image_too_small(tool, tmp_path, shapes_root):
    done = tool(
        *("train", SEG, "--work-dir", tmp_path / "run"),
        *options(
            f"data_root={shapes_root}",
            "train_dataloader.dataset.pipeline.2.scale=(16,16)",
            "model.data_preprocessor.size=(16,16)",
        ),
    )
    assert done.code == 2
    assert "16 x 16 pixels" in done.err
    assert "at least 32" in done.err


def shell(*command, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_debug_shows_the_stack():
    plain = shell("tools/train.py", "nothing.py")
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.strip() == "error: no config at nothing.py"
    debug = shell("tools/train.py", "nothing.py", CONVNEXT_DENSE_DEBUG="1")
    assert "Traceback" in debug.stderr
    assert "InputError: no config at nothing.py" in debug.stderr


EXTRAS = r"(?s)pip install 'convnext_dense\[onedl\]'.*'convnext_dense\[openmmlab\]'"


def test_a_missing_toolbox_names_the_extras(tool, monkeypatch):
    monkeypatch.setattr(inputs, "find_spec", lambda name: None)
    done = tool("train", DET)
    assert done.code == 2
    assert "is a config of MMDetection, which is not installed" in done.err
    assert re.search(EXTRAS, done.err)


def test_a_missing_stack_names_the_extras(tmp_path):
    """As in an environment without it: mmengine cannot be found."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mmengine':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    done = shell("tools/train.py", DET, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(EXTRAS, done.stderr)


def test_help_needs_no_arguments():
    for name in ("train", "test"):
        done = shell(f"tools/{name}.py", "--help")
        assert done.returncode == 0
        for flag in ("--work-dir", "--cfg-options", "--launcher"):
            assert flag in done.stdout
