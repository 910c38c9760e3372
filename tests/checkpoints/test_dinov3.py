"""The configs on DINOv3's features train on them, with the input they expect."""

import pytest
import safetensors.torch
import torch
from mmengine.config import Config

from convnext_dense.config.options import load_config
from convnext_dense.engine.runner import run

from ..helpers.paths import ROOT
from ..helpers.peers import randomised

timm = pytest.importorskip("timm")
NAME = "convnext_tiny.dinov3_lvd1689m"
CONFIGS = [
    "det/cascade_mask_rcnn_convnext_t_dinov3_coco",
    "seg/upernet_convnext_t_dinov3_ade20k",
    "seg/linear_convnext_t_dinov3_ade20k",
]
DRAWN = dict(
    det="cascade_mask_rcnn_convnext_atto_shapes", seg="upernet_convnext_atto_shapes"
)


def load(name):
    return load_config(str(ROOT / f"configs/{name}.py"))


@pytest.mark.parametrize("name", CONFIGS)
def test_input_is_normalised_as_theirs(name):
    cfg, theirs = load(name), timm.get_pretrained_cfg(NAME)
    assert cfg.weights == cfg.model.backbone.init_cfg.checkpoint == f"timm://{NAME}"
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.bgr_to_rgb
    assert preprocessor.mean == pytest.approx([255 * m for m in theirs.mean])
    assert preprocessor.std == pytest.approx([255 * s for s in theirs.std])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """timm's file, with noise."""
    file = tmp_path_factory.mktemp("dinov3") / "model.safetensors"
    model = randomised(lambda: timm.create_model(NAME))
    safetensors.torch.save_file(model.state_dict(), file)
    return file


@pytest.mark.parametrize("name", CONFIGS)
def test_trains_a_step(name, weights, shapes_root, tmp_path, capfd):
    cfg = load(name)
    task = name.split("/")[0]
    drawn = Config.fromfile(ROOT / f"configs/{task}/{DRAWN[task]}.py")
    cfg.train_dataloader = drawn.train_dataloader
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(shapes_root)
    cfg.train_dataloader.dataset.pipeline[2].scale = (96, 96)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=1)
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint = dict(
        type="CheckpointHook", by_epoch=False, interval=1, save_optimizer=False
    )
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.logger.interval = 1
    cfg.randomness = dict(seed=0)
    if task == "seg":
        cfg.model.data_preprocessor.size = (96, 96)
        for head in filter(None, (cfg.model.decode_head, cfg.model.auxiliary_head)):
            head.num_classes = 6
    else:
        heads = cfg.model.roi_head
        for head in (*heads.bbox_head, heads.mask_head):
            head.num_classes = 5
        cfg.model.train_cfg.rpn_proposal.max_per_img = 100
        for stage in cfg.model.train_cfg.rcnn:
            stage.sampler.num = 16
    cfg.model.backbone.init_cfg.checkpoint = str(weights)
    cfg.work_dir = str(tmp_path)
    run(cfg, "train")
    said = capfd.readouterr().out
    assert "model.safetensors: timm, " in said
    assert "not used: nothing" in said

    before = safetensors.torch.load_file(weights)
    after = torch.load(tmp_path / "iter_1.pth", weights_only=False)["state_dict"]
    stem, stem_before = "backbone.downsample_layers.0.0.weight", before["stem.0.weight"]
    block, theirs = "backbone.stages.3.2.pwconv2.weight", "stages.3.blocks.2.mlp.fc2"
    frozen = "linear" in name
    assert torch.equal(after[stem], stem_before) == frozen
    assert torch.equal(after[block], before[f"{theirs}.weight"]) == frozen
    assert not torch.equal(after["backbone.norm3.weight"], before["head.norm.weight"])
    assert all(tensor.isfinite().all() for tensor in after.values())
    if frozen:  # nothing but the last norm and the linear layer
        outside = {
            k for k in after if not k.startswith(("backbone.stages", "backbone.d"))
        }
        assert outside == {
            *("backbone.norm3.weight", "backbone.norm3.bias"),
            *("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"),
        }
