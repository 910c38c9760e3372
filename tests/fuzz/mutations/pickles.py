"""Changes pickles opcode by opcode, so that most of them still run.

A pickle is a program for a stack machine. ``pickletools`` lists its opcodes, and any
opcode may follow any other, so the list can be cut, exchanged and added to. Frames only
say how much to read at once; they are left out.
"""

import pickle
import pickletools
import struct
from random import Random

from .values import INTEGERS, word

# What no checkpoint may call.
DANGEROUS = (
    *("os system", "posix system", "os popen", "subprocess Popen", "builtins eval"),
    *("builtins exec", "__builtin__ eval", "builtins open", "builtins __import__"),
    *("builtins getattr", "builtins setattr", "builtins compile", "builtins input"),
    *("builtins breakpoint", "builtins print", "builtins type", "builtins object"),
    *("os remove", "os mkdir", "os listdir", "shutil rmtree", "os _exit", "sys exit"),
    *("importlib import_module", "runpy run_path", "pickle loads", "_pickle loads"),
    *(
        "torch load",
        "torch.hub load",
        "torch.jit load",
        "torch.storage _load_from_bytes",
    ),
    *("torch.serialization load", "torch.utils.cpp_extension load", "torch.ops _x"),
    *("torch._dynamo.debug_utils x", "torch.classes x", "torch set_num_threads"),
    *("numpy load", "numpy fromfile", "numpy.core.multiarray fromfile", "numpy save"),
    *("numpy.f2py.crackfortran myeval", "numpy.testing._private.utils runstring"),
    *("numpy._core.multiarray scalar.__class__", "numpy._core._multiarray_umath array"),
    *("mmengine.config.config Config.fromstring", "mmengine.fileio.io load"),
    *("mmengine.config.config ConfigDict.__init__", "socket create_connection"),
    *("mmengine.registry.registry Registry", "mmengine.utils.misc import_modules_x"),
    *("mmengine.utils.misc import_modules_from_strings", "webbrowser open"),
    *("collections OrderedDict.update", "collections namedtuple", "functools partial"),
    *(
        "operator attrgetter",
        "operator methodcaller",
        "types FunctionType",
        "gc collect",
    ),
    *("types CodeType", "ctypes CDLL", "time sleep", "signal alarm", "os fork"),
    *("pathlib Path.unlink", "pathlib PosixPath.write_text", "pathlib PosixPath.rmdir"),
    *("convnext_dense.utils.files whole", "convnext_dense.checkpoints.writing write"),
    *("antigravity x", "this s", "turtledemo x", "pip main", "fuzz_trap x", "a b", " "),
    *("torch.Tensor __init__", "torch Tensor.__reduce_ex__", "torch.nn.Module load"),
    *("torch.distributed init_process_group", "torch.package PackageImporter"),
)
ALLOWED = (
    *("collections OrderedDict", "collections defaultdict", "collections Counter"),
    *("builtins set", "builtins slice", "builtins complex", "builtins bytearray"),
    *("__builtin__ set", "__builtin__ bytearray", "__builtin__ long", "builtins list"),
    *("torch Size", "torch Tensor", "torch device", "torch float32", "torch int64"),
    *(
        "torch FloatStorage",
        "torch LongStorage",
        "torch HalfStorage",
        "torch BoolStorage",
    ),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"),
    *("torch._utils _rebuild_parameter", "torch._utils _rebuild_sparse_tensor"),
    *("torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_qtensor"),
    *("torch._utils _rebuild_wrapper_subclass", "torch._utils _rebuild_nested_tensor"),
    *("torch._tensor _rebuild_from_type_v2", "torch.serialization _get_layout"),
    *("torch.storage UntypedStorage", "torch.storage TypedStorage"),
    *("torch.nn.parameter Parameter", "torch.cuda FloatStorage", "torch QInt8Storage"),
    *("numpy dtype", "numpy ndarray", "numpy.core.multiarray _reconstruct"),
    *("numpy._core.multiarray _reconstruct", "numpy._core.multiarray scalar"),
    *("numpy._core.numeric _frombuffer", "numpy.dtypes ObjectDType", "numpy memmap"),
    *(
        "numpy.dtypes Float32DType",
        "numpy.dtypes VoidDType",
        "numpy.dtypes StringDType",
    ),
    *("mmengine.logging.history_buffer HistoryBuffer", "argparse Namespace"),
    *("mmengine.config.config ConfigDict", "pathlib PosixPath", "pathlib Path"),
    *("_codecs encode", "pathlib._local PosixPath", "copyreg _reconstructor"),
)
_ATTRIBUTES = (
    *("__name__", "__defaults__", "__dict__", "__class__", "__code__", "__reduce__"),
    *("__setstate__", "__init__", "__module__", "dump_patches", "_storage", "dtype"),
    *("_fields", "__bases__", "statistics", "_log_history", "_statistics_methods"),
    *("flags", "names", "data", "shape", "strides", "requires_grad", "__len__", "x"),
)


