"""convnext-dense train and test, with correct and with wrong arguments."""

import pickle

import pytest
import torch

from ..helpers.paths import SHARED
from ..helpers.running import shell
from ..helpers.runs import ADE, COCO, DET, NOTHING_SAVED, SEG, metric, options


def test_detection_trains_tests_and_resumes(tool, shapes_root, tmp_path):
    run = tmp_path / "run"
    cfg_options = options(
        f"data_root={shapes_root}",
        "train_dataloader.batch_size=2",
        "train_cfg.max_epochs=1",
        "default_hooks.logger.interval=1",
        "model.test_cfg.rcnn.score_thr=0.",  # else three steps predict nothing
    )
    done = tool(
        "train", DET, "--work-dir", run, "--amp", "--auto-scale-lr", *cfg_options
    )
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
        assert 0 <= metric(done.out, f"coco/{name}") < 0.5  # after three training steps
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

    cfg_options = options(
        f"data_root={shapes_root}",
        "train_dataloader.batch_size=2",
        "train_cfg.max_epochs=2",
    )
    done = tool("train", DET, "--work-dir", run, "--resume", *cfg_options)
    assert done.code == 0
    assert "resumed epoch: 1, iter: 3" in done.out
    assert (run / "epoch_2.pth").is_file()
    done = tool(
        "train", DET, "--work-dir", run, "--resume", run / "nothing.pth", *cfg_options
    )
    assert done.code == 2
    assert "no checkpoint at" in done.err


def test_segmentation_trains_and_tests(tool, shapes_root, tmp_path):
    run = tmp_path / "run"
    done = tool(
        *("train", SEG, "--work-dir", run, "--workers", "0", "--device", "cpu"),
        *("--batch-size", "2", "--lr", "1e-3", "--seed", "3", "--image-size", "96"),
        "--cfg-options",
        f"data_root={shapes_root}",
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        "model.decode_head.norm_cfg.type=SyncBN",
    )
    assert done.code == 0
    assert done.out.count("(was ") >= 5
    assert "length: 2 steps, 2 images a step" in done.out
    assert "linear rule" not in done.out, "the user has chosen the rate"
    assert (
        "warm-up of the learning rate: none (config: 25 steps, more than half"
        in done.out
    )
    assert done.out.count("no GPU here: SyncBN by BN replaced") == 1
    assert "mIoU" in done.out
    run = run.rename(tmp_path / "moved")
    config = (run / SEG.name).read_text()

    done = tool(
        *("test", run, "--out", "labels", "--show-dir", "pictures"),
        *("--batch-size", "2", "--workers", "0", "--device", "cpu"),
    )
    assert (run / SEG.name).read_text() == config, "the test's flags are not the run's"
    assert not (tmp_path / "run").exists(), "where the run was before it was moved"
    assert done.code == 0
    assert f"is a work dir; its newest checkpoint is {run / 'iter_2.pth'}" in done.out
    assert f"its config is {run / 'upernet_convnext_atto_shapes.py'}" in done.out
    assert "test_dataloader.batch_size = 2 (was 1)" in done.out
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
    """The checkpoint of a run initialises the backbone of another."""
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
    ]
    done = tool("train", SEG, "--work-dir", tmp_path / "next", *short, *weights)
    assert done.code == 0
    state = torch.load(run / "iter_1.pth", weights_only=False)["state_dict"]
    count = sum(name.startswith("backbone.") for name in state)
    assert f"{count} of the backbone's {count} tensors used" in done.out


@pytest.mark.skipif(not SHARED.exists(), reason="the real samples are not here")
def test_real_ade20k(tool, tmp_path):
    """The T config on real images, changed by options alone; a small crop is quick."""
    done = tool(
        *("train", ADE, "--work-dir", tmp_path / "run"),
        *options(
            f"data_root={SHARED / 'data/ade_sample'}",
            "model.backbone.init_cfg=None",
            *("train_cfg.max_iters=1", "train_cfg.val_interval=1"),
            *NOTHING_SAVED,
            "train_dataloader.dataset.pipeline.3.crop_size=(64,64)",
            "model.data_preprocessor.size=(64,64)",
            "val_dataloader.dataset.pipeline.1.scale=(256,64)",
            "model.test_cfg.mode=whole",
        ),
    )
    assert done.code == 0
    assert "mIoU" in done.out


@pytest.mark.skipif(not SHARED.exists(), reason="the real samples are not here")
def test_real_coco(tool, tmp_path):
    """The same with COCO; its json has no ``info``."""
    few = [f"model.train_cfg.rcnn.{i}.sampler.num=8" for i in range(3)]
    done = tool(
        *("train", COCO, "--work-dir", tmp_path / "run"),
        *options(
            f"data_root={SHARED / 'data/coco_tiny'}",
            "model.backbone.init_cfg=None",
            "train_cfg.max_epochs=1",
            "train_dataloader.dataset.indices=2",
            "val_dataloader.dataset.indices=2",
            *NOTHING_SAVED,
            "train_dataloader.dataset.pipeline.3.transforms.0.0.scales=[(128,128)]",
            "train_dataloader.dataset.pipeline.3.transforms.1.2.scales=[(128,128)]",
            "val_dataloader.dataset.pipeline.1.scale=(128,128)",
            "model.test_cfg.rpn.max_per_img=20",
            *("model.test_cfg.rcnn.score_thr=0.", "model.test_cfg.rcnn.max_per_img=5"),
            *few,
        ),
    )
    assert done.code == 0
    assert "coco/segm_mAP" in done.out


def test_help_needs_no_arguments():
    for name in ("train", "test"):
        done = shell(f"tools/{name}.py", "--help")
        assert done.returncode == 0
        for flag in ("--work-dir", "--cfg-options", "--launcher"):
            assert flag in done.stdout
