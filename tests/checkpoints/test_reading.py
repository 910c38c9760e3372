"""Reading files: what training writes, what would do harm, what is broken."""

import argparse
import json
import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.errors import InputError

from ..helpers.hostile_pickle import Run
from ..helpers.mmengine_state import logged

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
        cfg=ConfigDict(classes=("a", "b"), nested=dict(x=1)),
        path=Path("work_dirs/a"),
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_training_writes(tmp_path, zipped):
    content, file = everything(), tmp_path / "a.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    loaded = checkpoints.read(file)
    assert loaded.keys() == content.keys()
    for key, value in content.items():
        assert equal(value, loaded[key]) if key != "args" else value == loaded[key], key
    assert loaded["message_hub"]["log_scalars"]["loss"].mean() == 1.5


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_reads_a_path_that_any_python_wrote(tmp_path, module):
    pickled = pickle.dumps(Path("a"), 0).replace(b"pathlib._local", b"pathlib")
    pickled = pickled.replace(b"pathlib", module.encode())
    torch.save(dict(args=1), tmp_path / "a.pth")
    replace_pickle(tmp_path / "a.pth", pickled)
    assert checkpoints.read(tmp_path / "a.pth") == Path("a")


def replace_pickle(file, content):
    """In the zip archive that torch has written."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (data,) = [name for name in entries if name.endswith("data.pkl")]
    with zipfile.ZipFile(file, "w") as archive:
        for name, before in entries.items():
            archive.writestr(name, content if name == data else before)


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
    "a file that is mapped into memory": lambda at: Run(
        torch.UntypedStorage.from_file, at, False, 8
    ),
    "numpy's own functions": lambda at: Run(np.savetxt, at, [1.0]),
    "a download": lambda at: Run(torch.hub.load_state_dict_from_url, "file:///x"),
    "another unpickler": lambda at: Run(pickle.loads, pickle.dumps(Run(os.mkdir, at))),
}


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("through_mmengine", [True, False])
def test_hostile_files_run_nothing(tmp_path, attack, zipped, through_mmengine):
    mark, file = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save(HOSTILE[attack](str(mark)), file, _use_new_zipfile_serialization=zipped)
    read = CheckpointLoader.load_checkpoint if through_mmengine else checkpoints.read
    with pytest.raises(
        InputError, match=r"evil\.pth was not read: it asks for \w+.*--trust-checkpoint"
    ) as e:
        read(str(file))
    print(f"{attack}: {e.value}")
    assert not mark.exists()
    named = r"posix\.mkdir|\w+\.eval|getattr|StorageBase|savetxt|hub|pickle"
    assert re.search(rf"asks for \S*({named})", str(e.value))


@pytest.mark.parametrize(
    "give",
    [
        lambda file: ConvNeXt(
            SMALL, init_cfg=dict(type="Pretrained", checkpoint=str(file))
        ).init_weights(),
        lambda file: load_checkpoint(small(), str(file)),
        lambda file: checkpoints.read(file.with_name("a.json")),
    ],
    ids=["init_cfg", "load_from", "a shard"],
)
def test_hostile_files_wherever_they_are_given(tmp_path, give):
    mark, file = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save(dict(state_dict=Run(os.mkdir, str(mark))), file)
    index = dict(weight_map={"stages.0.0.gamma": "evil.pth"})
    (tmp_path / "a.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"asks for posix\.mkdir"):
        give(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [("torch", "UntypedStorage.from_file"), ("collections", "OrderedDict.fromkeys")],
)
def test_attributes_of_what_is_allowed_are_refused(tmp_path, module, name):
    """Protocol 4 can name an attribute of a class: by hand, as Python does not."""

    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode()

    file = tmp_path / "evil.pth"
    torch.save({}, file)
    named = text(module) + text(name) + b"\x93"
    replace_pickle(file, b"\x80\x04" + named + text("mark") + b"\x85R.")
    with pytest.raises(InputError, match=rf"asks for {module}\.{re.escape(name)}"):
        checkpoints.read(file)


def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.rand(1, 2)).save(tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"asks for torch\.jit.*TorchScript program"):
        checkpoints.read(tmp_path / "a.pt")


def test_trust_lets_it_run(tmp_path, monkeypatch):
    mark, file = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save(dict(a=Run(os.mkdir, str(mark)), b=3), file)
    monkeypatch.setenv(checkpoints.TRUST, "1")
    with logged() as messages:
        assert checkpoints.read(file)["b"] == 3
    assert mark.exists()
    assert "evil.pth is trusted and may run code" in messages[0]
    monkeypatch.setenv(checkpoints.TRUST, "0")
    mark.rmdir()
    with pytest.raises(InputError):
        checkpoints.read(file)
    assert not mark.exists()


def test_the_hostile_files_would_run(tmp_path):
    """The test above proves something: unrestricted, the same file does harm."""
    mark, file = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save(HOSTILE["nested"](str(mark)), file)
    torch.load(file, weights_only=False)
    assert mark.exists()


BROKEN = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "its end is missing": lambda data: data[:-100],
    "text": lambda data: b"<html>not found</html>",
    "another pickle": lambda data: pickle.dumps([1, 2, 3]),
    "a Git LFS pointer": lambda data: b"version https://git-lfs.github.com/spec/v1\n",
    "a pickle's opcodes at random": lambda data: b"\x80\x02" + bytes(range(40, 120)),
}


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_broken_files(tmp_path, damage, suffix):
    file = tmp_path / f"a.{suffix}"
    save(small().state_dict(), file)
    checkpoints.read(file)
    file.write_bytes(BROKEN[damage](file.read_bytes()))
    with pytest.raises(
        InputError, match=rf"a\.{suffix} is damaged or not a checkpoint: \S"
    ) as e:
        checkpoints.read(file)
    print(f"{damage}, .{suffix}: {e.value}")
    assert ("it is empty" in str(e.value)) == (damage == "empty")
    if suffix == "pth":
        cut = damage in ("truncated", "its end is missing")
        assert ("it is cut short" in str(e.value)) == cut


def save(weights, file):
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(dict(weights), file)
    else:
        torch.save(weights, file)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*nowhere\.pth"):
        checkpoints.read(tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match=r"a folder, without model\.safetensors"):
        checkpoints.read(tmp_path)
    with pytest.raises(InputError, match=r"ftp://.*no file backend for ftp"):
        checkpoints.read("ftp://host/a.pth")
    with pytest.raises(InputError, match=r"s3://.*could not be opened"):
        checkpoints.read("s3://bucket/a.pth")


def test_mmengines_file_backends(tmp_path, monkeypatch):
    """s3:// and whatever else is registered, pickled or safetensors."""
    weights = small().state_dict()
    for name in ("a.pth", "a.safetensors"):
        save(weights, tmp_path / name)
        monkeypatch.setattr(
            "mmengine.fileio.get",
            lambda path, name=name: (tmp_path / name).read_bytes(),
        )
        loaded = CheckpointLoader.load_checkpoint(f"s3://bucket/{name}")
        assert equal(dict(loaded), dict(weights))


