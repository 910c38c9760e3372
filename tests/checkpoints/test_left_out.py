"""Objects beside the weights: left out and never built, and what is still refused."""

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import logging
import os
import pathlib
import pickle
import re
import sys
import time
import types
import typing
import uuid

import numpy as np
import pytest
import torch

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.checkpoints.reading import read_batch
from convnext_dense.checkpoints.unpickling import (
    Damaged,
    LeftOut,
    Refused,
    TooMuch,
    placeholders,
    unpickle,
)
from convnext_dense.errors import InputError

from ..helpers.hostile_pickle import Run
from ..helpers.mmengine_state import logged
from ..helpers.pickles import (
    call,
    dict_of,
    name,
    new,
    number,
    text,
    tuple_of,
    write_legacy,
    write_zip,
)

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


def small(**kwargs):
    return ConvNeXt(SMALL, layer_scale_init_value=1.0, **kwargs)


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    """A dataclass of a training script, with what such have."""

    lr: float = 0.1
    inside: object = None
    function: object = print


class Attributes(dict):
    """A subclass of dict, as Lightning's, easydict's or yacs'."""

    def __setstate__(self, state):
        raise AssertionError("built")


class Items(list):
    """A subclass of list."""


class Ordered(collections.OrderedDict):
    """A subclass of OrderedDict."""


class Subclass(torch.Tensor):
    """A subclass of tensors."""


def itself():
    settings = Settings()
    settings.inside = dict(settings=settings, also=[settings])
    return settings


def training():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    return [optimizer, schedule, torch.utils.data.RandomSampler([1, 2])]


def marked():
    tensor = torch.ones(2)
    tensor.mark = Settings()
    return tensor


