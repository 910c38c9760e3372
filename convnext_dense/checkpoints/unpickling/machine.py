"""Runs the instructions of a pickle, those that data needs.

The instructions are those of Python's ``pickle`` module, protocols 0 to 5; the comments
in CPython's ``Lib/pickletools.py`` describe each. Left out are INST, OBJ and EXT1 to
EXT4, which make instances of classes and which ``pickle`` no longer writes, and the two
for buffers outside the file.
"""

import struct
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

from convnext_dense.utils.text import reason

from .limits import Limits
from .names import LeftOut, Named, Unknown, left_out
from .refused import Damaged, Refused, TooMuch
from .table import Table, Unbuilt

# A checkpoint of the largest ConvNeXt with its optimizer takes 100,000. An instruction
# takes a microsecond, and may make an object of 300 bytes.
MOST_INSTRUCTIONS = 3_000_000
# Characters of a name, or of a number in text: int() takes quadratic time.
LONGEST_WORD = 1000
LONGEST_NUMBER = 255  # bytes; Python refuses to write numbers of over 4300 digits


class _OutsideError(Exception):
    """An object outside the pickle could not be read.

    Attributes:
        error: why.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Machine:
    """Runs one pickle.

    Args:
        data: ``bytes`` or an ``mmap``.
        table: what the pickle may ask for.
        persistent: returns the objects outside the pickle that it refers to; in
            checkpoints these are storages.
        start: place of the first instruction in ``data``.

    Attributes:
        position: in ``data``; after ``run``, of the byte after the pickle.
    """

    def __init__(
        self,
        data: Any,
        table: Table,
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
    ) -> None:
        self.position = start
        self._data = data
        self._table = table
        self._persistent = persistent
        self._limits = Limits(len(data) - start)
        self._stack: list = []
        self._marks: list[int] = []  # how high the stack was at each open mark
        self._memo: dict[int, Any] = {}
        self._unbuilt = 0

    def run(self) -> Any:
        """The object that the pickle describes.

        Raises:
            Refused: the pickle asks for something that is not data.
            TooMuch: it takes more time or memory than any checkpoint of its size.
            Damaged: it is damaged.
        """
        try:
            return self._run()
        except (Damaged, Refused, TooMuch):
            raise
        except _OutsideError as outside:
            raise outside.error from outside
        except Exception as error:  # instructions in a wrong order raise anything
            raise Damaged(
                f"its pickle is damaged at byte {self.position:,} ({reason(error)})"
            ) from error

    def _run(self) -> Any:
        instructions = _INSTRUCTIONS
        for _ in range(MOST_INSTRUCTIONS):
            code = self._data[self.position]
            self.position += 1
            if code == _STOP:
                break
            instruction = instructions.get(code)
            if instruction is None:
                if code in _LEFT_OUT:
                    raise Refused(f"the pickle instruction {_LEFT_OUT[code]}")
                raise Damaged(f"{bytes([code])!r} is no instruction")
            instruction(self)
        else:
            raise TooMuch(f"its pickle has over {MOST_INSTRUCTIONS:,} instructions")
        if self._unbuilt or self._marks or len(self._stack) != 1:
            raise Damaged("its pickle ends too early")
        return self._stack[0]

    # Reading

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self.position + count
        if count < 0 or end > len(self._data):
            raise Damaged("its pickle is cut short")
        content = self._data[self.position : end]
        self.position = end
        return content

    def number(self, size: int, signed: bool = False) -> int:
        """A number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def long_number(self, size: int) -> int:
        """A number whose size is in ``size`` bytes."""
        length = self.number(size)
        if length > LONGEST_NUMBER:
            raise TooMuch(f"a number in its pickle has {length:,} bytes")
        return self.number(length, signed=True)

    def line(self) -> bytes:
        """The bytes up to the end of the line, which are skipped with it."""
        end = self._data.find(b"\n", self.position)
        content = self.take(end - self.position)
        self.position += 1
        return content

    def word(self) -> str:
        """A line with a number or a name."""
        line = self.line()
        if len(line) > LONGEST_WORD:
            raise TooMuch(f"a name or number in its pickle has {len(line)} characters")
        return line.decode()

    # The stack

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value from the stack."""
        if self._marks and len(self._stack) == self._marks[-1]:
            raise Damaged("its pickle takes more operands than it has")
        return self._stack.pop()

    def mark(self) -> None:
        """Begin a list of operands."""
        self._marks.append(len(self._stack))

    def pop_mark(self) -> list:
        """Take the operands since the last mark from the stack."""
        start = self._marks.pop()
        operands = self._stack[start:]
        del self._stack[start:]
        return operands

    def tuple_of(self, count: int) -> None:
        """Make a tuple of the last ``count`` values."""
        self.push(tuple(reversed([self.pop() for _ in range(count)])))

    # Containers

    def append(self, values: list) -> None:
        """Append to the list that is last on the stack."""
        target = self._stack[-1]
        if isinstance(target, LeftOut):
            return
        if type(target) is not list:
            raise Refused(f"an append to a {type(target).__name__}")
        target.extend(values)

    def set_items(self, items: list) -> None:
        """Set entries, given as key, value, key, ..., of the dict that is last."""
        target = self._stack[-1]
        if isinstance(target, LeftOut):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target.set_item(key, value)
            return
        if type(target) not in (dict, OrderedDict, defaultdict):
            raise Refused(f"setting an entry of a {type(target).__name__}")
        keys, values = items[::2], items[1::2]
        self._limits.check_keys(keys)
        for key, value in zip(keys, values, strict=True):
            target[key] = value

    def dict_of(self, items: list) -> None:
        """Make a dict of key, value, key, ..."""
        self.push({})
        self.set_items(items)

    def add(self, members: list) -> None:
        """Add members to the set that is last on the stack."""
        target = self._stack[-1]
        if isinstance(target, LeftOut):
            return
        if type(target) is not set:
            raise Refused(f"an addition to a {type(target).__name__}")
        self._limits.check_keys(members)
        target.update(members)

    def frozenset_of(self, members: list) -> None:
        """Make a frozenset."""
        self._limits.check_keys(members)
        self.push(frozenset(members))

    # What is remembered

    def put(self, index: int) -> None:
        """Remember the last value on the stack."""
        value = self._stack[-1]
        self._memo[index] = value
        if isinstance(value, Unbuilt):
            value.index = index

    def memoize(self) -> None:
        """Remember the last value on the stack under the next number."""
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        """Put a remembered value on the stack."""
        value = self._memo[index]
        if isinstance(value, Unbuilt):
            raise Refused("an object inside its own state")
        self.push(value)

    # Names and calls

    def name(self, module: Any, name: Any) -> None:
        """Put what the table has for a name on the stack."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("a name that is not text")
        self.push(self._table.constant(f"{module}.{name}"))

    def name_from_stack(self) -> None:
        """``name`` with operands from the stack."""
        name = self.pop()
        self.name(self.pop(), name)

    def call(self) -> None:
        """Call a function or a class."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Named) or isinstance(function, LeftOut):
            raise Refused(f"a call of a {type(function).__name__}")
        if type(arguments) is not tuple:
            raise Refused(f"{function.name} of a {type(arguments).__name__}")
        if isinstance(function, Unknown):
            value: Any = left_out(function)
        else:
            value = self._table.call(function.name, arguments, self._limits)
        self._unbuilt += isinstance(value, Unbuilt)
        self.push(value)

    def new(self) -> None:
        """Make an instance of a class. Python's machine can call no function here."""
        if isinstance(self._stack[-2], Unknown):
            self.pop()
            self.push(LeftOut(self.pop().name))
        else:
            self.call()

    def new_with_keywords(self) -> None:
        """``new`` with keyword arguments, which only an instance left out may have."""
        keywords = self.pop()
        if keywords and not isinstance(self._stack[-2], Unknown):
            raise Refused("a call with keyword arguments")
        self.new()

    def build(self) -> None:
        """Give an object its state."""
        state, value = self.pop(), self.pop()
        if isinstance(state, dict | list | tuple):
            self._limits.spend(len(state))
        if isinstance(value, Unbuilt):
            index, value = value.index, value.build(state)
            self._unbuilt -= 1
            if index is not None:
                self._memo[index] = value
        elif isinstance(value, LeftOut):
            value.take(state)
        else:
            self._table.change(value, state)
        self.push(value)

    def refer(self, reference: Any) -> None:
        """Put an object that is outside the pickle on the stack."""
        if self._persistent is None:
            raise Refused("content that is not in its pickle")
        try:
            value = self._persistent(reference)
        except Exception as error:  # not a fault of the pickle
            raise _OutsideError(error) from error
        self.push(value)


