"""The everyday flags are settings of the config, in both toolboxes."""

import os

import pytest
import torch
from mmengine.config import Config

from convnext_dense.config.flags import linear_rule, use_flags
from convnext_dense.config.options import load_config
from convnext_dense.config.sections import setting
from convnext_dense.config.trained import (
    best_or_newest,
    checkpoint_of,
    config_and_checkpoint,
)
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT
from ..helpers.runs import ADE, COCO, DET, SEG

TRAINING = ("train", "val")


@pytest.mark.parametrize("file", [DET, SEG])
def test_flags_are_settings(file):
    cfg = load_config(str(file))
    flags = dict(batch_size=3, lr=0.5, workers=0, seed=7, load_from="a.pth")
    line = use_flags(cfg, flags, {"train_cfg.val_interval": 5}, TRAINING)
    assert line.settings["train_cfg.val_interval"] == 5
    expected = {
        "train_dataloader.batch_size": 3,
        "optim_wrapper.optimizer.lr": 0.5,
        "randomness.seed": 7,
        "load_from": "a.pth",
        "train_dataloader.num_workers": 0,
        "val_dataloader.num_workers": 0,
        "val_dataloader.persistent_workers": False,
    }
    for key, value in expected.items():
        assert setting(cfg, key) == line.settings[key] == value
    assert cfg.val_dataloader.batch_size != 3
    assert len(line.lines) == len(flags)
    assert "--lr: optim_wrapper.optimizer.lr = 0.5 (was 0.0" in "\n".join(line.lines)


def test_the_batch_size_of_a_test():
    cfg = load_config(str(SEG))
    use_flags(cfg, dict(batch_size=3, workers=None), {}, ("test",))
    assert (cfg.train_dataloader.batch_size, cfg.test_dataloader.batch_size) == (4, 3)


@pytest.mark.parametrize("option", ["train_dataloader.batch_size", "train_dataloader"])
def test_a_flag_and_an_option_of_the_same_setting(option):
    cfg = load_config(str(SEG))
    use_flags(cfg, dict(batch_size=3), {"train_dataloader.batch_sizes": 4}, TRAINING)
    with pytest.raises(InputError, match=f"so does --cfg-options {option}: leave"):
        use_flags(cfg, dict(batch_size=3), {option: 4}, TRAINING)


def test_a_learning_rate_without_a_place():
    cfg = load_config(str(SEG))
    cfg.optim_wrapper = dict(a=dict(optimizer=dict(lr=1)))
    with pytest.raises(InputError, match=r"--lr: .* has no optim_wrapper.optimizer.lr"):
        use_flags(cfg, dict(lr=0.1), {}, TRAINING)


def test_the_linear_rule():
    cfg = load_config(str(COCO))
    rate = cfg.optim_wrapper.optimizer.lr
    assert linear_rule(cfg, 16) is None
    said = linear_rule(cfg, 4)
    assert f"stays {rate:g}, which is for 16 images" in said
    assert f"the linear rule gives {rate / 4:g}" in said
    cfg.auto_scale_lr.enable = True
    assert linear_rule(cfg, 4) is None


def scaled(file, *size):
    cfg = load_config(str(file))
    use_flags(cfg, dict(image_size=size), {}, TRAINING)
    return cfg


def test_image_sizes_of_a_segmentor():
    cfg = scaled(ADE, 256)
    resize, crop = cfg.train_dataloader.dataset.pipeline[2:4]
    assert (resize.scale, crop.crop_size) == ((1024, 256), (256, 256))
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1024, 256)
    assert cfg.model.data_preprocessor.size == (256, 256)
    assert (cfg.model.test_cfg.crop_size, cfg.model.test_cfg.stride) == (
        (256, 256),
        (170, 170),
    )
    assert cfg.tta_pipeline[1].transforms[0][0].scale == (512, 128)
    high = scaled(ADE, 256, 768)
    assert high.train_dataloader.dataset.pipeline[2].scale == (3072, 256)
    assert high.train_dataloader.dataset.pipeline[3].crop_size == (256, 768)
    assert high.model.data_preprocessor.size == (256, 768)


def test_image_sizes_of_a_detector():
    cfg = scaled(COCO, 400)
    whole, cropped = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert (whole[0].scales[0], whole[0].scales[-1]) == ((240, 666), (400, 666))
    assert cropped[0].scales == [(200, 666), (250, 666), (300, 666)]
    assert cropped[1].crop_size == (192, 300)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (666, 400)
    wide = scaled(COCO, 400, 1333)
    assert wide.train_dataloader.dataset.pipeline[3].transforms[0][0].scales[-1] == (
        *(400, 1333),
    )
    assert wide.val_dataloader.dataset.pipeline[1].scale == (1333, 400)


def test_image_sizes_of_mosaics_and_of_pipelines_in_hooks():
    cfg = scaled(ROOT / "configs/det/rtmdet_l_convnext_b_in22k_coco.py", 320)
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps["CachedMosaic"].img_scale == steps["Pad"].size == (320, 320)
    assert steps["RandomResize"].scale == (640, 640)
    (pipeline,) = (
        h.switch_pipeline for h in cfg.custom_hooks if "switch_pipeline" in h
    )
    assert {step.type: step for step in pipeline}["RandomCrop"].crop_size == (320, 320)