# What is left out, and a name that the log says; None if it is read, as it is or plain.
BESIDE: dict[str, tuple[typing.Any, str | None]] = {
    "a dict's subclass": (Attributes(lr=1, inside=Attributes(a=2)), "Attributes"),
    "a list's subclass": (Items([1, Settings()]), "Items"),
    "an OrderedDict's subclass": (Ordered(a=1), "Ordered"),
    "a dataclass": (Settings(), "Settings"),
    "an object in itself": (itself(), "Settings"),
    "an enumeration's member": (Colour.RED, "Colour"),
    "keys": ({Settings: {"a": 1}, Colour.RED: 2, (Colour.RED, 1): 3}, "Colour"),
    "in a set": ({Colour.RED}, "Colour"),
    "in an array": (np.array([Colour.RED, None], object), "Colour"),
    "a namespace": (types.SimpleNamespace(a=1), "types.SimpleNamespace"),
    "optimizers and schedules": (training(), "torch.optim"),
    "a layer": (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "a class": (torch.nn.LayerNorm, "torch.nn.modules.normalization.LayerNorm"),
    "a class that is built elsewhere": (collections.OrderedDict, "OrderedDict"),
    "a type": ([int, str, type(None), list[int], list[int]], "Alias"),
    "a function of torch": (torch.nn.functional.gelu, "gelu"),
    "a function of Python": (functools.partial(print, 1), "functools.partial"),
    "dates": (
        [
            datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
            datetime.timedelta(1),
        ],
        "datetime.datetime",
    ),
    "a deque": (collections.deque([1, 2], 3), "collections.deque"),
    "a default factory": (collections.defaultdict(Settings, {1: 2}), None),
    "exact numbers": ([decimal.Decimal("1.5"), fractions.Fraction(1, 2)], "Decimal"),
    "a UUID": (uuid.UUID(int=3), "uuid.UUID"),
    "a logger": (logging.getLogger("a"), "logging"),
    "an expression": (re.compile("a+"), "re._compile"),
    "a time": (time.gmtime(0), "time.struct_time"),
    "an exception": (ValueError("a"), "ValueError"),
    "a range": (range(3), "range"),
    "an ellipsis": ([...], "Ellipsis"),
    "a path of Windows": (pathlib.PureWindowsPath("a"), "PureWindowsPath"),
    "random states": ([np.random.RandomState(1), np.random.default_rng(1)], "_ctor"),
    "a generator": (torch.Generator(), "torch._C.Generator"),
    "a sparse tensor": (torch.eye(2).to_sparse(), "_rebuild_sparse_tensor"),
    "a compressed tensor": (torch.eye(2).to_sparse_csr(), "_rebuild_sparse_tensor"),
    "a storage": (torch.ones(2).untyped_storage(), "UntypedStorage"),
    "a masked array": (np.ma.masked_array([1, 2], [0, 1]), "_mareconstruct"),
    "a tensor's attributes": (marked(), None),
    "a tensor's subclass": (torch.ones(2).as_subclass(Subclass), None),
    "a parameter": (torch.nn.Parameter(torch.ones(2)), None),
    "numbers": ([np.float32(1), torch.Size([1]), torch.device("cpu"), 1j], None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", BESIDE)
def test_objects_beside_the_weights(tmp_path, kind, monkeypatch):
    value, says = BESIDE[kind]
    weights = small().state_dict()
    for writer in ({}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": 0}):
        file = tmp_path / "a.pth"
        torch.save(dict(state_dict=weights, x=dict(y=value)), file, **writer)
        with monkeypatch.context() as patch, logged() as messages:
            patch.setitem(sys.modules, __name__, None)  # it cannot be imported
            content = checkpoints.read(file)
        assert torch.equal(content["state_dict"]["norm0.bias"], weights["norm0.bias"])
        left = [placeholder.name for _, placeholder in placeholders(content)]
        assert bool(left) == bool(messages) == (says is not None)
        if says is not None:
            assert any(says in name for name in left), left
            assert re.search(r"a\.pth: \d+ objects? that .* left out: ", messages[0])
            assert "(x)" in messages[0]


def test_quantised_tensors_beside_the_weights(tmp_path):
    quantised = getattr(torch, "quantize_per_tensor", None)
    if quantised is None:
        pytest.skip("this torch has none")
    value = quantised(torch.ones(2), 0.1, 0, torch.qint8)
    torch.save(dict(a=torch.ones(1), x=value), tmp_path / "a.pth")
    content = checkpoints.read(tmp_path / "a.pth")
    assert content["a"] == 1
    assert content["x"].name == "torch._utils._rebuild_qtensor"


def test_weights_in_a_subclass_of_dict(tmp_path):
    weights = {n: torch.full_like(w, 0.5) for n, w in small().state_dict().items()}
    for content in (
        Ordered(weights),
        Attributes(state_dict=weights),
        dict(state_dict=Ordered(weights)),
        dict(net=Attributes(model=Ordered(weights))),
    ):
        torch.save(content, tmp_path / "a.pth")
        model = small()
        checkpoints.load_pretrained(model, str(tmp_path / "a.pth"))
        assert all((w == 0.5).all() for w in model.state_dict().values())


HOSTILE = {
    # Functions are refused, wherever and however they are called.
    "a function of a library": call("some_library.run", text("x")),
    "a function of a toolbox": call("mmengine.fileio.io.load", text("x")),
    "a function of torch": call("torch.hub.load", text("x")),
    "a function of numpy": call("numpy.load", text("x")),
    "a module in a module": call("some_library.os.system", text("x")),
    "a function by getattr": tuple_of(
        call("builtins.getattr", name("torch.hub"), text("load")), text("x")
    )[1:-1]
    + b"\x85R",
    "a process": call("subprocess.Popen", text("x")),
    "a process as an instance": new("subprocess.Popen"),
    "a name alone": name("os.system"),
    "Python 2's name": name("__builtin__.eval"),
    "code": name("types.FunctionType"),
    "in a partial": call("functools.partial", name("builtins.exec")),
    "in an instance's state": new("some_library.Some") + name("os.system") + b"b",
    "in an instance's arguments": call("some_library.Some", name("shutil.rmtree")),
    "a class that is built, by getattr": call(
        "builtins.getattr", name("collections.OrderedDict"), text("fromkeys")
    ),
    "torch's function as a tensor": call(
        "torch._tensor._rebuild_from_type_v2",
        *(name("torch.load"), name("torch.Tensor"), b")", b"N"),
    ),
    "a change of a class that is left out": name("some_library.Some") + b"}b",
    "an instance that is called": new("some_library.Some") + b")R",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_code_is_refused_beside_weights(tmp_path, attack):
    pickled = dict_of(text("x") + HOSTILE[attack])
    for file in (
        write_zip(tmp_path / "a.pth", pickled),
        write_legacy(tmp_path / "b.pth", pickled),
    ):
        with pytest.raises(InputError, match=r"[ab]\.pth was not read: it asks for \w"):
            checkpoints.read(file)


class Extra(torch.nn.Module):
    """A module whose state dict has an object."""

    def get_extra_state(self):
        return Settings()


def test_what_is_used_must_be_built(tmp_path):
    """Weights, what a run goes on from, a batch, and the whole content."""
    file = tmp_path / "a.pth"
    named = re.escape(f"{__name__}.Settings")
    torch.save(dict(state_dict=torch.nn.ModuleList([Extra()]).state_dict()), file)
    from mmengine.runner import CheckpointLoader

    with pytest.raises(InputError, match=rf"state_dict\.0\._extra_state is a {named}"):
        CheckpointLoader.load_checkpoint(str(file))
    meta = dict(dataset_meta=dict(classes=["a", Settings()]))
    torch.save(dict(state_dict={}, meta=meta), file)
    with pytest.raises(InputError, match=rf"dataset_meta\.classes\.1 is a {named}"):
        CheckpointLoader.load_checkpoint(str(file))
    torch.save(dict(batch=[Settings()]), file)
    with pytest.raises(InputError, match=rf"asks for {named}"):
        read_batch(str(file))
    torch.save(dict(batch=[collections.OrderedDict]), file)
    with pytest.raises(InputError, match=r"batch\.0 is a collections\.OrderedDict"):
        read_batch(str(file))
    for content in (Settings(), [Settings()], (1, {1: Settings()})):
        torch.save(content, file)
        with pytest.raises(InputError, match=rf"asks for {named}"):
            checkpoints.read(file)


def test_an_object_under_a_parameter_s_name_is_one_of_the_weights(tmp_path):
    """Left out, the parameter would stay random."""
    file = tmp_path / "a.pth"
    torch.save({**small().state_dict(), "norm3.weight": Settings()}, file)
    model = small(init_cfg=dict(type="Pretrained", checkpoint=str(file)))
    with pytest.raises(InputError, match=r"its norm3\.weight is a .*Settings, which"):
        model.init_weights()


def test_a_run_goes_on_from_data_only(tmp_path):
    from ..helpers.hostile_checkpoints import toy_runner

    toy_runner(tmp_path).train()
    file = tmp_path / "epoch_1.pth"
    content = torch.load(file, weights_only=False)
    content["message_hub"]["runtime_info"]["x"] = Settings()
    torch.save(content, file)
    runner = toy_runner(tmp_path, epochs=2)
    with pytest.raises(
        InputError,
        match=r"epoch_1\.pth was not used: its message_hub\.runtime_info\.x "
        r"is a .*Settings, which is not built",
    ):
        runner.resume(str(file))


def test_conversion_keeps_no_placeholder(tmp_path, tool):
    model = torch.nn.ModuleDict(dict(backbone=small(), neck=torch.nn.Linear(2, 2)))
    meta = dict(epoch=1, dataset_meta=dict(classes=["a"]), mine=Settings())
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / "a.pth")
    done = tool("convert_checkpoint", "a.pth", "b.pth", "--to", "native")
    assert done.code == 0, done.err
    read = torch.load(tmp_path / "b.pth", weights_only=True)
    assert read["meta"] == dict(epoch=1, dataset_meta=dict(classes=["a"]))


def test_a_placeholder_is_neither_written_nor_copied():
    left, _ = unpickle(dict_of(text("x") + new("some_library.Some")) + b".")
    assert isinstance(left["x"], LeftOut)
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"some_library\.Some was left out"):
            use(left["x"])


BOUNDS = {
    # What instances of unknown classes could hide.
    "twice in twice in ...": b"}q\x00"
    + (new("a.B") + text("a") + b"h\x00s" + text("b") + b"h\x00sq\x00") * 40,
    "a dict in itself": b"}q\x00" + text("a") + new("a.B") + text("b") + b"h\x00ss",
    "a deep dict": (new("a.B") + text("a"))
    + (b"}" + text("a")) * 200
    + b"N"
    + b"s" * 201,
    "a large state again and again": b"]("
    + b"K\x01" * 100_000
    + b"eq\x00"
    + b"0]("
    + (new("a.B") + b"h\x00b") * 1000
    + b"e",
}


@pytest.mark.parametrize("attack", BOUNDS)
def test_instances_have_the_bounds_of_data(attack):
    start = time.process_time()
    with pytest.raises((Damaged, Refused, TooMuch)):
        unpickle(dict_of(text("x") + BOUNDS[attack]) + b".")
    assert time.process_time() - start < 20


def test_what_is_dropped_takes_no_time():
    """Exponential sharing, and circles, in a state that nobody reads."""
    shared = b")" + b"q\x00h\x00\x86" * 60
    circle = b"]q\x01h\x01a"
    pickled = dict_of(
        text("x") + new("a.B") + shared + b"b",
        text("y") + call("a.B", shared, circle),
        text("z") + new("a.B") + b"(" + shared + circle + b"e",
        text("n") + name("a.B") + b")" + dict_of(text("k") + number(1)) + b"\x92",
    )
    content, _ = unpickle(pickled + b".")
    assert [type(value) for value in content.values()] == [LeftOut] * 4


def test_hostile_files_still_run_nothing(tmp_path):
    """A real hostile object inside objects that would be left out."""
    mark = tmp_path / "mark"
    inside = Settings(inside=[Attributes(x=Run(os.mkdir, str(mark)))])
    torch.save(dict(state_dict=small().state_dict(), x=inside), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"asks for posix\.mkdir"):
        checkpoints.read(tmp_path / "a.pth")
    assert not mark.exists()