_BOOLS = {"00": False, "01": True}  # as protocols 0 and 1 write them


def _whole_number(text: str) -> int:
    return _BOOLS[text] if text in _BOOLS else int(text)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")


def _python_2_text(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:  # an array's content
        return content


def _quoted(line: bytes) -> str | bytes:
    # Protocol 0 alone writes this, and torch.save never used that: no escapes.
    if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"" or b"\\" in line:
        raise Damaged("text in its pickle is not in quotes, or has escapes")
    return _python_2_text(line[1:-1])


_STOP = ord(".")
_LEFT_OUT = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}
_INSTRUCTIONS: dict[int, Callable[[Machine], Any]] = {
    ord(code): instruction
    for code, instruction in {
        # PROTO, FRAME: they tell Python's machine what to expect
        b"\x80": lambda m: m.take(1),
        b"\x95": lambda m: m.take(8),
        # NONE, NEWTRUE, NEWFALSE
        b"N": lambda m: m.push(None),
        b"\x88": lambda m: m.push(True),
        b"\x89": lambda m: m.push(False),
        # INT, LONG, BININT, BININT1, BININT2, LONG1, LONG4, FLOAT, BINFLOAT
        b"I": lambda m: m.push(_whole_number(m.word())),
        b"L": lambda m: m.push(int(m.word().removesuffix("L"))),
        b"J": lambda m: m.push(m.number(4, signed=True)),
        b"K": lambda m: m.push(m.number(1)),
        b"M": lambda m: m.push(m.number(2)),
        b"\x8a": lambda m: m.push(m.long_number(1)),
        b"\x8b": lambda m: m.push(m.long_number(4)),
        b"F": lambda m: m.push(float(m.word())),
        b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        # UNICODE, SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
        b"V": lambda m: m.push(str(m.line(), "raw-unicode-escape")),
        b"\x8c": lambda m: m.push(_text(m.take(m.number(1)))),
        b"X": lambda m: m.push(_text(m.take(m.number(4)))),
        b"\x8d": lambda m: m.push(_text(m.take(m.number(8)))),
        # STRING, SHORT_BINSTRING, BINSTRING: Python 2's str
        b"S": lambda m: m.push(_quoted(m.line())),
        b"U": lambda m: m.push(_python_2_text(m.take(m.number(1)))),
        b"T": lambda m: m.push(_python_2_text(m.take(m.number(4)))),
        # SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
        b"C": lambda m: m.push(m.take(m.number(1))),
        b"B": lambda m: m.push(m.take(m.number(4))),
        b"\x8e": lambda m: m.push(m.take(m.number(8))),
        b"\x96": lambda m: m.push(bytearray(m.take(m.number(8)))),
        # MARK, POP, POP_MARK, DUP
        b"(": Machine.mark,
        b"0": Machine.pop,
        b"1": Machine.pop_mark,
        b"2": lambda m: m.push(m._stack[-1]),
        # EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
        b")": lambda m: m.push(()),
        b"\x85": lambda m: m.tuple_of(1),
        b"\x86": lambda m: m.tuple_of(2),
        b"\x87": lambda m: m.tuple_of(3),
        b"t": lambda m: m.push(tuple(m.pop_mark())),
        # EMPTY_LIST, LIST, APPEND, APPENDS
        b"]": lambda m: m.push([]),
        b"l": lambda m: m.push(m.pop_mark()),
        b"a": lambda m: m.append([m.pop()]),
        b"e": lambda m: m.append(m.pop_mark()),
        # EMPTY_DICT, DICT, SETITEM, SETITEMS
        b"}": lambda m: m.push({}),
        b"d": lambda m: m.dict_of(m.pop_mark()),
        b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
        b"u": lambda m: m.set_items(m.pop_mark()),
        # EMPTY_SET, ADDITEMS, FROZENSET
        b"\x8f": lambda m: m.push(set()),
        b"\x90": lambda m: m.add(m.pop_mark()),
        b"\x91": lambda m: m.frozenset_of(m.pop_mark()),
        # PUT, BINPUT, LONG_BINPUT, MEMOIZE, GET, BINGET, LONG_BINGET
        b"p": lambda m: m.put(int(m.word())),
        b"q": lambda m: m.put(m.number(1)),
        b"r": lambda m: m.put(m.number(4)),
        b"\x94": Machine.memoize,
        b"g": lambda m: m.get(int(m.word())),
        b"h": lambda m: m.get(m.number(1)),
        b"j": lambda m: m.get(m.number(4)),
        # GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, BUILD
        b"c": lambda m: m.name(m.word(), m.word()),
        b"\x93": Machine.name_from_stack,
        b"R": Machine.call,
        b"\x81": Machine.new,
        b"\x92": Machine.new_with_keywords,
        b"b": Machine.build,
        # PERSID, BINPERSID
        b"P": lambda m: m.refer(m.word()),
        b"Q": lambda m: m.refer(m.pop()),
    }.items()
}
