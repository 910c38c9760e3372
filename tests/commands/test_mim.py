"""mim finds the package's models, configs and scripts, and they say what is true."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from convnext_dense.config import shipped
from convnext_dense.config.options import load_config

from ..helpers.paths import ROOT
from ..programs import metafiles


def entries():
    """The metafiles' entry of each config, by its name."""
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    files = [yaml.safe_load((ROOT / file).read_text()) for file in index["Import"]]
    return {model["Name"]: model for file in files for model in file["Models"]}


def test_every_config_has_an_entry():
    configs = {model["Config"] for model in entries().values()}
    assert configs == {f"configs/{name}.py" for name in shipped.names()}


@pytest.mark.parametrize(
    "name",
    [
        "det/mask_rcnn_convnext_t_coco",  # DINO differs between the stacks
        "seg/upernet_convnext_t_ade20k",
        "seg/upernet_convnextv2_t_ade20k",
        "det/rtmdet_l_convnext_b_in22k_coco",
    ],
)
def test_an_entry_is_up_to_date(name):
    published = json.loads((shipped.folder() / "paper.json").read_text())
    bare = Path(name).name
    assert metafiles.entry(name, published.get(bare, {})) == entries()[bare]


def test_epochs_are_those_of_the_configs():
    for name, model in entries().items():
        length = (load_config(name).get("train_cfg") or {}).get("max_epochs")
        assert model["Metadata"].get("Epochs") == length, name


def test_published_numbers_and_weights_are_those_of_paper_json():
    published = json.loads((shipped.folder() / "paper.json").read_text())
    del published["_about"]
    for name, row in published.items():
        model = entries()[name]
        numbers = [v for r in model["Results"] for v in r["Metrics"].values()]
        assert numbers == [row[key] for key in metafiles.METRICS if key in row]
        assert model.get("Weights") == row.get("weights")


# --------------------------------------------------------------------------- with mim


def mim(*args, cwd):
    """Run mim with arguments."""
    pytest.importorskip("mim")
    return subprocess.run(
        [sys.executable, "-m", "mim", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_mim_search(tmp_path):
    arguments = ("--config", "upernet_convnext_t_ade20k", "--json", "found.json")
    done = mim("search", "convnext_dense", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads((tmp_path / "found.json").read_text())
    assert answer["ade20k/miou"] == {"upernet_convnext_t_ade20k": 46.0}


def test_mim_train_and_test(tmp_path, shapes_root):
    options = [
        f"data_root={shapes_root}",
        "train_cfg.max_iters=1",
        "train_cfg.val_interval=1",
        "default_hooks.checkpoint.interval=1",
    ]
    config = "upernet_convnext_atto_shapes.py"
    work_dir = ("--work-dir", tmp_path / "run", "--cfg-options", *options)
    done = mim("train", "convnext_dense", config, *work_dir, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    checkpoint = ("--checkpoint", tmp_path / "run/iter_1.pth")
    done = mim("test", "convnext_dense", config, *checkpoint, *work_dir, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mIoU" in done.stdout
