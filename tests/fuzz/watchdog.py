"""Reports what a case may not do, through Python's audit events.

The hook also stops the action: a case that would delete a folder or start a program
does not get to do it. Code in C has no audit events; for files that it writes,
``workers`` compares a folder of canaries.
"""

import dis
import os
import re
import sys
import sysconfig
import types
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any


class Forbidden(BaseException):
    """A case has tried something forbidden; the message says what.

    No ``Exception``, so that code that expects any exception from a damaged file does
    not catch it.
    """


ROOT = Path(__file__).resolve().parents[2]
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STARTS = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"),
    *("os.fork", "os.forkpty", "pty.spawn", "os.kill", "os.killpg"),
)
_NETWORK = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"),
    *("socket.sendto", "urllib.Request", "ftplib.connect", "http.client.connect"),
)
_DEBUGGERS = (
    *("ctypes.dlsym", "ctypes.call_function", "sys.settrace"),
    *("code.__new__", "function.__new__"),
)
# The positions of the paths among an event's arguments.
_CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate"), (0,)),
    **dict.fromkeys(("os.chmod", "os.chown", "os.utime", "shutil.rmtree"), (0,)),
    **dict.fromkeys(("os.rename", "shutil.move"), (0, 1)),
    **dict.fromkeys(("os.link", "os.symlink"), (1,)),
    **dict.fromkeys(("shutil.copyfile", "shutil.copymode", "shutil.copystat"), (1,)),
    "shutil.unpack_archive": (1,),
    "shutil.make_archive": (0,),
    "os.setxattr": (0,),
    "tempfile.mkstemp": (0,),
    "tempfile.mkdtemp": (0,),
}
_BELOW_FOLDERS = {
    *("os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.rename", "os.link"),
    *("os.symlink", "os.utime", "os.chown", "shutil.rmtree"),
}
_OF_LINKS = {"os.remove", "os.rename", "os.link", "os.symlink", "os.rmdir", "os.mkdir"}
# What may be unpickled, written down again here: the fuzzer does not ask the package.
_CLASSES = re.compile(
    r"torch\.(Size|Tensor|device|[a-z]+\d+\w*|bool|float|half|double|int|long|short)"
    r"|torch\.(cuda\.)?\w*Storage|torch\.storage\.(Typed|Untyped)Storage"
    r"|torch\._utils\._rebuild_\w+|torch\.nn\.parameter\.Parameter"
    r"|torch\.serialization\._get_layout"
    r"|numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
    r"|numpy\.(dtype|ndarray|dtypes\.\w+DType)|collections\.(OrderedDict|Counter)"
    r"|collections\.defaultdict|(builtins|__builtin__)\.(set|complex|slice|bytearray)"
    r"|(builtins|__builtin__)\.(dict|list|int|float|frozenset|bytes|tuple|str|bool)"
    r"|_codecs\.encode|argparse\.Namespace|pathlib(\._local)?\.(Pure)?(Posix)?Path"
    r"|mmengine\.config\.config\.ConfigDict"
    r"|mmengine\.logging\.history_buffer\.HistoryBuffer"
    r"|mmdet\.structures\.[\w.]+|mmseg\.structures\.[\w.]+|mmengine\.structures\.\w+"
    r"\.\w+"
)
# Modules that well-behaved code imports late.
_LATE = re.compile(
    r"(encodings|PIL|numpy|convnext_dense|mmdet|mmseg|mmengine|mmcv|matplotlib|rich"
    r"|torchvision)(\..*)?"
)
# Files whose code calls exec on text that it has composed itself.
_COMPOSERS = re.compile(
    r".*/(collections/__init__|dataclasses|typing|enum|functools|ast|inspect|six|doctest"
    r"|attr/_make|torch/jit/\w+|torch/fx/\w+|torch/_jit_internal"
    r"|jinja2/environment|numpy/_core/\w+|mmengine/config/config"
    r"|mmseg/utils/class_names|mmdet/evaluation/functional/class_names"
    r"|<frozen importlib._bootstrap(_external)?>)(\.py)?"
)
# Files that start compilers and git, to write down their versions.
_ASKS_VERSIONS = re.compile(
    r".*/mmengine/utils/(version_utils|dl_utils/\w+)\.py|.*/torch/utils/collect_env\.py"
)
_OURS = tuple(
    str(Path(path).resolve())
    for path in (sysconfig.get_paths()["stdlib"], sys.prefix, ROOT, *sys.path)
    if path and Path(path).resolve() != ROOT.parent
)