def opcodes(data: bytes) -> list[bytes]:
    """The opcodes of a pickle with their arguments, without frames.

    Raises:
        ValueError: ``data`` is not a whole pickle.
    """
    listed = list(pickletools.genops(data))
    ends = [position for _, _, position in listed[1:]] + [
        listed[-1][2] + 1  # STOP has no argument
    ]
    return [
        data[position:end]
        for (opcode, _, position), end in zip(listed, ends, strict=True)
        if opcode.name != "FRAME"
    ]


def length(data: bytes) -> int:
    """Where the first pickle in ``data`` ends."""
    return max(position for _, _, position in pickletools.genops(data)) + 1


def change(data: bytes, rng: Random, times: int = 1) -> bytes:
    """Change a pickle in ``times`` places; what is no pickle stays as it is."""
    try:
        program = opcodes(data)
    except Exception:  # pickletools raises anything for damaged pickles
        return data
    for _ in range(times):
        _change_once(program, rng)
    return b"".join(program)


def _change_once(program: list[bytes], rng: Random) -> None:
    place = rng.randrange(1, max(2, len(program)))
    globals_ = [i for i, op in enumerate(program) if op[:1] in b"c\x93" and op]
    match rng.randrange(12):
        case 0 | 1 if globals_:
            place = rng.choice(globals_)
            # STACK_GLOBAL takes two texts from the stack.
            before = b"00" if program[place][:1] == b"\x93" else b""
            program[place] = before + _global(_name(rng))
        case 2 | 3 | 4:
            program.insert(place, _snippet(rng))
        case 5:
            del program[place : place + rng.choice((1, 1, 1, 2, 8))]
        case 6:
            program.insert(place, program[min(place, len(program) - 1)])
        case 7:
            other = rng.randrange(1, max(2, len(program)))
            if max(place, other) < len(program):
                program[place], program[other] = program[other], program[place]
        case 8 | 9:
            _change_argument(program, rng)
        case 10:
            program.insert(place, rng.choice(_SINGLES))
        case _:
            if program and program[0][:1] == b"\x80":
                program[0] = bytes([0x80, rng.choice((0, 1, 2, 3, 4, 5, 6, 255))])


def _change_argument(program: list[bytes], rng: Random) -> None:
    """Replace the argument of one opcode that has one."""
    places = [i for i, op in enumerate(program) if len(op) > 1 and op[:1] != b"\x80"]
    if not places:
        return
    place = rng.choice(places)
    kind = program[place][:1]
    if kind in b"KMJI\x8aL":
        program[place] = _whole_number(rng)
    elif kind in b"XU\x8c\x8dVS":
        program[place] = _text(_ATTRIBUTES[rng.randrange(len(_ATTRIBUTES))])
        if rng.random() < 0.7:
            program[place] = _text(word(rng)[:1000])
    elif kind in b"hj":
        program[place] = _memo(rng)
    else:
        argument = bytearray(program[place][1:])
        argument[rng.randrange(len(argument))] = rng.randrange(256)
        program[place] = kind + bytes(argument)


_SINGLES = tuple(
    bytes([code])
    for code in b"()}]0N.abdelostuQR\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94"
    b"\x97\x982"
)


def _name(rng: Random) -> str:
    return rng.choice(DANGEROUS if rng.random() < 0.4 else ALLOWED)