def shard(tmp_path, weights):
    names = list(weights)
    halves = {"1.safetensors": names[::2], "2.safetensors": names[1::2]}
    for file, half in halves.items():
        save({name: weights[name] for name in half}, tmp_path / file)
    index = {name: file for file, half in halves.items() for name in half}
    content = json.dumps(dict(metadata={}, weight_map=index))
    (tmp_path / "model.safetensors.index.json").write_text(content)


def test_shards(tmp_path):
    weights = small().state_dict()
    shard(tmp_path, weights)
    for source in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert equal(checkpoints.read(source), dict(weights))
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(
        InputError,
        match=r"index\.json names 2 files and 1 of them is missing: 2\.safetensors",
    ):
        checkpoints.read(tmp_path)
    (tmp_path / "1.safetensors").write_bytes(b"")
    save({}, tmp_path / "2.safetensors")
    with pytest.raises(InputError, match=r"1\.safetensors is damaged"):
        checkpoints.read(tmp_path)


def test_shards_that_are_none(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for name, says in (
        (index.name, "is damaged or not a checkpoint"),  # itself
        ("a.bin", "holds a list, not weights"),
    ):
        index.write_text(json.dumps(dict(weight_map=dict(a=name))))
        torch.save([1], tmp_path / "a.bin")
        with pytest.raises(InputError, match=rf"{re.escape(name)} {says}"):
            checkpoints.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ("[]", "it has no weight_map"),
        ('{"weight_map": ["a"]}', "it has no weight_map"),
        ('{"weight_map": {}}', "names shards that are not files beside it: none"),
        ('{"weight_map": {"a": "../b"}}', r"not files beside it: \.\./b$"),
        ('{"weight_map": {"a": 3}}', "not files beside it: 3$"),
        ('{"weight_map": {"a": [3]}}', r"not files beside it: \[3\]$"),
        ('{"weight_map": {"a": "\\u0000"}}', "not files beside it: "),
        (f'{{"weight_map": {{"a": "{"b" * 5000}"}}}}', "1 of them is missing: bbb"),
    ],
)
def test_an_index_that_is_none(tmp_path, content, says):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=rf"index\.json.*{says}"):
        checkpoints.read(tmp_path)


@pytest.mark.skipif(
    not hasattr(torch.serialization, "set_crc32_options"), reason="an older torch"
)
def test_files_without_checksums_are_read(tmp_path):
    """As some write them, to be quicker."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(weight=torch.ones(3)), tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoints.read(tmp_path / "a.pth")["weight"].sum() == 3
