"""Segmentation configs train two steps of real samples, and predict an image.

CI does it for a config of each method, with small models; ``make test-configs`` for
every config at its own size.
"""

import os

import pytest
import torch

from ..helpers.config_steps import train_steps
from ..helpers.paths import ROOT, SHARED

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the samples are not here")

SAMPLES = SHARED / "data/ade_sample"
TWO_IMAGES = "train_dataloader.dataset.indices=2"  # there are no more
ATTO = [40, 80, 160, 320]
# Options of a small model, by method. They change what takes time, not how it trains.
METHODS = {
    "linear_convnext_t_eupe_ade20k": [
        "model.backbone.arch=atto",
        f"model.decode_head.in_channels={ATTO[3]}",
        f"model.decode_head.channels={ATTO[3]}",
    ],
    "mask2former_convnext_t_ade20k": [
        "model.backbone.arch=atto",
        f"model.decode_head.in_channels={ATTO}",
        "model.decode_head.num_queries=20",
        "model.decode_head.pixel_decoder.encoder.num_layers=1",
        "model.decode_head.transformer_decoder.num_layers=2",
        "model.decode_head.train_cfg.num_points=200",
    ],
    "upernet_convnextv2_t_ade20k": [
        "model.backbone.arch=atto",
        f"model.decode_head.in_channels={ATTO}",
        "model.decode_head.channels=16",
        f"model.auxiliary_head.in_channels={ATTO[2]}",
    ],
}
# By the first word of a config's name.
LOSSES = {
    "linear": {"decode.loss_ce"},
    "mask2former": {"decode.loss_cls", "decode.loss_mask", "decode.d0.loss_dice"},
    "upernet": {"decode.loss_ce", "aux.loss_ce"},
}


def check(name, steps):
    """Check losses, parameters and the prediction of a config's two steps."""
    method = name.partition("_")[0]
    assert len(steps.losses) == 2
    for losses in steps.losses:
        assert LOSSES[method] <= losses.keys()
        assert all(torch.isfinite(torch.tensor(value)) for value in losses.values())
    stages = {
        parameter
        for parameter in steps.trained | steps.constant
        if parameter.startswith(("backbone.stages", "backbone.downsample_layers"))
    }
    assert steps.frozen == (stages if method == "linear" else set())
    assert steps.constant == steps.frozen
    (sample,) = steps.predictions
    labels = sample.pred_sem_seg.data
    assert labels.shape == (1, *sample.ori_shape)
    assert 0 <= labels.min() <= labels.max() < 150


@pytest.mark.parametrize("name", METHODS)
def test_a_config_of_each_method(name, tmp_path):
    options = [TWO_IMAGES, *METHODS[name]]
    check(name, train_steps(name, tmp_path / "run", SAMPLES, options, side=64))


@pytest.mark.skipif(
    "CONVNEXT_DENSE_EVERY_CONFIG" not in os.environ,
    reason="takes half an hour and 8 GB: make test-configs",
)
@pytest.mark.parametrize(
    "name",
    [
        path.stem
        for path in sorted(ROOT.glob("configs/seg/*_ade20k*.py"))
        if not path.stem.endswith("_fsdp")  # needs several processes
    ],
)
def test_every_segmentation_config(name, tmp_path):
    steps = train_steps(name, tmp_path / "run", SAMPLES, [TWO_IMAGES], side=128)
    print(name, *(f"{losses['loss']:.2f}" for losses in steps.losses))
    check(name, steps)
