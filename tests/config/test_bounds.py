"""Numbers in a config that would fill the memory are refused before any is used."""

import pytest
from mmengine.config import Config

from convnext_dense.config.checks import values
from convnext_dense.config.checks.data_errors import _coco_problem
from convnext_dense.config.checks.files import check_data
from convnext_dense.errors import InputError


def config(**more):
    loader = dict(batch_size=2, num_workers=0, dataset=dict(type="X", pipeline=[]))
    return Config(
        dict(
            model=dict(head=dict(num_classes=80)),
            train_dataloader=loader,
            train_cfg=dict(max_epochs=3),
            optim_wrapper=dict(optimizer=dict(lr=0.1)),
        )
        | more
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model.head.num_classes", 10**12),
        ("model.heads", [dict(num_classes=2), dict(num_classes=10**6)]),
        ("train_dataloader.batch_size", 10**9),
        ("train_dataloader.num_workers", 10**6),
        ("train_cfg.max_epochs", 10**30),
        ("randomness.seed", 2**32),
        (
            "train_dataloader.dataset.pipeline",
            [dict(type="Resize", scale=(10**9,) * 2)],
        ),
        ("train_dataloader.dataset.pipeline", [dict(type="Pad", size=(10**9, 32))]),
        ("train_dataloader.dataset.pipeline", [[dict(crop_size=10**9)]]),
        ("model.data_preprocessor", dict(size=(512, 10**9))),
    ],
)
def test_numbers_that_are_too_large(setting, value):
    cfg = config()
    values.check(cfg, ["train"])
    cfg.merge_from_dict({setting: value})
    with pytest.raises(InputError, match="give a "):
        values.check(cfg, ["train"])


@pytest.mark.parametrize(
    "step",
    [
        dict(type="Resize", scale=(10**7, 640)),  # the shorter side is 640
        dict(type="Resize", scale=(1333, float("inf"))),
        dict(type="Resize", scale=None, scale_factor=0.5),
        dict(type="Pad", size=None, size_divisor=32),
        dict(type="RandomResize", scale=[(1333, 480), (1333, 800)]),
    ],
)
def test_scales_that_toolboxes_use(step):
    cfg = config()
    cfg.train_dataloader.dataset.pipeline = [step]
    values.check(cfg, ["train"])


def test_data_that_is_a_device():
    loader = dict(dataset=dict(type="CocoDataset", ann_file="/dev/zero"))
    with pytest.raises(InputError, match="/dev/zero is a device"):
        check_data(loader, "train")


def test_categories_without_names(tmp_path):
    """Reading a config's file says what is wrong with it, whatever it holds."""
    file = tmp_path / "a.json"
    file.write_text(
        '{"images": [1], "annotations": [], "categories": [5, {"name": ["a"]}]}'
    )
    assert "its own are none" in _coco_problem(file, ("cat",))
