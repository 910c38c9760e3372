"""Parameters and multiply-adds: equal to the paper's tables and to counts by hand."""

import json
import re

import pytest
import torch
from mmengine.config import Config

from convnext_dense.commands.complexity.counting import measure
from convnext_dense.engine.runner import build_model
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT, SHARED

PAPER = json.loads((ROOT / "configs/paper.json").read_text())
PAPER.pop("_about")
PAPER = {name: row for name, row in PAPER.items() if "flops" in row}


def test_the_whole_zoo_is_the_papers(tool, tmp_path):
    done = tool("complexity", "--json", tmp_path / "zoo.json")
    assert done.code == 0
    rows = json.loads((tmp_path / "zoo.json").read_text())
    assert [row["config"] for row in rows] == list(PAPER)
    for row in rows:
        paper = PAPER[row["config"]]
        assert round(row["params"] / 1e6) == paper["params"]
        assert row["macs"] / 1e9 == pytest.approx(paper["flops"], rel=0.005)
        assert row["shape"] == paper["shape"]
        assert row["agrees"] is True
        line = re.search(rf"^{row['config']} .*$", done.out, re.MULTILINE)[0]
        assert f"{row['params'] / 1e6:.2f}" in line
        assert f"{row['macs'] / 1e9:.1f}" in line


@pytest.mark.skipif(not SHARED.exists(), reason="the full reference is not here")
def test_facts_are_the_full_reference():
    full = json.loads((SHARED / "reference/paper_tables.json").read_text())
    for task in ("coco", "ade20k"):
        for name, row in full[task].items():
            if not name.startswith("_"):
                shape = [800, 1280]
                if task == "ade20k":
                    shape = [640, 2560] if name.endswith("640") else [512, 2048]
                ours = {k: v for k, v in PAPER[name].items() if k != "weights"}
                assert ours == {**row, "shape": shape}
    assert len(PAPER) == len(full["coco"]) + len(full["ade20k"]) - 2  # two _about


def test_counts_by_hand():
    """ConvNeXt-atto alone, from its convolutions and pointwise layers."""
    cfg = Config.fromfile(ROOT / "configs/seg/upernet_convnext_atto_shapes.py")
    cfg.model.decode_head = dict(
        type="FCNHead",
        num_convs=0,
        concat_input=False,
        in_channels=40,
        in_index=0,
        channels=40,
        num_classes=2,
        norm_cfg=None,
    )
    cfg.model.auxiliary_head = None
    macs = 3 * 40 * 16 * 16 * 16 + 40 * 2 * 16 * 16  # stem, head
    for stage, depth in enumerate((2, 2, 6, 2)):
        width, area = 40 * 2**stage, (16 >> stage) ** 2
        macs += depth * area * (49 * width + 8 * width**2)
        if stage:
            macs += area * 4 * (width // 2) * width
    assert measure(cfg, (64, 64)).macs == macs


def test_other_configs_and_shapes(tool):
    """A config that is not in the paper, and shapes that are not the paper's."""
    retina = ROOT / "examples/mmdet_retinanet_convnext_t_coco.py"
    ade = ROOT / "configs/seg/upernet_convnext_t_ade20k.py"
    done = tool("complexity", retina, ade, "--shape", 256, 256)
    assert done.code == 0
    lines = done.out.splitlines()[-2:]
    assert [line.split()[:2] for line in lines] == [
        [retina.stem, "256x256"],
        [ade.stem, "256x256"],
    ]
    assert "%" not in "".join(lines)


def test_a_difference_is_reported(tool, tmp_path):
    """A config with the name of one in the paper, but another model."""
    name = "upernet_convnext_t_ade20k"
    copy = tmp_path / f"{name}.py"
    copy.write_text(
        f"_base_ = {str(ROOT / f'configs/seg/{name}.py')!r}\n"
        "model = dict(decode_head=dict(num_classes=1500))\n"
    )
    done = tool("complexity", copy)
    assert done.code == 1
    assert f"differs from the paper: {name}" in done.err
    assert "<- differs" in done.out


@pytest.mark.parametrize(
    ("shape", "says"), [((16, 64), "at least 32"), ((-1, 64), "does not take an image")]
)
def test_impossible_shapes(shape, says):
    cfg = Config.fromfile(ROOT / "configs/seg/upernet_convnext_atto_shapes.py")
    with pytest.raises(InputError, match=says):
        measure(cfg, shape)


def test_a_model_that_cannot_be_built():
    cfg = Config.fromfile(ROOT / "configs/seg/upernet_convnext_atto_shapes.py")
    cfg.model.decode_head.type = "NoSuchHead"
    with pytest.raises(InputError, match=r"NoSuchHead.*is not known"):
        measure(cfg)


def test_nothing_is_allocated():
    """The largest model's weights alone would take 1.6 GB."""
    cfg = Config.fromfile(
        ROOT / "configs/det/cascade_mask_rcnn_convnext_xl_in22k_coco.py"
    )
    assert all(p.device == torch.device("meta") for p in build_model(cfg).parameters())


def test_readme_has_the_papers_table():
    readme = (ROOT / "README.md").read_text()
    for name, row in PAPER.items():
        if "box_ap" in row:
            result = f"{row['box_ap']} box, {row['mask_ap']} mask AP"
        else:
            result = f"{row['miou_ss']} mIoU, {row['miou_ms']} with `--tta`"
        (file,) = ROOT.glob(f"configs/*/{name}.py")
        link = f"[`{name}`]({file.relative_to(ROOT)})"
        line = f"| {link} | {result} | {row['params']} M | {row['flops']} G |"
        assert line in readme
