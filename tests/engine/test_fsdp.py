"""FSDP: sharded models train like whole models and write whole checkpoints."""

import json
import re

import pytest
import torch

from convnext_dense.config.options import load_config
from convnext_dense.engine.build import build_model
from convnext_dense.engine.machine import fit_to_machine

from ..helpers.in_processes import pair
from ..helpers.paths import ROOT
from ..helpers.runs import NO_WORKERS, SEG

RECIPES = sorted(ROOT.glob("configs/*/*_fsdp.py"))

# Layer decay and weight decay, a gradient that is clipped; an evaluation in which one
# process needs more forward passes than the other.
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['convnext_dense', 'tests.helpers.in_processes'])
model = dict(
    data_preprocessor=dict(size=(96, 96)),
    decode_head=dict(norm_cfg=None, dropout_ratio=0),
    auxiliary_head=dict(norm_cfg=None, dropout_ratio=0),
    test_cfg=dict(mode='slide', crop_size=(96, 96), stride=(64, 64)))
optim_wrapper = dict(
    clip_grad=dict(max_norm=0.1),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.7, decay_type='layer_wise'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeByNumber', scales=[(96, 96), (160, 160)]),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=3, val_interval=2)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=-1))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shapes_root):
    """The folder of four runs, and the output of rank 0.

    The runs are: ddp; page, with FSDP; resumed, with FSDP from the middle of ddp; and
    back, with DDP from the middle of page.
    """
    folder = tmp_path_factory.mktemp("fsdp")
    plain, sharded = folder / "plain.py", folder / "sharded.py"
    plain.write_text(CONFIG.format(base=str(SEG)))
    sharded.write_text(f"_base_ = ['plain.py', '{ROOT / 'configs/_base_/fsdp.py'}']\n")
    torch.manual_seed(0)
    model = build_model(load_config(str(plain)), "cpu")
    torch.save(model.state_dict(), folder / "start.pth")
    options = ["--cfg-options", *NO_WORKERS, f"data_root={shapes_root}"]
    same = f"load_from={folder / 'start.pth'}"
    said, _ = pair(
        [
            ["train", plain, "--work-dir", "ddp", *options, same],
            ["train", sharded, "--work-dir", "page", *options, same],
            [
                *("train", sharded, "--work-dir", "resumed"),
                *("--resume", folder / "ddp/iter_2.pth", *options),
            ],
            [
                *("train", plain, "--work-dir", "back"),
                *("--resume", folder / "page/iter_2.pth", *options),
            ],
        ],
        folder,
    )
    return folder, said


def losses(folder):
    (log,) = folder.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows if "lr" in row]


def test_losses_and_gradients_are_ddps(runs):
    folder, _ = runs
    whole, sharded, *resumed = (
        losses(folder / name) for name in ("ddp", "page", "resumed", "back")
    )
    assert [step for step, *_ in whole] == [1, 2, 3]
    assert whole[0][2] > 0.1  # clipped
    for expected, row in zip(whole, sharded, strict=True):
        print(expected, row)
        assert row == pytest.approx(expected, rel=1e-4)
    for rows in resumed:
        assert rows == [pytest.approx(whole[2], rel=1e-4)]


def test_checkpoints_are_whole(runs):
    """They have the tensors, groups and optimizer state of DDP's, up to rounding."""
    folder, _ = runs
    ddp, fsdp, resumed = (
        torch.load(folder / name / "iter_3.pth", weights_only=False)
        for name in ("ddp", "page", "resumed")
    )
    for content in (fsdp, resumed):
        assert list(content["state_dict"]) == list(ddp["state_dict"])
        for name, weight in ddp["state_dict"].items():
            assert content["state_dict"][name].shape == weight.shape
            torch.testing.assert_close(
                content["state_dict"][name], weight, rtol=1e-3, atol=1e-4
            )
        optimizer, expected = content["optimizer"], ddp["optimizer"]
        assert optimizer["param_groups"] == expected["param_groups"]
        assert set(optimizer["state"]) == set(expected["state"])
        for number, state in expected["state"].items():
            assert optimizer["state"][number]["step"] == state["step"] == 3
            for key in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(
                    optimizer["state"][number][key], state[key], rtol=1e-2, atol=1e-5
                )
    decays = {group["weight_decay"] for group in ddp["optimizer"]["param_groups"]}
    assert decays == {0, 0.05}


def test_one_process_tests_what_many_trained(runs, tool, shapes_root):
    """One process replaces the FSDP of the config that trained the model."""
    folder, said = runs
    by_two = re.findall(r" mIoU: (\S+)", said)[3]
    done = tool(
        *("test", folder / "sharded.py", folder / "page/iter_3.pth"),
        *("--cfg-options", *NO_WORKERS, f"data_root={shapes_root}"),
    )
    assert done.code == 0
    assert done.out.count("one process: FSDP replaced by the whole model") == 1
    (by_one,) = re.findall(r" mIoU: (\S+)", done.out)
    assert by_one == by_two


def test_the_page_counts_whole_parameters(runs):
    folder, _ = runs
    page = (folder / "page/report.html").read_text()
    torch.manual_seed(0)
    model = build_model(load_config(str(folder / "plain.py")))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"<b>{parameters / 1e6:.1f} M</b>parameters" in page
    assert not (folder / "ddp/report.html").exists()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_are_the_rows(path):
    """FSDP changes only how the model is divided among processes."""
    row = load_config(str(path).replace("_fsdp", ""))
    cfg = load_config(str(path))
    assert cfg.strategy.type == "ConvNeXtFSDPStrategy"
    fit_to_machine(cfg)
    fit_to_machine(row)
    changed = {key for key in {*cfg, *row} if cfg.get(key) != row.get(key)}
    assert changed == {"work_dir"}


def test_both_tasks_have_recipes_of_l_and_xl():
    assert sorted(path.stem.split("_in22k")[0] for path in RECIPES) == [
        *("cascade_mask_rcnn_convnext_l", "cascade_mask_rcnn_convnext_xl"),
        *("upernet_convnext_l", "upernet_convnext_xl"),
    ]
