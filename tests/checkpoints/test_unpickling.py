"""Pickles that alter, crash or fill this process if they are read as Python reads them.

tests/checkpoints/test_reading.py has those that call functions.
"""

import collections
import os
import pickle
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR

from convnext_dense import checkpoints
from convnext_dense.checkpoints.loading import check_finite
from convnext_dense.checkpoints.unpickling import (
    CheckpointTable,
    Refused,
    TooMuch,
    tensors,
    unpickle,
)
from convnext_dense.errors import InputError

from ..helpers.pickles import (
    call,
    dict_of,
    name,
    new,
    number,
    storage,
    tensor,
    text,
    tuple_of,
    write_legacy,
    write_zip,
)

ARRAY = call("numpy._core.multiarray._reconstruct", name("numpy.ndarray"), b"K\x00\x85",
             call("_codecs.encode", text("b"), text("latin1")))  # fmt: skip


def dtype(code="f8", order="<", rest=b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"):
    state = b"(K\x03" + text(order) + rest + b"t"
    return call("numpy.dtype", text(code), b"\x89", b"\x88") + state + b"b"


def array(dtype, shape, content):
    return ARRAY + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def raw(content):
    return b"B" + len(content).to_bytes(4, "little") + content


def state(**items):
    return dict_of(*(text(key) + value for key, value in items.items()))


SLOTS = {
    "a class": name("collections.OrderedDict"),
    "a function": name("_codecs.encode"),
    "torch.load's own check": name("torch._utils._rebuild_tensor_v2"),
    "a type of storage": name("torch.FloatStorage"),
    "a dtype of torch": name("torch.float32"),
    "a tensor": call("torch.Size", tuple_of(number(1))),
    "a list": b"]",
}


@pytest.mark.parametrize("target", SLOTS)
@pytest.mark.parametrize("slots", [True, False])
def test_nothing_imported_is_changed(target, slots):
    """BUILD sets attributes of whatever it gets, as torch's dump_patches."""
    attributes = dict_of(text("__name__") + text("/x"), text("dump_patches") + b"\x88")
    attributes = tuple_of(b"N", attributes) if slots else attributes
    before = collections.OrderedDict.__name__, torch.float32.__class__
    with pytest.raises(Refused, match="a change of a"):
        unpickle(SLOTS[target] + attributes + b"b.")
    assert (collections.OrderedDict.__name__, torch.float32.__class__) == before
    assert not hasattr(collections.OrderedDict, "dump_patches")


REFUSED = {
    # name, pickle, what the message names
    "a class as data": (name("collections.OrderedDict"), "collections.OrderedDict"),
    "a storage as data": (name("torch.FloatStorage"), "torch.FloatStorage"),
    "INST": (b"(icollections\nOrderedDict\n", "INST"),
    "OBJ": (b"(" + name("collections.OrderedDict") + b"o", "OBJ"),
    "EXT1": (b"\x82\x01", "EXT1"),
    "a buffer outside": (b"\x97", "NEXT_BUFFER"),
    "a call of text": (text("os.system") + b")R", "a call of a str"),
    "a call of a dtype": (name("torch.float32") + b")R", "a call of a dtype"),
    "named arguments": (
        name("torch.device") + b")" + state(type=text("cpu")) + b"\x92",
        "keyword arguments",
    ),
    "not a tuple": (name("collections.OrderedDict") + b"]R", "OrderedDict of a list"),
    "an append to a call": (call("argparse.Namespace") + b"K\x00a", "an append"),
    "an entry of text": (text("a") + b"K\x00K\x00s", "setting an entry"),
    "a set's member": (b"]K\x00(K\x01\x90", "an addition"),
    "a namespace's class": (
        call("argparse.Namespace") + state(__class__=text("x")) + b"b",
        "__class__",
    ),
    "zip as a codec": (
        call("_codecs.encode", text("a"), text("zip")),
        "_codecs.encode",
    ),
    "memory by number": (call("builtins.bytearray", number(6 * 10**9)), "bytearray"),
    "a size of text": (call("torch.Size", text("ab")), "torch.Size"),
    "a default factory": (
        call("collections.defaultdict", name("torch.device")),
        "defaultdict",
    ),
    "a dtype with fields": (dtype("f8", rest=tuple_of(b"K\x01") + b"NNKKK"), None),
    "a dtype of dates": (dtype("M8"), "numpy.dtype"),
    "a structured dtype": (dtype("i4,f4"), "numpy.dtype"),
    "numbers as pointers": (
        call("numpy._core.multiarray.scalar", dtype("O8"), raw(b"\0" * 8)),
        "scalar",
    ),
    "an array's subclass": (
        call("numpy._core.multiarray._reconstruct", name("torch.device"), b")", b"N"),
        "_reconstruct",
    ),
    "a history of objects": (
        new("mmengine.logging.history_buffer.HistoryBuffer")
        + state(_log_history=state(__array_interface__=state(data=b"N")))
        + b"b",
        "HistoryBuffer",
    ),
    "a history of texts": (
        new("mmengine.logging.history_buffer.HistoryBuffer")
        + state(
            _log_history=array(dtype("U1"), b"K\x01\x85", raw(b"a\0\0\0")),
            _count_history=array(dtype("i8"), b"K\x01\x85", raw(b"\0" * 8)),
        )
        + b"b",
        "HistoryBuffer",
    ),
    "an object in itself": (
        new("mmengine.logging.history_buffer.HistoryBuffer") + b"q\x00" + b"h\x00b",
        "inside its own state",
    ),
    "an address": (state(__array_interface__=state(data=b"N")), "__array_interface__"),
    "an address in a config": (
        call(
            "mmengine.config.config.ConfigDict",
            state(a=state(__cuda_array_interface__=b"N")),
        ),
        "__cuda_array_interface__",
    ),
    "an entry of a config": (
        call("mmengine.config.config.ConfigDict", b"}") + state()[1:],
        "setting an entry of a ConfigDict",
    ),
    "the source of a module": (
        tuple_of(text("module"), name("torch.nn.parameter.Parameter")),
        None,
    ),
    "key: a list's tuple": (b"}" + b"])\x86K\x00s", "as key"),
    "key: nested tuples": (
        b"}" + b"))\x86" + b"q\x00h\x00\x86" * 50 + b"K\x00s",
        "key",
    ),
}


@pytest.mark.parametrize("attack", REFUSED)
def test_what_is_not_data_is_refused(tmp_path, attack):
    pickled, named = REFUSED[attack]
    for file in (
        write_zip(tmp_path / "a.pth", pickled),
        write_legacy(tmp_path / "b.pth", pickled),
    ):
        with pytest.raises(
            InputError, match=r"[ab]\.pth (was not read|is damaged)"
        ) as e:
            checkpoints.read(file)
        assert named is None or named in str(e.value), e.value


def nested(levels):
    """A tuple of twice the same tuple of twice ..."""
    return b")" + b"q\x00h\x00\x86" * levels


TOO_MUCH = {
    "twice in twice in ...": nested(40),
    "a list in a list in ...": b"]" * 10_000 + b"a" * 9_999,
    "itself": b"]q\x00h\x00a",
    "itself, by a dict": b"}q\x00" + text("a") + b"h\x00s",
    "a large list again and again": (
        b"]("
        + b"K\x01" * 100_000
        + b"eq\x00"
        + b"0"
        + b"]("
        + (name("builtins.set") + b"h\x00\x85R") * 1000
        + b"e"
    ),
    "large bytes again and again": (
        raw(b"\0" * 800_000)
        + b"q\x00"
        + b"0"
        + dtype()
        + b"q\x01"
        + b"0"
        + b"]("
        + (ARRAY + b"(K\x01J\xa0\x86\x01\x00\x85h\x01\x89h\x00tb") * 300
        + b"e"
    ),
    "histories of the same numbers": (
        array(dtype(), b"J\xa0\x86\x01\x00\x85", raw(b"\0" * 800_000))
        + b"q\x00"
        + b"0]("
        + (
            new("mmengine.logging.history_buffer.HistoryBuffer")
            + state(_log_history=b"h\x00", _count_history=b"h\x00")
            + b"b"
        )
        * 100
        + b"e"
    ),
    "equal hashes": dict_of(
        *(number(i * (2**61 - 1)) + b"N" for i in range(1, 20_000))
    ),
    "a name": b"c" + b"a" * 10_000 + b"\nb\n",
    "a number in text": b"I" + b"9" * 10_000_000 + b"\n",
    "a number": b"\x8b" + (2000).to_bytes(4, "little") + b"1" * 2000,
    "instructions": b"N0" * 1_500_001 + b"N",
}


@pytest.mark.parametrize("attack", TOO_MUCH)
def test_what_would_take_too_long_is_refused(tmp_path, attack):
    start = time.process_time()
    with pytest.raises(InputError, match=r"is damaged or not a checkpoint: .{20}") as e:
        checkpoints.read(write_zip(tmp_path / "a.pth", TOO_MUCH[attack]))
    print(e.value)
    assert isinstance(e.value.__cause__, TooMuch)
    assert time.process_time() - start < 30  # unbounded, each takes hours


LENGTHS = {
    "bytes": b"\x8e" + (2**62).to_bytes(8, "little"),
    "bytearray": b"\x96" + (2**62).to_bytes(8, "little"),
    "text": b"\x8d" + (2**62).to_bytes(8, "little"),
    "number": b"\x8b\xff\xff\xff\x7f",
    "array": array(dtype(), number(2**40) + number(2**40) + b"\x86", raw(b"")),
    "array, negative": array(dtype(), number(-1) + b"\x85", raw(b"")),
    "array, no shape": array(dtype(), text("a"), raw(b"")),
    "number of an array": call("numpy._core.multiarray.scalar", dtype(), raw(b"abc")),
    "empty texts": array(dtype("U0"), number(2**30) + b"\x85", raw(b"")),
    "text of an array": array(dtype("U9999"), number(2**50) + b"\x85", raw(b"")),
}


@pytest.mark.parametrize("attack", LENGTHS)
def test_lengths_are_compared_with_what_there_is(attack):
    tracemalloc.start()
    with pytest.raises((ValueError, Refused, TooMuch)):
        unpickle(LENGTHS[attack] + b".")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


FOUR = np.arange(4, dtype="f4").tobytes()
TENSORS = {
    "as it is": (tensor(storage("0", 4), [2, 2], [2, 1]), None),
    "empty": (tensor(storage("0", 4), [0, 7], [2, 1], 4), None),
    "expanded": (tensor(storage("0", 4), [1000, 4], [0, 1]), None),
    "past the end": (tensor(storage("0", 4), [2, 3], [2, 1]), "larger"),
    "an offset": (tensor(storage("0", 4), [2, 2], [2, 1], 1), "larger"),
    "a negative offset": (tensor(storage("0", 4), [1], [1], -1), "no numbers"),
    "a negative stride": (tensor(storage("0", 4), [2], [-1], 3), "no numbers"),
    "a product that overflows": (
        tensor(storage("0", 4), [2**32, 2**32], [1, 1]),
        "larger",
    ),
    "sizes without end": (tensor(storage("0", 4), [1] * 65, [1] * 65), "sizes"),
    "a terabyte of one number": (tensor(storage("0", 4), [10**12], [0]), "expand"),
    "empty, and huge": (tensor(storage("0", 4), [0, 2**70], [1, 1]), "larger"),
    "of another size": (tensor(storage("0", 5), [5], [1]), "has another size"),
    "of fewer numbers": (tensor(storage("0", 3), [3], [1]), "has another size"),
    "of another dtype": (
        tensor(storage("0", 4, "torch.DoubleStorage"), [4], [1]),
        "has another size",
    ),
    "that is not there": (tensor(storage("1", 4), [4], [1]), "lacks the content"),
    "that is elsewhere": (
        tensor(storage("../data.pkl", 4), [4], [1]),
        "lacks the content",
    ),
    "of no storage": (
        tensor(storage("0", 4, "torch.device"), [4], [1]),
        "a storage of",
    ),
    "a negative size": (tensor(storage("0", -4), [4], [1]), "storages"),
    "of a number": (tensor(b"K\x01", [4], [1]), "a tensor of a int"),
}


@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("location", ["cpu", "meta"])
def test_tensors_are_compared_with_their_storages(tmp_path, case, location):
    pickled, message = TENSORS[case]
    file = write_zip(tmp_path / "a.pth", pickled, {"0": FOUR})
    if message is None:
        assert checkpoints.read(file, location).device.type == location
        return
    with pytest.raises(InputError, match=message):
        checkpoints.read(file, location)


KEYS = b"\x80\x02](" + text("0") + b"e."
LENGTH = (4).to_bytes(8, "little")
A_TENSOR = tensor(storage("0", 4), [4], [1])


@pytest.mark.parametrize(
    ("pickled", "keys", "tail", "message"),
    [
        (A_TENSOR, KEYS, LENGTH + FOUR, None),
        (A_TENSOR, None, b"", "lists other storages"),  # memory as it was before
        (A_TENSOR, KEYS, b"", "cut short"),
        (A_TENSOR, KEYS, LENGTH + FOUR[:8], "cut short"),
        (A_TENSOR, KEYS, bytes(8) + FOUR, "has another size"),
        (tensor(storage("0", 2**40), [1], [1]), KEYS, LENGTH + FOUR, "cut short"),
        (A_TENSOR, b"\x80\x02](" + text("0") * 2 + b"e.", LENGTH + FOUR, "other"),
        (A_TENSOR, b"\x80\x02N.", LENGTH + FOUR, "lists other storages"),
        (
            tuple_of(A_TENSOR, tensor(storage("0", 3), [3], [1])),
            KEYS,
            LENGTH + FOUR,
            "two sizes",
        ),
        (
            tuple_of(
                text("module"),
                name("collections.OrderedDict"),
                text("x"),
                text(""),
            )
            + b"Q",
            None,
            b"",
            "the source code of a module",
        ),
    ],
)
def test_the_old_format_is_compared_with_its_bytes(
    tmp_path, pickled, keys, tail, message
):
    file = write_legacy(tmp_path / "a.pth", pickled, keys, tail)
    if message is None:
        assert checkpoints.read(file).tolist() == [0, 1, 2, 3]
        return
    with pytest.raises(InputError, match=message):
        checkpoints.read(file)


def test_torch_load_takes_the_same_files(tmp_path):
    """The helpers write files as torch does."""
    for file in (
        write_zip(tmp_path / "a.pth", A_TENSOR, {"0": FOUR, "version": b"3"}),
        write_legacy(
            tmp_path / "b.pth",
            A_TENSOR.replace(b"tQ", b"NtQ"),
            KEYS,
            LENGTH + FOUR,
        ),
    ):
        if file.name == "a.pth":
            with zipfile.ZipFile(file, "a") as archive:
                archive.writestr("archive/version", b"3")
        assert torch.load(file, weights_only=True).tolist() == [0, 1, 2, 3]


def test_archives_that_unpack_to_more_than_their_size(tmp_path):
    bomb = write_zip(
        tmp_path / "a.pth",
        tensor(storage("0", 2**25), [1], [1]),
        {"0": bytes(2**27)},
        compression=zipfile.ZIP_DEFLATED,
    )
    tracemalloc.start()
    with pytest.raises(InputError, match="unpacks to far more than its size"):
        checkpoints.read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    rare = write_zip(
        tmp_path / "c.pth", A_TENSOR, {"0": FOUR}, compression=zipfile.ZIP_LZMA
    )
    with pytest.raises(InputError, match="compressed in a rare format"):
        checkpoints.read(rare)
    packed = write_zip(
        tmp_path / "b.pth", A_TENSOR, {"0": FOUR}, compression=zipfile.ZIP_DEFLATED
    )
    assert checkpoints.read(packed).tolist() == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_with_two_files_of_one_name(tmp_path):
    file = write_zip(tmp_path / "a.pth", A_TENSOR, {"0": FOUR})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(InputError, match="two files in it have the same name"):
        checkpoints.read(file)


def test_a_tar_archive_is_refused_with_the_way_to_convert_it(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.pth", "w") as archive:
        info = tarfile.TarInfo("sys_info")
        info.type = tarfile.FIFOTYPE
        archive.addfile(info)
    with pytest.raises(InputError, match=r"a tar archive.*torch\.load it where you"):
        checkpoints.read(tmp_path / "a.pth")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    for path in (tmp_path / "a.pth", "/dev/zero"):
        with pytest.raises(InputError, match=r"is a (pipe|device)"):
            checkpoints.read(path)
    index = tmp_path / "a.json"
    index.write_text('{"weight_map": {"a": "a.pth"}}')
    with pytest.raises(InputError, match=r"missing: a\.pth"):
        checkpoints.read(index)


def test_a_long_safetensors_header(tmp_path):
    entry = b'"%06d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    header = b"{" + b"".join(entry % i for i in range(100_000))[:-1] + b"}"
    file = tmp_path / "a.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match=r"its header has 5,800,001 bytes"):
        checkpoints.read(file)


def test_names_from_a_file_do_not_move_the_cursor(tmp_path):
    file = write_zip(tmp_path / "a.pth", name("os.\x1b[2J\x1b]0;gone\x07"))
    with pytest.raises(InputError, match=r"asks for os\.\\x1b\[2J"):
        checkpoints.read(file)


VALUES = [
    *(None, True, False, 0, -1, 255, 256, 65536, -(2**31), 2**40, -(2**70), 0.5, 1e300),
    *(
        "",
        "a",
        "\u00e9\U0001f98a",
        "line\nquote'\\",
        b"",
        b"\x00\xff",
        bytearray(b"ab"),
    ),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2, [3]]], {}, {"a": {1: 2}}),
    *({1, "a"}, frozenset([1, 2]), slice(1, None, 2), 1 + 2j, "x" * 70_000),
    *([7] * 3000, {str(i): i for i in range(3000)}, set(range(3000))),
    collections.OrderedDict(a=1, b=2),
    collections.Counter("abca"),
    collections.defaultdict(list, {"a": [1]}),
    {(1, "a"): 1, 2.5: 2},
    *(np.float32(1.5), np.int64(3), np.bool_(True), np.str_("ab"), np.complex64(1j)),
    *(np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    *(np.array(3.0), np.zeros((0, 3)), np.array(["a", "bb"]), np.array([b"a"])),
    *(np.array([True]), np.arange(3, dtype=">i4")),
    *(np.array([None, {"a": 1}], object), np.dtype("f4"), np.float16(2)),
    *(np.random.default_rng(0).bytes(70_000), np.random.RandomState(0).get_state()),
    *(HistoryBuffer([1.0, 2.0], [1, 1]), HistoryBuffer()),
    *(torch.float8_e4m3fn, torch.Size([1, 2]), torch.device("cuda:1"), torch.strided),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_reads_as_pickle_does(value, protocol):
    later = HistoryBuffer, slice, set, frozenset, bytearray, dict
    if protocol < 2 and isinstance(value, later) and type(value) is not dict:
        pytest.skip("torch.save does not write these protocols")
    data = pickle.dumps([value, value], protocol)
    (first, second), end = unpickle(data)
    assert first is second or protocol < 2 or np.isscalar(first) or not first
    assert end == len(data)
    assert type(first) is type(value)
    if isinstance(value, HistoryBuffer):
        assert vars(first).keys() >= {"_log_history", "_count_history", "max_length"}
        assert list(map(list, first.data)) == list(map(list, value.data))
        assert first.max_length == value.max_length
    elif isinstance(value, np.ndarray):
        assert (first.dtype, first.flags.f_contiguous) == (
            value.dtype,
            value.flags.f_contiguous,
        )
        np.testing.assert_array_equal(first, value)
        first[...] = 0  # its own memory
    elif isinstance(value, tuple) and len(value) == 5:
        assert pickle.dumps(first) == pickle.dumps(value)
    else:
        assert first == value


DTYPES = sorted(tensors.DTYPES.values(), key=str)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_tensors_of_each_dtype(tmp_path, dtype, zipped):
    try:
        values = torch.arange(24).to(dtype).reshape(2, 3, 4)
    except (RuntimeError, NotImplementedError):
        pytest.skip("torch cannot fill a tensor of this dtype")
    content = dict(
        plain=values,
        transposed=values.transpose(0, 2),
        part=values[1:, :, 2:],
        scalar=values[1, 2, 3],
        empty=values[:0],
        expanded=values[:1].expand(5, 3, 4),
        parameter=torch.nn.Parameter(values, requires_grad=False),
    )
    torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    loaded = checkpoints.read(tmp_path / "a")
    shared = {v.untyped_storage().data_ptr() for v in loaded.values() if v.numel()}
    assert len(shared) == 1
    for key, value in content.items():
        read = loaded[key]
        assert (type(read), read.dtype, read.shape, read.stride()) == (
            type(value),
            value.dtype,
            value.shape,
            value.stride(),
        )
        assert bytes(read.clone().untyped_storage()) == bytes(
            value.clone().untyped_storage()
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_dtype_is_checked_and_converted(dtype):
    """Of the numbers in a file, none makes torch raise an error of its own."""
    try:
        values = torch.ones(2).to(dtype)
    except (RuntimeError, NotImplementedError):
        pytest.skip("torch cannot fill a tensor of this dtype")
    check_finite({"a": values}, "x")


def test_a_dtype_of_several_numbers(tmp_path):
    file = write_zip(tmp_path / "a.pth", name("torch.float4_e2m1fn_x2"))
    with pytest.raises(InputError, match=r"asks for torch\.float4_e2m1fn_x2"):
        checkpoints.read(file)


def test_bytes_of_the_other_order(tmp_path):
    """As a machine with the other byte order writes them."""
    values = torch.arange(4.0)
    swapped = values.numpy().byteswap().tobytes()
    import sys

    other = {"little": "big", "big": "little"}[sys.byteorder]
    file = write_zip(tmp_path / "a.pth", A_TENSOR, {"0": swapped})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/byteorder", other)
    assert torch.equal(checkpoints.read(file), values)


LOCATIONS = {
    "cpu": "cpu",
    "device": torch.device("cpu"),
    "none": None,
    "function": lambda storage, location: storage,
    "function without an answer": lambda storage, location: None,
    "dict": {"cpu": "cpu"},
}


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("zipped", [True, False])
def test_locations(tmp_path, location, zipped):
    torch.save(torch.ones(3), tmp_path / "a", _use_new_zipfile_serialization=zipped)
    loaded = checkpoints.read(tmp_path / "a", LOCATIONS[location])
    assert torch.equal(loaded, torch.ones(3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_location_that_is_not_there(tmp_path):
    torch.save(torch.ones(3), tmp_path / "a")
    with pytest.raises(InputError, match="CUDA"):
        checkpoints.read(tmp_path / "a", "cuda:0")


def test_only_versions_are_taken_from_the_metadata(tmp_path):
    """With assign_to_params_buffers, torch replaces the optimizer's parameters."""
    model = torch.nn.BatchNorm2d(2)
    weights = model.state_dict()
    weights._metadata[""]["assign_to_params_buffers"] = True
    weights._metadata.update({"a": 3, "b": {"version": "2"}, "c": {"version": 1}, 4: 5})
    torch.save(dict(state_dict=weights), tmp_path / "a")
    read = checkpoints.read(tmp_path / "a")["state_dict"]
    assert read._metadata == {"": {"version": 2}, "c": {"version": 1}}
    before = model.weight
    model.load_state_dict(read)
    assert model.weight is before


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_scheduler_with_a_method(tmp_path, protocol):
    """Of mmengine's schedulers, OneCycleLR keeps a method among its values."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    before = OneCycleLR(optimizer, eta_max=0.1, total_steps=10)
    optimizer.step()
    before.step()
    torch.save(before.state_dict(), tmp_path / "a", pickle_protocol=protocol)
    after = OneCycleLR(optimizer, eta_max=0.2, total_steps=10)
    after.load_state_dict(checkpoints.read(tmp_path / "a"))
    assert (after.eta_max, after.last_step) == (0.1, 1)
    assert after.anneal_func is OneCycleLR._annealing_cos


def test_a_table_serves_one_file():
    """The counts of one file do not add up with those of the next."""
    assert CheckpointTable()._calls is not CheckpointTable()._calls
