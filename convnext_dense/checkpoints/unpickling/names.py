"""What stands for the names in a pickle, and for the objects that are not built.

Nothing here looks up a name. A file may hold objects of any class beside its weights,
such as Lightning's hyper-parameters. They are left out: a ``LeftOut`` takes the place
of each. Calls of functions are refused instead, because data does not need them, except
those by which libraries describe objects.
"""

import re
import sys
from collections import OrderedDict
from typing import Any, NoReturn

from torch import Tensor
from torch.nn import Parameter

from .refused import Refused


class Named:
    """A class or function that the file names."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse to be written or copied: it only stands for something else."""
        raise TypeError(f"{self.name} was left out when its file was read")


class Unknown(Named):
    """A class or function that is not on the list of what is built."""

    __slots__ = ()


class LeftOut(Named):
    """An object that is not built. Its arguments and its state are dropped.

    Args:
        name: of its class.

    Attributes:
        is_model: whether its state is that of a ``torch.nn.Module``.
        items: the tensors and dicts in it, if its class is a subclass of dict.
    """

    __slots__ = ("is_model", "items")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.is_model = False
        self.items: dict[str, Any] = {}

    def take(self, state: Any) -> None:
        """Drop a state, and note whether a module has such a state."""
        if isinstance(state, dict):
            self.is_model |= {"_parameters", "_buffers", "_modules"} <= state.keys()

    def set_item(self, key: Any, value: Any) -> None:
        """Keep an entry if it may be weights."""
        kept = (dict, OrderedDict, Tensor, Parameter, LeftOut)
        if type(key) is str and type(value) in kept:
            self.items[key] = value


# Of Python's own library: classes of data, and functions that objects refer to. Its
# other names are refused even if the file does not call them, as os.system.
_OF_PYTHON = frozenset(
    f"{module}.{name}"
    for module, names in {
        "_operator": "attrgetter getitem itemgetter",
        "array": "_array_reconstructor array",
        "builtins": "Ellipsis NotImplemented abs iter len max min object print range"
        " reversed round sorted sum type xrange",
        "collections": "ChainMap UserDict UserList UserString deque",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "functools": "partial partialmethod",
        "inspect": "_empty",
        "ipaddress": "IPv4Address IPv6Address",
        "logging": "Logger RootLogger getLogger",
        "math": "ceil cos exp floor log log10 log2 sin sqrt tanh",
        "operator": "attrgetter getitem itemgetter",
        "pathlib": "PureWindowsPath",
        "random": "Random",
        "re": "_compile compile",
        "time": "struct_time",
        "types": "GenericAlias NoneType SimpleNamespace",
        "uuid": "SafeUUID UUID",
        "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    }.items()
    for name in names.split()
)
_MODULES_OF_PYTHON = frozenset(sys.stdlib_module_names) | {
    # of Python 2, and of versions that this one no longer has
    *("__builtin__", "asynchat", "asyncore", "commands", "copy_reg", "distutils"),
    *("imp", "nturl2path", "os2", "pipes", "popen2", "smtpd", "telnetlib"),
}
_EXCEPTION = re.compile(r"builtins\.\w+(Error|Exception|Warning)")
# Functions by which libraries describe the objects that they pickle.
_DESCRIBES = re.compile(
    r"_+(pyx_)?(un)?pickle\w*|_+(ma)?reconstruct\w*|_\w+_ctor|_new_Index"
)
_DESCRIBES_IN_TORCH = (
    "torch._utils._rebuild_nested_tensor",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor",
)


def unknown(name: str) -> Unknown:
    """What stands for a name that is not on the list of what is built.

    Raises:
        Refused: it is of Python's own library, and not of data.
    """
    module = name.partition(".")[0]
    of_data = module == "typing" or name in _OF_PYTHON or _EXCEPTION.fullmatch(name)
    if module in _MODULES_OF_PYTHON and not of_data:
        raise Refused(name)
    return Unknown(name)


def left_out(called: Unknown) -> LeftOut:
    """What stands for the result of a call.

    Raises:
        Refused: a function is called, and not one that describes an object. Functions
            have names that begin with a small letter.
    """
    library, plain = called.name.partition(".")[0], called.name.rpartition(".")[2]
    is_class = plain.lstrip("_")[:1].isupper()
    describes = (
        called.name in _DESCRIBES_IN_TORCH
        if library == "torch"
        else called.name in _OF_PYTHON or _DESCRIBES.fullmatch(plain)
    )
    if not is_class and not describes:
        raise Refused(called.name)
    return LeftOut(called.name)