class Watchdog:
    """Watches this process from now on; a process has one.

    Args:
        writable: the folders below which a case may write.
    """

    def __init__(self, writable: list[Path]):
        self._writable = [f"{os.path.realpath(path)}{os.sep}" for path in writable]
        self._watching = False
        self.reports: list[str] = []
        sys.addaudithook(self._hook)
        # importlib.import_module causes no audit event.
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def start(self) -> None:
        """Begin to watch a case."""
        self.reports = []
        self._watching = True

    def stop(self) -> list[str]:
        """Stop watching, and return what the case has done."""
        self._watching = False
        return self.reports

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Report the import of a module, as the first of Python's finders."""
        # An import statement names a module that the library's author chose.
        if self._watching and not _LATE.fullmatch(name) and not _by_statement():
            self.reports.append(f"the module {_short(name)} was imported")
            raise Forbidden(self.reports[-1])

    def _hook(self, event: str, args: tuple) -> None:
        if not self._watching:
            return
        check = _CHECKS.get(event)
        if check is None and not event.startswith("ctypes."):
            return
        self._watching = False  # the checks open and look up files themselves
        try:
            report = check(self, event, args) if check else f"{event} {args!r:.200}"
        finally:
            self._watching = True
        if report:
            self.reports.append(report)
            raise Forbidden(report)

    def _outside(self, path: Any, of_link: bool = False) -> bool:
        """Whether a path is outside of the folders that a case may write to.

        Args:
            of_link: a link counts, and not what it leads to.
        """
        if isinstance(path, int):
            return False  # a file that is open already was reported when it was opened
        try:
            folder, name = os.path.split(os.fsdecode(path))
            if of_link and name not in ("", ".", ".."):
                path = os.path.join(os.path.realpath(folder), name)
            else:
                path = os.path.realpath(os.fsdecode(path))
        except (TypeError, ValueError):
            return False  # not a path: Python raises by itself
        return path != os.devnull and not f"{path}/".startswith(tuple(self._writable))

    def _open(self, event: str, args: tuple) -> str | None:
        path, mode, flags = (*args, 0, 0)[:3]
        writes = isinstance(flags, int) and flags & _WRITING
        if isinstance(mode, str):
            writes = writes or any(letter in mode for letter in "wax+")
        if writes and self._outside(path):
            return f"a file was opened for writing: {_short(path)}"
        return None

    def _change(self, event: str, args: tuple) -> str | None:
        positions = _CHANGES[event]
        # Events of os end with the descriptors of the folders that paths start from.
        folders = args[-len(positions) :] if event in _BELOW_FOLDERS else ()
        for position, folder in zip_longest(positions, folders):
            path = args[position]
            below = isinstance(folder, int) and folder >= 0
            if below and isinstance(path, str | bytes):
                path = os.path.join(f"/proc/self/fd/{folder}", os.fsdecode(path))
            if self._outside(path, event in _OF_LINKS):
                return f"{event} of {_short(args[position])}"
        return None

    def _marshal(self, event: str, args: tuple) -> str | None:
        frame = _caller()
        if frame and frame.f_code.co_filename.startswith("<frozen importlib"):
            return None  # a compiled module
        return self._report(event, args)

    def _load(self, event: str, args: tuple) -> str | None:
        # A library of a package that is installed.
        path = args[0] if args and isinstance(args[0], str) else ""
        return None if path.startswith(_OURS) else self._report(event, args)

    def _start(self, event: str, args: tuple) -> str | None:
        frame = _caller()
        while frame:
            if _ASKS_VERSIONS.fullmatch(frame.f_code.co_filename):
                return None
            frame = frame.f_back
        return self._report(event, args)

    def _report(self, event: str, args: tuple) -> str:
        return f"{event} {_short(args)}"

    def _exec(self, event: str, args: tuple) -> str | None:
        code = args[0]
        name = code.co_filename if isinstance(code, types.CodeType) else ""
        if name.startswith(("<frozen", *_OURS)):
            return None
        frame = _caller()
        if frame and _COMPOSERS.fullmatch(frame.f_code.co_filename):
            return None
        return f"exec of the code {_short(getattr(code, 'co_names', code))}"

    def _find_class(self, event: str, args: tuple) -> str | None:
        name = ".".join(map(str, args[:2]))
        if _CLASSES.fullmatch(name):
            return None
        return f"the pickle got {_short(name)}"


def _short(value: Any) -> str:
    return ascii(value)[:200]


def _caller() -> types.FrameType | None:
    """The frame that caused the audit event."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame


def _by_statement() -> bool:
    """Whether the module that is being imported stands in an import statement."""
    frame = _caller()
    while frame and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_code[frame.f_lasti] == _IMPORT_NAME


_IMPORT_NAME = dis.opmap["IMPORT_NAME"]


_CHECKS: dict[str, Callable[[Watchdog, str, tuple], str | None]] = {
    **dict.fromkeys((*_NETWORK, *_DEBUGGERS), Watchdog._report),
    **dict.fromkeys(_STARTS, Watchdog._start),
    **dict.fromkeys(_CHANGES, Watchdog._change),
    "ctypes.dlopen": Watchdog._load,
    "marshal.loads": Watchdog._marshal,
    "open": Watchdog._open,
    "exec": Watchdog._exec,
    "pickle.find_class": Watchdog._find_class,
}
