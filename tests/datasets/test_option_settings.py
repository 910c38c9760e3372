"""Settings of configs and of the command line that meet custom data."""

import pytest
from mmengine.registry import MODELS, init_default_scope

from convnext_dense.config import cfg_options
from convnext_dense.config.options import load_config
from convnext_dense.datasets.custom.option_settings import take_epochs
from convnext_dense.datasets.custom.prepare import Options, prepare
from convnext_dense.errors import InputError

from ..helpers.custom_data import coco, save, write_label_maps
from ..helpers.mmengine_state import logged
from ..helpers.runs import DET, SEG

HTC = """
model = dict(roi_head=dict(
    semantic_head=dict(type='FusedSemanticHead'),
    semantic_roi_extractor=dict(type='SingleRoIExtractor')))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='PackDetInputs')]))
custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=[
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True)])]
"""
# A loss of a segmentor: the config, and what the run says.
LOSS = "loss_decode=dict(type='CrossEntropyLoss', {})"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Custom data for each toolbox: six images with objects, four with label maps."""
    root = tmp_path_factory.mktemp("data")
    save(coco(root / "objects"), root / "train.json")
    write_label_maps(root)
    return dict(
        mmdet=dict(train_json=root / "train.json", train_images=root / "objects"),
        mmseg=dict(train_images=root / "images", train_labels=root / "labels"),
    )


@pytest.fixture
def fit(data, tmp_path):
    """A function that fits a config, or one with more text, to custom data."""

    def run(base, options=(), epochs=1, text=""):
        file = tmp_path / "c.py"
        file.write_text(f"_base_ = {str(base)!r}\n{text}")
        settings, epochs = take_epochs(options, epochs)
        cfg = load_config(str(file), settings, str(tmp_path / "run"))
        named = {key: str(path) for key, path in data[cfg.default_scope].items()}
        prepare(cfg, Options(**named), epochs, cfg_options.parse(settings))
        return cfg

    return run


def keys(messages):
    """The options that change nothing."""
    return {text.split()[1] for text in messages if "changes nothing" in text}


def test_weights_for_other_classes(fit):
    """The message's option, followed, trains."""
    text = "model = dict(decode_head=dict({}))".format(
        LOSS.format("class_weight=[0.8, 1.0, 1.1, 1.0, 1.0, 1.0]")
    )
    with pytest.raises(InputError) as caught:
        fit(SEG, text=text)
    option = "model.decode_head.loss_decode.class_weight=None"
    assert (
        f"loss_decode.class_weight has 6. For equal weights: --cfg-options {option}"
        in str(caught.value)
    )
    cfg = fit(SEG, [option], text=text)
    assert cfg.model.decode_head.loss_decode.class_weight is None


def test_one_output_channel(fit):
    text = "model = dict(decode_head=dict(num_classes=2, out_channels=1, {}))".format(
        LOSS.format("use_sigmoid=True")
    )
    head = fit(SEG, text=text).model.decode_head
    init_default_scope("mmseg")
    assert MODELS.build(head).conv_seg.out_channels == head.num_classes == 3


def test_a_semantic_head_is_left_out(fit):
    """COCO files have no label maps of the rest, from which it would learn."""
    cfg = fit(DET, text=HTC)
    assert cfg.model.roi_head.semantic_head is None
    assert cfg.model.roi_head.semantic_roi_extractor is None
    assert not cfg.train_dataloader.dataset.pipeline[1].with_seg
    assert not cfg.custom_hooks[0].switch_pipeline[0].with_seg


def test_models_of_texts_get_the_names(fit):
    text = "train_dataloader = dict(dataset=dict(return_classes=True))"
    cfg = fit(DET, text=text)
    assert cfg.train_dataloader.dataset.return_classes
    assert "return_classes" not in cfg.val_dataloader.dataset


def test_a_config_without_hooks(fit):
    assert fit(SEG, text="default_hooks = None").default_hooks.checkpoint.save_best


@pytest.mark.parametrize("base", [DET, SEG])
def test_epochs_among_the_options(base, fit):
    """It is the length, and the schedule follows as with --epochs."""
    by_flag = fit(base, epochs=3)
    with logged() as messages:
        by_option = fit(base, ["train_cfg.max_epochs=3"], epochs=None)
    assert by_option.train_cfg == by_flag.train_cfg
    assert by_option.param_scheduler == by_flag.param_scheduler
    assert not keys(messages)


def test_options_that_the_data_replaces(fit):
    with logged() as messages:
        cfg = fit(
            SEG,
            [
                *("train_cfg.max_iters=7", "train_cfg.val_interval=9", "data_root=x"),
                *("train_dataloader.dataset.ann_file=x", "val_evaluator.type=Metric"),
                *("model.decode_head.num_classes=9", "model.decode_head.channels=16"),
                *("test_dataloader.num_workers=1", "auto_scale_lr.enable=False"),
            ],
        )
    assert keys(messages) == {
        *("train_cfg.max_iters", "train_cfg.val_interval", "data_root"),
        *("train_dataloader.dataset.ann_file", "val_evaluator.type"),
        "model.decode_head.num_classes",
    }
    assert cfg.model.decode_head.channels == 16
    assert cfg.test_dataloader.num_workers == 1
    assert not cfg.auto_scale_lr.enable


def test_a_learning_rate_of_the_command_line(fit):
    rate = "optim_wrapper.optimizer.lr=0.5"
    assert fit(SEG).auto_scale_lr.enable
    assert not fit(SEG, [rate]).auto_scale_lr.enable
    assert fit(SEG, [rate, "auto_scale_lr.enable=True"]).auto_scale_lr.enable
