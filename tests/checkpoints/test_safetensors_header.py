"""The config and the classes in the header of a safetensors file."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from convnext_dense.checkpoints import read, safetensors_file, writing
from convnext_dense.errors import InputError

WEIGHTS = dict(a=torch.ones(2))


def test_config_and_classes_come_back(tmp_path):
    meta = dict(
        cfg="model = dict(type='FCN')\n",
        dataset_meta=dict(classes=("a", "é"), palette=np.uint8([[1, 2, 3]] * 2)),
        epoch=3,
        hook_msgs=dict(best_ckpt="/home/me/best.pth"),
    )
    writing.write(WEIGHTS, tmp_path / "x.safetensors", meta)
    content = read(tmp_path / "x.safetensors")
    assert content["meta"] == dict(
        cfg=meta["cfg"],
        dataset_meta=dict(classes=["a", "é"], palette=[[1, 2, 3]] * 2),
    )
    assert torch.equal(content["state_dict"]["a"], WEIGHTS["a"])


def test_weights_alone_stay_a_flat_dict(tmp_path):
    writing.write(WEIGHTS, tmp_path / "x.safetensors")
    assert read(tmp_path / "x.safetensors").keys() == {"a"}
    name = safetensors_file.META  # is allowed for a tensor
    writing.write({name: torch.ones(1)}, tmp_path / "x.safetensors")
    assert read(tmp_path / "x.safetensors").keys() == {name}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "the entry convnext_dense of its header is not JSON"),
        ("[1]", "the entry convnext_dense of its header is not an object"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"a": 1' + "0" * 5000 + "}", "a number has 5001 digits"),
    ],
)
def test_damaged_headers(tmp_path, text, says):
    metadata = {safetensors_file.META: text}
    safetensors.torch.save_file(WEIGHTS, tmp_path / "x.safetensors", metadata)
    with pytest.raises(InputError, match=rf"x\.safetensors is damaged.*{says}"):
        read(tmp_path / "x.safetensors")


def test_header_is_bounded(tmp_path):
    text = json.dumps(dict(cfg="x" * safetensors_file.MOST_HEADER))
    metadata = {safetensors_file.META: text}
    safetensors.torch.save_file(WEIGHTS, tmp_path / "x.safetensors", metadata)
    with pytest.raises(InputError, match="more than any model's"):
        read(tmp_path / "x.safetensors")