def _global(name: str) -> bytes:
    module, _, attribute = name.partition(" ")
    return f"c{module}\n{attribute}\n".encode()


def _whole_number(rng: Random) -> bytes:
    value = rng.choice(INTEGERS)
    if rng.random() < 0.05:
        return b"I" + b"9" * rng.choice((4000, 5000, 100_000)) + b"\n"
    return pickle.dumps(value, 2)[2:-1]


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _memo(rng: Random) -> bytes:
    index = rng.choice((0, 1, 2, 5, 10, 50, 255, 2**16, 2**24, 2**31, 2**32 - 1))
    return b"j" + struct.pack("<I", index)


def _argument(rng: Random) -> bytes:
    """An opcode, or a few, that push one value."""
    match rng.randrange(8):
        case 0 | 1:
            return _text(word(rng)[:300])
        case 2 | 3:
            return _whole_number(rng)
        case 4:
            return _memo(rng)
        case 5:
            return _global(_name(rng))
        case 6:
            return rng.choice((b"N", b")", b"}", b"]", b"\x88", b"2"))
        case _:
            return _text(rng.choice(_ATTRIBUTES))


def _tuple(rng: Random) -> bytes:
    return b"(" + b"".join(_argument(rng) for _ in range(rng.randrange(5))) + b"t"


def _attributes(rng: Random) -> bytes:
    return b"}" + _text(rng.choice(_ATTRIBUTES)) + _argument(rng) + b"s"


def _snippet(rng: Random) -> bytes:
    """A few opcodes that do something, and leave the stack as it was or one deeper."""
    pop = b"0" if rng.random() < 0.7 else b""
    large = rng.choice((10**5, 2**24, 2**31 - 1, 2**31, 2**40, 2**62))
    small = min(large, 2**32 - 1)
    match rng.randrange(17):
        case 0 | 1 | 2:
            return _global(_name(rng)) + _tuple(rng) + b"R" + pop
        case 3:
            state = _attributes(rng)
            if rng.random() < 0.6:
                state = b"N" + state + b"\x86"
            return _global(_name(rng)) + state + b"b" + pop
        case 4:
            return _attributes(rng) + b"b"  # on whatever is at the top
        case 5:
            return (
                _global(_name(rng)) + _tuple(rng) + b"\x81" + _tuple(rng) + b"b" + pop
            )
        case 6:
            return b"(" + _global(_name(rng)) + _argument(rng) + b"o" + pop
        case 7:
            module, _, name = _name(rng).partition(" ")
            return b"(" + _argument(rng) + f"i{module}\n{name}\n".encode() + pop
        case 8:
            kinds = ("storage", "module", "x")
            entries = [_text(rng.choice(kinds)), *(_argument(rng) for _ in range(5))]
            return b"(" + b"".join(entries[: rng.randrange(1, 7)]) + b"tQ" + pop
        case 9:
            return b"]" * rng.choice((50, 2000, 100_000)) + b"".join([b"a"]) + pop
        case 10:  # nested tuples: each holds the one before twice
            return b")" + b"2\x86" * rng.choice((20, 40, 200)) + pop
        case 11:
            return b")" + b"\x85" * rng.choice((100, 10_000, 200_000)) + pop
        case 12:  # a place in the memo far behind the last
            return b"Nr" + struct.pack("<I", small) + pop
        case 13:
            opcode = rng.choice((b"B", b"X", b"T", b"\x8b"))
            return opcode + struct.pack("<I", small)
        case 14:
            return rng.choice((b"\x8e", b"\x8d", b"\x95", b"\x96")) + struct.pack(
                "<Q", large
            )
        case 15:  # a call whose only argument asks for memory
            value = pickle.dumps(rng.choice((large, 6 * 10**9)), 2)[2:-1]
            return _global(rng.choice(ALLOWED)) + value + b"\x85R" + pop
        case _:
            dtype = _global("numpy dtype") + _text(rng.choice(("O8", "V8", "f8", "U2")))
            state = b"(" + _whole_number(rng) + _text("|") + b"NNN"
            state += _whole_number(rng) * 2 + _whole_number(rng) + b"t"
            return dtype + b"\x89\x88\x87R" + state + b"b" + pop
