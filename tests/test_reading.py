"""Reading without running code, and loading with a word on what was used."""

import argparse
import os
import pickle
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.errors import InputError

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


def small(**kwargs):
    return ConvNeXt(SMALL, layer_scale_init_value=1.0, **kwargs)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, HistoryBuffer):
        return all(map(np.array_equal, a.data, b.data))
    return np.array_equal(a, b)


def everything():
    """What mmengine's checkpoints, and the authors', carry."""
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    model = small()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(1, 3, 32, 32))[3].sum().backward()
    optimizer.step()
    return dict(
        state_dict=model.state_dict(),
        ema=[torch.nn.Parameter(torch.rand(2))],
        half=torch.rand(3).half(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(milestones=Counter([3, 5]), last_step=4)],
        message_hub=dict(
            log_scalars=OrderedDict(loss=buffer),
            runtime_info=OrderedDict(iter=3, size=torch.Size([1, 2])),
            resumed_keys=OrderedDict(loss=True),
        ),
        meta=dict(seed=0, dataset_meta=dict(classes=("a", "b"), palette=[(1, 2, 3)])),
        numbers=[np.float32(1.5), np.int64(3), np.arange(6.0).reshape(2, 3)],
        args=argparse.Namespace(lr=0.1),
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_training_writes(tmp_path, zipped):
    content, file = everything(), tmp_path / "a.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    found = checkpoints.read(file)
    assert found.keys() == content.keys()
    for key, value in content.items():
        assert equal(value, found[key]) if key != "args" else value == found[key], key
    assert found["message_hub"]["log_scalars"]["loss"].mean() == 1.5


class Run:
    """A pickle that calls something when it is read."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class State(dict):
    def __reduce__(self):
        return OrderedDict, ([],), None, None, iter([("x", Run(os.mkdir, self["at"]))])


def getattr_gadget(at):
    # HistoryBuffer's methods are allowed, its module's globals are not.
    return Run(getattr, HistoryBuffer, "__init_subclass__")


HOSTILE = {
    "reduce": lambda at: Run(os.mkdir, at),
    "nested": lambda at: dict(
        state_dict=dict(weight=[torch.rand(1), Run(os.mkdir, at)])
    ),
    "in meta": lambda at: dict(meta=dict(cfg=Run(os.mkdir, at)), state_dict={}),
    "in an optimizer state": lambda at: dict(optimizer=State(at=at)),
    "eval": lambda at: Run(eval, f"__import__('os').mkdir({at!r})"),
    "method of an allowed class": lambda at: Run(getattr, np.ndarray, "tofile"),
    "private attribute": getattr_gadget,
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("through_mmengine", [True, False])
def test_hostile_files_run_nothing(tmp_path, kind, zipped, through_mmengine):
    mark, file = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save(HOSTILE[kind](str(mark)), file, _use_new_zipfile_serialization=zipped)
    read = CheckpointLoader.load_checkpoint if through_mmengine else checkpoints.read
    with pytest.raises(
        InputError, match=r"evil\.pth was not read: it asks for \w+"
    ) as e:
        read(str(file))
    assert not mark.exists()
    assert "mkdir" in str(e.value) or "eval" in str(e.value) or "attr" in str(e.value)


def test_the_hostile_files_would_run(tmp_path):
    """The test above proves something: unrestricted, the same file does harm."""
    mark, file = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save(HOSTILE["nested"](str(mark)), file)
    torch.load(file, weights_only=False)
    assert mark.exists()


BROKEN = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "text": lambda data: b"<html>not found</html>",
    "another pickle": lambda data: pickle.dumps([1, 2, 3]),
    "a pickle's opcodes at random": lambda data: b"\x80\x02" + bytes(range(40, 120)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(tmp_path, kind):
    file = tmp_path / "a.pth"
    torch.save(dict(state_dict=small().state_dict()), file)
    file.write_bytes(BROKEN[kind](file.read_bytes()))
    with pytest.raises(InputError, match=r"a\.pth is damaged or not a checkpoint"):
        checkpoints.read(file)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*nowhere\.pth"):
        checkpoints.read(tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match=r"a folder"):
        checkpoints.read(tmp_path)
    with pytest.raises(InputError, match=r"ftp://.*could not be opened"):
        checkpoints.read("ftp://host/a.pth")
    with pytest.raises(InputError, match=r"s3://.*could not be opened"):
        checkpoints.read("s3://bucket/a.pth")
