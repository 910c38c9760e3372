"""Stock detectors and segmentors use the backbone through custom_imports alone,
run by the toolboxes' own train.py, unchanged."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import ROOT


@pytest.fixture
def coco_root(shapes_root, tmp_path):
    """Shapes under the names of COCO's files and classes."""
    from mmdet.datasets import CocoDataset

    for split in ("train", "val"):
        content = json.loads(
            (shapes_root / f"annotations/instances_{split}.json").read_text()
        )
        content["categories"] = [
            {"id": i, "name": name}
            for i, name in enumerate(CocoDataset.METAINFO["classes"], 1)
        ]
        file = tmp_path / f"annotations/instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        (tmp_path / f"{split}2017").symlink_to(shapes_root / "images" / split)
    return tmp_path


@pytest.fixture
def ade_root(shapes_root, tmp_path):
    """Shapes under the names of ADE20K's folders."""
    for ours, theirs in (("images", "images"), ("labels", "annotations")):
        for split, name in (("train", "training"), ("val", "validation")):
            folder = tmp_path / theirs / name
            folder.parent.mkdir(exist_ok=True)
            folder.symlink_to(shapes_root / ours / split)
    return tmp_path


def toolbox_train(toolbox, config, work_dir, options):
    package = Path(find_spec(toolbox).origin).parent
    command = [
        sys.executable,
        *("-W", "ignore"),
        package / ".mim/tools/train.py",
        ROOT / "examples" / config,
        *("--work-dir", work_dir),
        "--cfg-options",
        *(f"{key}={value}" for key, value in options.items()),
    ]
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": "/usr/bin:/bin",
        "HOME": str(work_dir),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


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


def test_retinanet_by_mmdets_train(coco_root, tmp_path):
    said = toolbox_train(
        "mmdet",
        "mmdet_retinanet_convnext_t_coco.py",
        tmp_path / "run",
        {
            **SMALL,
            "train_dataloader.dataset.data_root": coco_root,
            "val_dataloader.dataset.data_root": coco_root,
            "val_evaluator.ann_file": coco_root / "annotations/instances_val2017.json",
            "train_dataloader.dataset.pipeline.2.scale": "(160,160)",
            "val_dataloader.dataset.pipeline.1.scale": "(160,160)",
            "model.bbox_head.stacked_convs": 1,
            "model.test_cfg.score_thr": 0.0,
            "train_cfg.max_epochs": 1,
        },
    )
    assert (tmp_path / "run/epoch_1.pth").is_file()
    assert "layer_wise learning-rate decay 0.8" in said
    assert "bbox_mAP" in said


def test_semantic_fpn_by_mmsegs_train(ade_root, tmp_path):
    said = toolbox_train(
        "mmseg",
        "mmseg_semantic_fpn_convnext_t_ade20k.py",
        tmp_path / "run",
        {
            **SMALL,
            "train_dataloader.dataset.data_root": ade_root,
            "val_dataloader.dataset.data_root": ade_root,
            "train_dataloader.dataset.pipeline.3.crop_size": "(128,128)",
            "val_dataloader.dataset.pipeline.1.scale": "(160,160)",
            "model.data_preprocessor.size": "(128,128)",
            "model.decode_head.norm_cfg.type": "BN",  # SyncBN needs a GPU
            "train_cfg.max_iters": 2,
            "train_cfg.val_interval": 2,
            "default_hooks.checkpoint.interval": 2,
        },
    )
    assert (tmp_path / "run/iter_2.pth").is_file()
    assert "stage_wise learning-rate decay 0.9" in said
    assert "mIoU" in said
