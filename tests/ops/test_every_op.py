"""The toolboxes import no op of mmcv whose compiled functions have no stand-in."""

import ast
import importlib
import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import mmcv.ops
import pytest
from mmengine.registry import MODELS

from convnext_dense import ops


def modules_of(package):
    """The syntax trees of a package's modules, without importing it."""
    for path in sorted(Path(find_spec(package).origin).parent.rglob("*.py")):
        if "mmcv.ops" in (text := path.read_text(encoding="utf-8")):
            yield ast.parse(text)


def imported_ops(package):
    """The modules of mmcv.ops that define what a package imports from there."""
    for tree in modules_of(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module == "mmcv.ops":
                    for alias in node.names:
                        op = getattr(mmcv.ops, alias.name)
                        yield getattr(op, "__module__", None) or type(op).__module__
                elif node.module.startswith("mmcv.ops."):
                    yield node.module


def compiled_functions(module):
    """The compiled functions that a module of mmcv.ops, and those it uses, load."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load_ext":
            yield from ast.literal_eval(node.args[1])
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            yield from compiled_functions(f"mmcv.ops.{node.module}")


def ops_in_configs(package):
    """The modules of mmcv.ops whose types a package's configs name."""
    folder = Path(find_spec(package).origin).parent / ".mim" / "configs"
    names = set()
    for path in folder.rglob("*.py"):
        names.update(re.findall(r"type='(\w+)'", path.read_text(encoding="utf-8")))
    for name in names:
        op = getattr(mmcv.ops, name, None) or MODELS.get(name)
        yield getattr(op, "__module__", None) or ""


@pytest.mark.parametrize(
    ("package", "used"),
    [
        ("mmdet", {"deform_roi_pool", "nms", "carafe", "sync_bn", "corner_pool"}),
        ("mmseg", {"psa_mask", "cc_attention", "point_sample"}),
    ],
)
def test_every_op_of_the_toolboxes_has_stand_ins(package, used):
    modules = {*imported_ops(package), *ops_in_configs(package)}
    modules = {m for m in modules if m.startswith("mmcv.ops.")}
    assert {f"mmcv.ops.{name}" for name in used} <= modules
    stand_ins = {op.__name__ for op in ops.STAND_INS}
    missing = {
        f"{module}: {function}"
        for module in modules
        for function in compiled_functions(module)
        if function not in stand_ins
    }
    assert not missing
