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
from convnext_dense.checkpoints import sources
from convnext_dense.errors import InputError

from .conftest import logged

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


def test_url_is_downloaded_once_into_torchs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    there = tmp_path / "there.pth"
    torch.save(dict(model=small().state_dict()), there)
    asked = []

    def download(url, target):
        asked.append(url)
        os.link(there, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert "model" in checkpoints.read("https://example.org/a/there.pth?x=1")
    assert asked == ["https://example.org/a/there.pth?x=1"]


@pytest.mark.parametrize("shared_disk", [True, False])
def test_another_rank_downloads_only_what_its_disk_lacks(
    tmp_path, monkeypatch, shared_disk
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(sources, "get_rank", lambda: 1)
    target, asked = tmp_path / "hub/checkpoints/a.pth", []

    def barrier():  # by then rank 0 has downloaded the file
        if shared_disk:
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.save({}, target)

    def download(url, path):
        asked.append(url)
        torch.save({}, path)

    monkeypatch.setattr(sources, "barrier", barrier)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert checkpoints.read("https://example.org/a.pth") == {}
    assert len(asked) == (0 if shared_disk else 1)


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    url = "http://127.0.0.1:9/convnext.pth"  # nobody listens there
    with pytest.raises(InputError, match=r"(?s)could not be downloaded.*init_cfg") as e:
        checkpoints.read(url)
    assert url in str(e.value)
    assert "init_cfg=None" in str(e.value)
    assert not list((tmp_path / "hub/checkpoints").iterdir())


@pytest.mark.parametrize("container", ["model", "state_dict", None])
def test_loads_the_authors_classification_checkpoint(tmp_path, container):
    """Their names, a classifier and its norm more, the output norms missing."""
    source = small()
    weights = {k: torch.rand_like(v) for k, v in source.state_dict().items()}
    weights = {k: v for k, v in weights.items() if not k.startswith("norm")}
    extra = {
        "norm.weight": torch.rand(8),
        "norm.bias": torch.rand(8),
        "head.weight": torch.rand(1000, 8),
        "head.bias": torch.rand(1000),
    }
    file = tmp_path / "convnext.pth"
    content = {**weights, **extra}
    torch.save({container: content} if container else content, file)

    model = small(init_cfg=dict(type="Pretrained", checkpoint=str(file)))
    with logged() as messages:
        model.init_weights()
    (said,) = messages
    own = model.state_dict()
    assert all(torch.equal(own[k], v) for k, v in weights.items())
    assert (own["norm3.weight"] == 1).all()
    assert f"{len(weights)} of the backbone's {len(own)} tensors used" in said
    assert "classifier head (2), classifier norm (2)" in said
    assert "norm0 (2), norm1 (2)" in said


@pytest.mark.parametrize("prefix", ["teacher.backbone.", "teacher.backbone"])
def test_prefix_picks_one_of_several(tmp_path, prefix):
    source, file = small(), tmp_path / "detector.pth"
    weights = {
        f"{who}.backbone.{k}": torch.rand_like(v)
        for k, v in source.state_dict().items()
        for who in ("student", "teacher")
    }
    torch.save(dict(state_dict={**weights, "neck.weight": torch.rand(1)}), file)
    model = small(init_cfg=dict(type="Pretrained", checkpoint=str(file), prefix=prefix))
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[f"teacher.backbone.{name}"])


def without(part):
    return lambda w: {k: v for k, v in w.items() if part not in k}


def changed(name, change):
    return lambda w: {**w, name: change(w[name])}


def of(**kwargs):
    kwargs = {"arch": SMALL, "layer_scale_init_value": 1.0, **kwargs}
    return lambda w: ConvNeXt(**kwargs).state_dict()


DEEPER = dict(depths=[1, 1, 2, 1], channels=[8, 8, 8, 8])
BROADER = dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])
MISFITS = {
    "another model": (
        lambda w: {"conv1.weight": torch.rand(1)},
        r"would start from nothing; its 1 tensors begin with conv1\.weight",
    ),
    "no weights": (lambda w: {}, r"holds no weights, only nothing"),
    "no weights, but a log": (lambda w: dict(loss=[1.0]), r"no weights, only loss"),
    "a list": (lambda w: [w], r"holds a list, not weights"),
    "another depth": (
        of(arch=DEEPER),  # every tensor of ours is there
        r"another architecture: depths \(1, 1, 2, 1\) there and \(1, 1, 1, 1\) here; "
        r"set arch=dict\(depths=\[1, 1, 2, 1\], channels=\[8, 8, 8, 8\]\)",
    ),
    "another width": (of(arch=BROADER), r"channels \(8, 16, 24, 32\) there and \(8, 8"),
    "a known arch": (of(arch="atto"), r"set arch='atto' on the backbone"),
    "GRN, and no layer scale": (
        of(use_grn=True, layer_scale_init_value=0.0),
        r"use_grn True there.*set use_grn=True and layer_scale_init_value=0\.0",
    ),
    "no layer scale": (without("gamma"), r"set layer_scale_init_value=0\.0"),
    "channels of the image": (of(in_channels=4), r"set in_channels=4"),
    "a stage is missing": (
        without("stages.2"),
        r"lacks 9 of the .*stages\.2.*not whole",
    ),
    "one tensor is missing": (without("stages.1.0.norm.bias"), r"lacks 1 of the"),
    "one shape": (
        changed("stages.1.0.gamma", lambda v: torch.rand(9)),
        r"stages\.1\.0\.gamma is \(9,\) there and \(8,\) here",
    ),
    "NaN": (
        changed("stages.3.0.pwconv1.bias", lambda v: v / 0 * 0),
        r"damaged: stages\.3\.0\.pwconv1\.bias holds NaN or infinite",
    ),
    "infinite, in half precision": (
        changed("norm2.weight", lambda v: v.bfloat16() / 0),
        r"damaged: norm2\.weight holds NaN or infinite",
    ),
    "integers": (
        changed("norm2.weight", lambda v: v.char()),
        r"norm2\.weight is torch\.int8 there",
    ),
    "two of them": (
        lambda w: {f"{p}.backbone.{k}": v for k, v in w.items() for p in ("a", "b")},
        r"holds 2 ConvNeXts, under 'a\.backbone\.', 'b\.backbone\.': name one as "
        r"init_cfg\.prefix",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit(tmp_path, case):
    weights, says = MISFITS[case]
    model, file = small(), tmp_path / "a.pth"
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.save(weights(small().state_dict()), file)
    with pytest.raises(InputError, match=rf"(?s)a\.pth.*{says}"):
        checkpoints.load_pretrained(model, str(file))
    assert equal(before, dict(model.state_dict()))


def test_stages_that_are_not_built_may_differ(tmp_path):
    """With out_indices (0, 1) the checkpoint's other stages are left alone."""
    source = ConvNeXt(DEEPER, layer_scale_init_value=1.0)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    model = small(out_indices=(0, 1))
    with logged() as messages:
        checkpoints.load_pretrained(model, str(tmp_path / "a.pth"))
    assert (
        "left there: downsample_layers (8), norm2 (2), norm3 (2), stages" in messages[0]
    )
    x = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(model(x), source(x)[:2], strict=True))


def test_other_init_cfg_is_mmengines():
    model = small(init_cfg=dict(type="Constant", layer="Conv2d", val=0.25))
    model.init_weights()
    assert (model.downsample_layers[0][0].weight == 0.25).all()


def test_grn_of_the_authors_shape(tmp_path):
    """(1, 1, 1, 4 C) in their V2 checkpoints, under ``model``."""
    source = ConvNeXt("atto", use_grn=True, out_indices=(3,))
    torch.nn.init.normal_(source.stages[2][1].grn.gamma)
    weights = {
        name: value[None, None, None] if ".grn." in name else value
        for name, value in source.state_dict().items()
    }
    torch.save(dict(model=weights), tmp_path / "v2.pt")
    checkpoint = dict(type="Pretrained", checkpoint=str(tmp_path / "v2.pt"))
    model = ConvNeXt("atto", use_grn=True, init_cfg=checkpoint)
    model.init_weights()
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(x)[3], source(x)[0])
