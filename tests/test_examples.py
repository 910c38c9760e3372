"""The examples: the toolboxes' own scripts, unchanged, train and test them."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from .helpers.paths import ROOT

TRAIN, TEST = "train.py", "test.py"
RETINANET, FPN = "retinanet_convnext_t_coco", "semantic_fpn_convnext_t_ade20k"


def coco_root(shapes_root, root):
    """The built-in data set with the file and class names of COCO."""
    from mmdet.datasets import CocoDataset

    for split in ("train", "val"):
        content = json.loads(
            (shapes_root / f"annotations/instances_{split}.json").read_text()
        )
        content["categories"] = [
            {"id": i, "name": name}
            for i, name in enumerate(CocoDataset.METAINFO["classes"], 1)
        ]
        file = root / f"annotations/instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        (root / f"{split}2017").symlink_to(shapes_root / "images" / split)
    return root


def ade_root(shapes_root, root):
    """The built-in data set with the folder names of ADE20K."""
    for source, target in (("images", "images"), ("labels", "annotations")):
        for split, name in (("train", "training"), ("val", "validation")):
            folder = root / target / name
            folder.parent.mkdir(exist_ok=True)
            folder.symlink_to(shapes_root / source / split)
    return root


def toolbox_run(script, toolbox, example, root, options, *arguments):
    """Start a script of the toolbox; its output goes to ``root``/output.txt."""
    package = Path(find_spec(toolbox).origin).parent
    command = [
        sys.executable,
        *("-W", "ignore"),
        package / ".mim/tools" / script,
        ROOT / f"examples/{toolbox}_{example}.py",
        *arguments,
        *("--work-dir", root / "run"),
        "--cfg-options",
        *(f"{key}={value}" for key, value in options.items()),
    ]
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": "/usr/bin:/bin",
        "HOME": str(root),
        "OMP_NUM_THREADS": "1",  # two trainings run at a time
    }
    with open(root / "output.txt", "w") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=environment)


SMALL = {
    "model.backbone.init_cfg": None,
    "model.backbone.arch": "atto",
    "model.neck.in_channels": "[40,80,160,320]",
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "train_dataloader.batch_size": 2,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
}


def det_options(root):
    return {
        **SMALL,
        "train_dataloader.dataset.data_root": root,
        "val_dataloader.dataset.data_root": root,
        "val_evaluator.ann_file": root / "annotations/instances_val2017.json",
        "train_dataloader.dataset.indices": 2,
        "train_dataloader.dataset.pipeline.2.scale": "(96,96)",
        "val_dataloader.dataset.pipeline.1.scale": "(96,96)",
        "model.bbox_head.stacked_convs": 1,
        "model.test_cfg.score_thr": 0.0,
        "train_cfg.max_epochs": 1,
    }


def seg_options(root):
    return {
        **SMALL,
        "train_dataloader.dataset.data_root": root,
        "val_dataloader.dataset.data_root": root,
        "train_dataloader.dataset.pipeline.3.crop_size": "(96,96)",
        "val_dataloader.dataset.pipeline.1.scale": "(96,96)",
        "model.data_preprocessor.size": "(96,96)",
        "model.decode_head.norm_cfg.type": "BN",  # SyncBN needs a GPU
        "train_cfg.max_iters": 2,
        "train_cfg.val_interval": 2,
        "default_hooks.checkpoint.interval": 2,
    }


@pytest.fixture(scope="module")
def runs(shapes_root, tmp_path_factory):
    """Toolbox -> folder and process of its training; both run at the same time."""
    det = coco_root(shapes_root, tmp_path_factory.mktemp("coco"))
    seg = ade_root(shapes_root, tmp_path_factory.mktemp("ade"))
    started = dict(
        mmdet=(det, toolbox_run(TRAIN, "mmdet", RETINANET, det, det_options(det))),
        mmseg=(seg, toolbox_run(TRAIN, "mmseg", FPN, seg, seg_options(seg))),
    )
    yield started
    for _, process in started.values():
        process.kill()  # it still runs if its test was not selected


def output_of(root, process):
    """The output of a training, when it has ended."""
    process.wait()
    output = (root / "output.txt").read_text()
    assert process.returncode == 0, output[-3000:]
    return output


def test_retinanet_by_mmdets_train(runs):
    root, _ = runs["mmdet"]
    output = output_of(*runs["mmdet"])
    assert (root / "run/epoch_1.pth").is_file()
    assert "layer_wise learning-rate decay 0.8" in output
    assert "bbox_mAP" in output


def test_retinanet_by_mmdets_test(runs):
    """It imports ``mmcv.ops`` before it reads the config: convnext_dense.pth helps."""
    root, _ = runs["mmdet"]
    output_of(*runs["mmdet"])
    options = {
        "test_dataloader.dataset.data_root": root,
        "test_dataloader.dataset.pipeline.1.scale": "(96,96)",
        "test_dataloader.num_workers": 0,
        "test_dataloader.persistent_workers": False,
        "test_evaluator.ann_file": root / "annotations/instances_val2017.json",
        **{key: value for key, value in SMALL.items() if key.startswith("model")},
        "model.bbox_head.stacked_convs": 1,
        "model.test_cfg.score_thr": 0.0,
    }
    checkpoint = root / "run/epoch_1.pth"
    test = toolbox_run(TEST, "mmdet", RETINANET, root, options, checkpoint)
    assert "bbox_mAP" in output_of(root, test)


def test_semantic_fpn_by_mmsegs_train(runs):
    root, _ = runs["mmseg"]
    output = output_of(*runs["mmseg"])
    assert (root / "run/iter_2.pth").is_file()
    assert "stage_wise learning-rate decay 0.9" in output
    assert "mIoU" in output


def test_deeplabv3plus_takes_maps_of_output_stride_8():
    """Its model, small, computes the losses; its data is that of Semantic FPN."""
    cfg = Config.fromfile(ROOT / "examples/mmseg_deeplabv3plus_convnext_t_ade20k.py")
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    assert [backbone.arch, head.in_channels, head.c1_in_channels] == ["tiny", 768, 96]
    backbone.update(arch="atto", init_cfg=None)
    head.update(
        in_channels=320, c1_in_channels=40, channels=16, norm_cfg=dict(type="BN")
    )
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(cfg.model)
    images = torch.rand(2, 3, 64, 96)
    assert [tuple(m.shape[2:]) for m in model.extract_feat(images)] == [
        (16, 24),
        *[(8, 12)] * 3,
    ]
    labels = PixelData(data=torch.randint(0, 150, (1, 64, 96)))
    losses = model.loss(images, [SegDataSample(gt_sem_seg=labels)] * 2)
    losses["decode.loss_ce"].backward()
    assert all(p.grad.isfinite().all() for p in model.backbone.stages.parameters())
