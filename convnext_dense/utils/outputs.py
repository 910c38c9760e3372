"""Decides whether a command may write its outputs: no input is replaced.

A command calls ``check`` before it begins to work, with all that it would write and all
that it reads. Files are compared by device and inode, so that links, hard links, ``..``
and file systems that ignore case do not hide an input.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from convnext_dense.errors import InputError

from . import files
from .text import few

_Id = tuple[int, int]  # device and inode


class Folder(NamedTuple):
    """A folder whose files are read or written, also in the folders below it.

    Attributes:
        path: the folder.
        suffixes: endings of those files in lower case, such as '.jpg'; '' stands for
            names without an ending.
    """

    path: Path
    suffixes: Sequence[str]

    def takes(self, file: str | os.PathLike) -> bool:
        """Whether a file of this name would be among the folder's files."""
        return os.path.splitext(file)[1].lower() in self.suffixes

    def files(self) -> Iterator[Path]:
        """The existing files, also behind links to folders."""
        visited: set[_Id | None] = set()
        for parent, folders, names in os.walk(self.path, followlinks=True):
            identity = _identity(parent)
            if identity in visited:  # a link leads to a folder above it
                folders.clear()
                continue
            visited.add(identity)
            for name in names:
                if self.takes(name):
                    yield Path(parent, name)


class Output(NamedTuple):
    """What a command would write.

    Attributes:
        flag: the argument that names it, such as '--out'; '' without one.
        target: the file; a ``Folder`` where the names of the files in it are not known;
            None if the user named nothing.
    """

    flag: str
    target: str | os.PathLike | Folder | None


def check(
    outputs: Iterable[Output],
    inputs: Iterable[str | os.PathLike | Folder],
    overwrite: bool,
) -> None:
    """Check that the outputs replace no input, and other files only if allowed.

    Args:
        outputs: all that the command would write.
        inputs: all that it reads: files, which need not exist, and folders. A new file
            in such a folder is refused too if it would be read from there later.
        overwrite: whether ``--overwrite`` was given: existing files may be replaced.

    Raises:
        InputError: an output is an input, exists, is a link or no regular file, or
            cannot be written; or two outputs are the same file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "a.json")
    ...     file.touch()
    ...     check([Output("--json", Path(folder, "b.json"))], [file], overwrite=False)
    ...     try:
    ...         check([Output("--json", file)], [file], overwrite=True)
    ...     except InputError:
    ...         print("refused")
    refused
    """
    outputs = list(outputs)
    names = list(_files(outputs))
    existing = [(flag, file) for flag, file in names if _exists(flag, file)]
    _check_distinct(outputs)
    inputs = list(inputs)
    _check_inputs(names, inputs, bool(existing))
    read_from = [item for item in inputs if isinstance(item, Folder)]
    for flag, target in outputs:
        if target is not None:
            _check_place(flag, target, read_from)
    for flag, file in existing:
        if os.path.islink(file):
            raise InputError(
                f"{_called(flag, file)} is a link to {os.path.realpath(file)}: name "
                "that file itself, or another file"
            )
    if existing and not overwrite:
        verb, them = ("exists", "it") if len(existing) == 1 else ("exist", "them")
        raise InputError(
            f"{_called(existing[0][0], few(file for _, file in existing))} {verb} "
            f"already: choose another place, or add --overwrite to replace {them}"
        )
    for folder in {Path(file).absolute().parent for _, file in names}:
        files.check_folder(folder, "the output's folder")


def _called(flag: str, file: str | os.PathLike) -> str:
    """An output as messages name it."""
    return f"{flag} {os.fspath(file)}".strip()


def _files(outputs: Iterable[Output]) -> Iterator[tuple[str, str | os.PathLike]]:
    """Pairs of flag and file; of folders, the files that they have already."""
    for flag, target in outputs:
        if isinstance(target, Folder):
            yield from ((flag, file) for file in target.files())
        elif target is not None:
            yield flag, target


def _place(path: str | os.PathLike) -> object:
    """What two names of one file have in common, whether it exists or not."""
    return _identity(path) or os.path.realpath(path)


def _identity(path: str | os.PathLike) -> _Id | None:
    """Device and inode of a file, behind links; None if it cannot be looked up."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null character
        return None
    return status.st_dev, status.st_ino


def _exists(flag: str, file: str | os.PathLike) -> bool:
    """Whether a file to write exists.

    Raises:
        InputError: its path cannot be looked up, it is a link to nothing, or there is
            something that is not a regular file.
    """
    called = _called(flag, file)
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        if os.path.islink(file):
            raise InputError(
                f"{called} is a link to {os.path.realpath(file)}, which does not "
                "exist: name that file itself, or another file"
            ) from None
        return False
    except (OSError, ValueError) as error:
        if isinstance(error, NotADirectoryError):
            files.check_folder(Path(file).parent, "the output's folder")  # says where
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{called} cannot be written: {why}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{called} is a folder: name a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{called} is a pipe, a device or a socket: name a file")
    return True


def _check_distinct(outputs: Iterable[Output]) -> None:
    """Raise an InputError if two arguments name the same file to write."""
    flags: dict[object, str] = {}
    for flag, target in outputs:
        if isinstance(target, Folder) or target is None:
            continue
        same = _place(target)
        if flags.setdefault(same, flag) != flag:
            raise InputError(
                f"{flags[same]} and {flag} both name {os.fspath(target)}: name two "
                "files"
            )


def _check_inputs(
    names: Sequence[tuple[str, str | os.PathLike]],
    inputs: Sequence[str | os.PathLike | Folder],
    search: bool,
) -> None:
    """Raise an InputError if an output is an input.

    Args:
        names: the outputs, with their flags.
        inputs: as in ``check``.
        search: whether an output exists, so that it can be a file of a folder.
    """
    read: dict[object, str | os.PathLike] = {}
    for item in inputs:
        if isinstance(item, Folder):
            for file in item.files() if search else ():
                read.setdefault(_identity(file), file)
        elif "\0" not in os.fspath(item):
            read.setdefault(_place(item), item)
    for flag, file in names:
        same = read.get(_place(file))
        if same is not None:
            input_name = os.fspath(same)
            which = "" if input_name == os.fspath(file) else f" ({input_name})"
            raise InputError(
                f"{_called(flag, file)} is a file that this command reads{which}: "
                "choose another place for the output"
            )


def _check_place(
    flag: str,
    target: str | os.PathLike | Folder,
    read_from: Sequence[Folder],
) -> None:
    """Raise an InputError if an output would later be read as an input."""
    name = target.path if isinstance(target, Folder) else target
    path = Path(os.path.realpath(name))
    above = {_identity(parent) for parent in path.parents}
    if isinstance(target, Folder):
        above.add(_identity(path))
    for folder in read_from:
        taken = (
            set(target.suffixes) & set(folder.suffixes)
            if isinstance(target, Folder)
            else folder.takes(path)
        )
        if taken and _identity(folder.path) in above - {None}:
            raise InputError(
                f"{_called(flag, name)} is in {folder.path}, from which this command "
                "reads such files: choose another place for the output"
            )
