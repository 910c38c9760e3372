"""The config that a run's checkpoint carries, used without running any code of it.

mmengine writes a run's config into ``meta.cfg`` as Python, and makes it a config
again by executing it. Here it is parsed, and only what prediction needs is taken:
the model and the test pipeline. Settings can run code as well, since mmengine
imports what a ``type`` or ``custom_imports`` names, the toolboxes evaluate a few
strings, and some models read other files. So a name must be one that the toolboxes
have registered, and any other string a plain word.
"""

import ast
import re
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, Registry
from mmengine.utils import import_modules_from_strings

from convnext_dense.checkpoints.unpickling import trusted
from convnext_dense.errors import InputError

from .checks.requirements import check_toolbox
from .options import image_pipeline

_NEEDED = {
    "default_scope": str,
    "custom_imports": dict,
    "model": dict,
    "test_dataloader": dict,
}
_KNOWN_MODULE = re.compile(r"(convnext_dense|mmdet|mmseg)(\.\w+)*")
# mmpretrain is not among them: its wrappers of transformers run a repository's code.
_SCOPES = ("mmengine", "mmdet", "mmseg")
_WORD = re.compile(r"[\w -]*")
_PICKLES = ("pkl", "pickle")  # mmengine unpickles files of these names
# They start weights from other files; here all weights are the checkpoint's.
_STARTS = ("init_cfg", "pretrained")


class _Refused(Exception):
    """The config asks for something that it should not; str() says what."""


def embedded_config(checkpoint: Mapping, source: str) -> Config:
    """What prediction needs of the config that mmengine put into a checkpoint.

    What it imports of this package and of the toolboxes is imported.

    Args:
        checkpoint: as read.
        source: its name, for messages.

    Raises:
        InputError: it carries no config, or one that is more than settings, or one
            whose settings could run code and that is not ``trusted()``.
    """
    meta = checkpoint.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    if not isinstance(text, str) or not text:
        raise InputError(
            f"{source} carries no config, as checkpoints of mmengine's runs do: name "
            "the config before the checkpoint"
        )
    try:
        cfg = Config(_settings(text), text, filename=f"the config in {source}")
        check_toolbox(cfg)
        cfg.model = _without_starts(cfg.model.to_dict())
        imports = cfg.get("custom_imports", {}).get("imports") or []
        imports = [imports] if isinstance(imports, str) else list(imports)
        if not trusted():
            _check_imports(imports)
        import_modules_from_strings(imports)
        if not trusted():
            _check(cfg.model, "model", (MODELS, TASK_UTILS), cfg.default_scope)
            pipeline = image_pipeline(cfg)
            _check(pipeline, "test pipeline", (TRANSFORMS,), cfg.default_scope)
    except _Refused as refused:
        raise InputError(
            f"the config in {source} was not used: {refused}. Nothing of it was run. "
            "Name the config before the checkpoint or, if you trust whoever made the "
            "checkpoint, add --trust-checkpoint"
        ) from refused
    except ImportError as error:
        raise InputError(f"{cfg.filename}: {error}") from error
    return cfg


def _settings(text: str) -> dict:
    """The values of the assignments in ``text`` that prediction needs."""
    found = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign):
                raise _Refused(f"it is not only settings: {_excerpt(statement)}")
            (target,) = statement.targets
            if isinstance(target, ast.Name) and target.id in _NEEDED:
                found[target.id] = _value(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise _Refused(f"it cannot be read ({error})") from error
    found = {name: value for name, value in found.items() if value is not None}
    for name, value in found.items():
        if not isinstance(value, _NEEDED[name]):
            raise _Refused(f"its {name} is not a {_NEEDED[name].__name__}")
    return found


def _value(node: ast.expr):
    """What ``Config.pretty_text`` writes, and nothing else: no name is looked up."""
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Name(id="inf" | "nan" as name):
            return float(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Set(elts=items):
            return {_value(item) for item in items}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return dict(zip(map(_value, keys), map(_value, values), strict=True))
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=items) if all(
            item.arg for item in items
        ):
            return {item.arg: _value(item.value) for item in items}
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as only], keywords=[]):
            return _value(only)
    raise _Refused(f"it is not only settings: {_excerpt(node)}")


def _excerpt(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _without_starts(node):
    if isinstance(node, dict):
        return {k: _without_starts(v) for k, v in node.items() if k not in _STARTS}
    if isinstance(node, list | tuple):
        return type(node)(map(_without_starts, node))
    return node


def _check_imports(names: list) -> None:
    for name in names:
        if not isinstance(name, str) or not _KNOWN_MODULE.fullmatch(name):
            raise _Refused(f"it imports {name}")


def _check(node, where: str, registries: tuple[Registry, ...], scope: str) -> None:
    """See that nothing below ``node`` makes the toolboxes run or open anything."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            here = f"{where}.{key}"
            if key == "type":
                if not _is_registered(value, registries, scope):
                    raise _Refused(f"{here} is {value!r}, which no toolbox registers")
                if "Load" in value and value != "LoadImageFromFile":
                    raise _Refused(f"{here} is {value!r}, which reads more files")
            elif key == "_scope_" and value not in _SCOPES:
                raise _Refused(f"{here} is {value!r}")
            else:
                _check(value, here, registries, scope)
    elif isinstance(node, list | tuple | set):
        for index, child in enumerate(node):
            _check(child, f"{where}[{index}]", registries, scope)
    elif isinstance(node, str) and (node in _PICKLES or not _WORD.fullmatch(node)):
        raise _Refused(f"{where} is {node!r}, which is not a word")


def _is_registered(name, registries: tuple[Registry, ...], scope: str) -> bool:
    """``Registry.get`` answers this by importing whatever the name says."""
    if not isinstance(name, str):
        return False
    prefix, _, plain = name.rpartition(".")
    if prefix and prefix not in _SCOPES:
        return False
    for root in registries:
        with root.switch_scope_and_registry(prefix or scope) as registry:
            registry.import_from_location()
            known = set(registry.module_dict)
        if plain in known or (not prefix and plain in root.module_dict):
            return True
    from mmcv import ops  # whose names RoI extractors and NMS look up

    return name in ops.__all__