def test_image_sizes_of_short_sides_and_fixed_shapes():
    pipeline = [
        dict(type="RandomChoiceResize", scales=[100, 200], max_size=800),
        dict(type="FixShapeResize", width=400, height=200),
        dict(type="RandomCrop", crop_type="relative", crop_size=(1, 1)),
    ]
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type="A", pipeline=pipeline))))
    use_flags(cfg, dict(image_size=[100]), {}, ["train"])
    steps = cfg.train_dataloader.dataset.pipeline
    assert (steps[0].scales, steps[0].max_size) == ([50, 100], 400)
    assert (steps[1].width, steps[1].height) == (200, 100)
    assert steps[2].crop_size == (1, 1)


@pytest.mark.parametrize("name", ["batch_size", "workers", "image_size"])
def test_a_config_without_the_section(name):
    cfg = load_config(str(SEG))
    cfg.test_dataloader = None
    with pytest.raises(InputError, match="has no section test_dataloader"):
        use_flags(cfg, {name: [64]}, {}, ["test"])


def test_sizes_that_a_config_has_wrong():
    """The checks of the config say so later."""
    cfg = load_config(str(SEG))
    cfg.train_dataloader.dataset.pipeline[0].scale = (1, 2, 3)
    cfg.train_dataloader.dataset.pipeline[1].crop_size = [[3, 4]]
    cfg.train_dataloader.dataset.pipeline[3].size = 0
    use_flags(cfg, dict(image_size=[64]), {}, TRAINING)
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (64, 64)
    assert cfg.train_dataloader.dataset.pipeline[0].scale == (1, 2, 3)


def test_a_pipeline_without_a_size():
    cfg = load_config(str(SEG))
    del cfg.val_dataloader.dataset.pipeline[1]
    with pytest.raises(
        InputError, match=r"the pipeline of val_dataloader in .* has no"
    ):
        use_flags(cfg, dict(image_size=[64]), {}, TRAINING)
    use_flags(cfg, dict(image_size=[64]), {}, ["test"])


def test_a_work_dir_in_place_of_a_checkpoint(tmp_path, tool):
    run = tmp_path / "run"
    run.mkdir()
    assert best_or_newest(run) is None
    assert checkpoint_of(str(run)) == str(run)  # no work dir
    assert checkpoint_of("hf://a/b") == "hf://a/b"
    for name in ("iter_2.pth", "best_x_iter_1.pth", "iter_9.pth"):
        torch.save(dict(meta={}, state_dict={}), run / name)
    assert checkpoint_of(str(run)) == str(run / "best_x_iter_1.pth")
    (run / "best_x_iter_1.pth").unlink()
    assert best_or_newest(run) == run / "iter_9.pth"
    (run / "iter_9.pth").write_bytes((run / "iter_9.pth").read_bytes()[:-50])
    assert best_or_newest(run) == run / "iter_2.pth"
    (run / "iter_2.pth").write_bytes(b"")
    done = tool("test", SEG, run)
    assert done.code == 2
    assert f"no checkpoint in {run} is complete; damaged: iter_" in done.err


def test_a_work_dir_in_place_of_both(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    torch.save(dict(meta={}, state_dict={}), run / "iter_9.pth")
    for name in ("old.py", "new.py"):
        (run / name).write_text("model = dict(type='A')\n")
        os.utime(run / name, (0, "on".index(name[0])))
    (run / "infer.py").write_text("import os\n")  # of the user
    both = str(run / "new.py"), str(run / "iter_9.pth")
    assert config_and_checkpoint(str(run), None) == both
    # What is named besides it is taken as it is.
    assert config_and_checkpoint(str(SEG), None) == (str(SEG), None)
    assert config_and_checkpoint("a.py", str(run)) == ("a.py", both[1])
    assert config_and_checkpoint(str(run), "b.pth") == (str(run), "b.pth")


def test_a_checkpoint_of_an_earlier_run_in_the_work_dir(tmp_path):
    """Another image size or other classes: it is not tested with them in silence."""
    text = "model = dict(type='A')\ntest_dataloader = dict(classes=['a'])\n"
    (tmp_path / "c.py").write_text(text + "lr = 1\n")
    file = tmp_path / "best_x_iter_1.pth"
    torch.save(dict(meta=dict(cfg=text + "lr = 2\n"), state_dict={}), file)
    assert config_and_checkpoint(str(tmp_path), None)[1] == str(file)
    torch.save(dict(meta=dict(cfg=text.replace("a'", "b'")), state_dict={}), file)
    with pytest.raises(InputError, match="is not of the run whose config is"):
        config_and_checkpoint(str(tmp_path), None)


def test_an_empty_name_is_not_this_folder(tmp_path, monkeypatch):
    (tmp_path / "epoch_1.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the name of the checkpoint is empty"):
        checkpoint_of("")
