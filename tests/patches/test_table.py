"""The table of patches names every change to other libraries, and nothing else."""

import importlib
import inspect
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.device import get_device

import convnext_dense
from convnext_dense import patches
from convnext_dense.commands.doctor import libraries
from convnext_dense.patches import (
    AT_IMPORT,
    DURING_A_RUN,
    DURING_EXPORT,
    PATCHES,
    chosen_device,
    console,
    mmcv_deform_attn,
    mmcv_ops,
    mmseg_resize,
)

from ..helpers.paths import ROOT
from ..helpers.running import shell

PACKAGE = Path(convnext_dense.__file__).parent
LASTING = [name for patch in PATCHES if patch.when == AT_IMPORT for name in patch.names]
# Replaced only if mmcv has no compiled ops.
WHERE_NOT_COMPILED = (
    mmcv_ops.NAME,
    f"{mmcv_deform_attn.MODULE}.{mmcv_deform_attn.FUNCTION}",
)
# Prints the names of mmengine and mmcv that have another value after the import.
COMPARE = """
import importlib, inspect, json, pkgutil, sys, types

# Else importing mmcv.ops imports this package.
for finder in list(sys.meta_path):
    if getattr(finder, "__module__", "") == "convnext_dense_startup":
        sys.meta_path.remove(finder)

import mmcv, mmengine

for library in (mmcv, mmengine):
    for module in pkgutil.walk_packages(library.__path__, f"{library.__name__}."):
        try:
            importlib.import_module(module.name)
        except Exception:  # needs compiled ops or a library that is not installed
            pass

def value_of(value):
    if isinstance(value, dict):
        return value, {key: id(item) for key, item in value.items()}
    if isinstance(value, (list, set)):
        return value, [id(item) for item in value]
    if inspect.isfunction(value):
        return value, id(value.__code__), value.__defaults__
    return value, id(value)

def snapshot():
    values = {}
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if name.split(".")[0] not in ("mmengine", "mmcv"):
            continue
        for attribute, value in list(vars(module).items()):
            if attribute.startswith("__") or isinstance(value, types.ModuleType):
                continue
            values[f"{name}.{attribute}"] = value_of(value)
            if inspect.isclass(value) and value.__module__ == name:
                for member, content in list(vars(value).items()):
                    if not member.startswith("__") or member == "__init__":
                        full = f"{name}.{attribute}.{member}"
                        values[full] = value_of(content)
    return values

before = snapshot()
assert len(before) > 3000
import convnext_dense
after = snapshot()
changed = [
    name
    for name in before | after
    if name not in before
    or name not in after
    or before[name][0] is not after[name][0]
    or before[name][1:] != after[name][1:]
]
print(json.dumps(changed))
"""


def resolve(name: str):
    """The value of a dotted name."""
    *path, attribute = name.split(".")
    for length in range(len(path), 0, -1):
        try:
            value = importlib.import_module(".".join(path[:length]))
        except ModuleNotFoundError:
            continue
        for step in (*path[length:], attribute):
            value = getattr(value, step)
        return value
    raise LookupError(name)


def defined_as(name: str) -> str:
    """The dotted name in the module that defines the class of a method."""
    owner, _, attribute = name.rpartition(".")
    value = importlib.import_module(owner) if owner in sys.modules else resolve(owner)
    if not inspect.isclass(value):
        return name
    return f"{value.__module__}.{value.__qualname__}.{attribute}"


def is_ours(value) -> bool:
    """Whether this package defines a function or a class."""
    return Path(inspect.getfile(value)).is_relative_to(PACKAGE)


def not_compiled() -> bool:
    return find_spec(mmcv_ops.NAME).origin == mmcv_ops.__file__


@pytest.mark.parametrize("name", [name for name in LASTING if name != mmcv_ops.NAME])
def test_each_name_of_the_table_is_ours(name):
    if name in WHERE_NOT_COMPILED and not not_compiled():
        pytest.skip("this mmcv has compiled ops")
    value = resolve(name)
    for function in value.values() if isinstance(value, dict) else [value]:
        assert is_ours(function)


def test_the_stand_ins_are_ours_where_nothing_is_compiled():
    finders = [type(finder) for finder in sys.meta_path]
    assert finders.count(mmcv_ops._Finder) == 1
    origin = find_spec(mmcv_ops.NAME).origin
    assert not_compiled() or origin.endswith((".so", ".pyd"))


def test_nothing_else_is_changed():
    done = shell("-c", COMPARE)
    assert done.returncode == 0, done.stderr
    changed = json.loads(done.stdout.splitlines()[-1])
    # Without compiled ops no module of mmcv.ops can be imported before this package:
    # tests/patches/test_mmcv_deform_attn.py looks at the one that is changed.
    unseen = "mmcv.ops." if not_compiled() else WHERE_NOT_COMPILED
    names = {
        defined_as(name)
        for name in LASTING
        if name != mmcv_ops.NAME and not name.startswith(unseen)
    }
    assert set(changed) == names


def test_nothing_is_changed_twice():
    names = [name for name in LASTING if name != mmcv_ops.NAME]
    before, finders = [resolve(name) for name in names], list(sys.meta_path)
    patches.install()
    for name, value in zip(names, before, strict=True):
        # mmengine sorts the schemes into a new dict.
        assert resolve(name) is value or name.endswith("._schemes")
        assert resolve(name) == value
    assert sys.meta_path == finders


def test_what_is_changed_for_an_export_only():
    pytest.importorskip("mmseg")
    (name,) = (n for p in PATCHES if p.when == DURING_EXPORT for n in p.names)
    resize = resolve(name)
    before = resize.__defaults__
    with mmseg_resize.without_size_warning():
        assert resize.__defaults__ == (*before[:-1], False)
    assert resize.__defaults__ == before


def test_what_is_changed_during_a_run_only():
    names = [n for p in PATCHES if p.when == DURING_A_RUN for n in p.names]
    before = [resolve(name) for name in names]
    with console.short_console(), chosen_device.chosen_device("cpu"):
        assert is_ours(resolve(names[0]))
        assert get_device() == "cpu"
    assert [resolve(name) for name in names] == before


def test_each_module_of_the_room_is_in_the_table():
    installers = {patch.install.__module__ for patch in PATCHES}
    files = {f"convnext_dense.patches.{f.stem}" for f in PACKAGE.glob("patches/*.py")}
    # A context manager's __module__ is that of the function it was made from.
    assert installers == files - {"convnext_dense.patches.__init__"}


def test_the_doctor_lists_them():
    lines = [finding.message for finding in libraries.patches()]
    assert len(lines) == len(PATCHES)
    for patch, line in zip(PATCHES, lines, strict=True):
        assert all(name in line for name in patch.names)
        assert patch.why in line


def test_the_documentation_lists_them():
    """Between the lines ``<!-- patches -->`` and ``<!-- /patches -->``, as
    ``patches.markdown()`` returns it."""
    listed = [
        match[1].split()
        for file in (ROOT / "docs/install.md", ROOT / "README.md")
        if file.exists()
        for match in re.finditer(
            r"<!-- patches -->\n(.*?)<!-- /patches -->", file.read_text(), re.DOTALL
        )
    ]
    assert listed == [patches.markdown().split()]
