"""Reads the config inside a checkpoint without running any of its code.

mmengine writes a run's config into ``meta.cfg`` as Python, and reads it again by
executing it. This module parses the text instead, and takes only the settings that
prediction needs: the model and the test pipeline. Settings can run code, too:
mmengine imports the modules that ``type`` or ``custom_imports`` name, the toolboxes
evaluate a few strings, and some models read other files. So each ``type`` must be
registered by a toolbox, and every other string must be a plain word.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from typing import Any

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
# Without mmpretrain: its wrappers of transformers run code of other repositories.
_SCOPES = ("mmengine", "mmdet", "mmseg")
_WORD = re.compile(r"[\w -]*")
_PICKLES = ("pkl", "pickle")  # mmengine unpickles files of these formats
# These settings load weights from other files; prediction uses the checkpoint's alone.
_WEIGHTS = ("init_cfg", "pretrained")


class _Refused(Exception):
    """The config could run code; the message says with which setting."""


def embedded_config(checkpoint: Mapping, source: str) -> Config:
    """The settings that prediction needs from the config inside a checkpoint.

    The modules of this package and of the toolboxes that the config names are
    imported.

    Args:
        checkpoint: the content of the file.
        source: the checkpoint's name, for messages.

    Returns:
        A config with default_scope, custom_imports, model and test_dataloader.

    Raises:
        InputError: the checkpoint has no config; the config is more than settings; or
            a setting could run code and the checkpoint is not ``trusted()``.
    """
    meta = checkpoint.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    if not isinstance(text, str) or not text:
        raise InputError(
            f"{source} contains no config; only checkpoints that a training run wrote "
            "do. Name the config before the checkpoint"
        )
    try:
        cfg = Config(_settings(text), text, filename=f"the config in {source}")
        check_toolbox(cfg)
        cfg.model = _without_weights(cfg.model.to_dict())
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
            f"the config in {source} was not used: {refused}. None of its code was "
            "run. Name the config before the checkpoint or, if you trust the "
            "checkpoint's author, add --trust-checkpoint"
        ) from refused
    except ImportError as error:
        raise InputError(f"{cfg.filename}: {error}") from error
    return cfg


def _settings(text: str) -> dict:
    """The settings in ``text`` that ``_NEEDED`` names."""
    settings = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign):
                raise _Refused(
                    f"it contains code, not only settings: {_excerpt(statement)}"
                )
            (target,) = statement.targets
            if isinstance(target, ast.Name) and target.id in _NEEDED:
                settings[target.id] = _value(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise _Refused(f"it cannot be read ({error})") from error
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, value in settings.items():
        if not isinstance(value, _NEEDED[name]):
            raise _Refused(f"its {name} is not a {_NEEDED[name].__name__}")
    return settings


def _value(node: ast.expr | None) -> Any:
    """The value of an expression that ``Config.pretty_text`` writes.

    Any other expression is refused. No name is looked up.
    """
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
    assert node is not None  # only a key of ast.Dict can be None
    raise _Refused(f"it contains code, not only settings: {_excerpt(node)}")


def _excerpt(node: ast.AST) -> str:
    """The first 60 characters of an expression or a statement."""
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _without_weights(node: Any) -> Any:
    """A copy of ``node`` without the settings that load weights."""
    if isinstance(node, dict):
        return {k: _without_weights(v) for k, v in node.items() if k not in _WEIGHTS}
    if isinstance(node, list | tuple):
        return type(node)(map(_without_weights, node))
    return node


def _check_imports(names: list) -> None:
    """Refuse to import modules other than this package's and the toolboxes'."""
    for name in names:
        if not isinstance(name, str) or not _KNOWN_MODULE.fullmatch(name):
            raise _Refused(f"it imports {name}")


def _check(node: Any, path: str, registries: Iterable[Registry], scope: str) -> None:
    """Refuse settings below ``node`` with which a toolbox would run or open something.

    Args:
        path: of ``node`` in the config, for messages.
        registries: where each ``type`` must be registered, in one of them.
        scope: the config's toolbox.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            setting = f"{path}.{key}"
            if key == "type":
                if not _is_registered(value, registries, scope):
                    raise _Refused(
                        f"{setting} is {value!r}, which no toolbox registers"
                    )
                if "Load" in value and value != "LoadImageFromFile":
                    raise _Refused(f"{setting} is {value!r}, which reads more files")
            elif key == "_scope_" and value not in _SCOPES:
                raise _Refused(f"{setting} is {value!r}, which is not a known toolbox")
            else:
                _check(value, setting, registries, scope)
    elif isinstance(node, list | tuple | set):
        for index, child in enumerate(node):
            _check(child, f"{path}[{index}]", registries, scope)
    elif isinstance(node, str) and (node in _PICKLES or not _WORD.fullmatch(node)):
        raise _Refused(f"{path} is {node!r}, which is not a word")


def _is_registered(name: object, registries: Iterable[Registry], scope: str) -> bool:
    """Whether a toolbox registers ``name``.

    ``Registry.get`` is not used: it imports the module that the name says.
    """
    if not isinstance(name, str):
        return False
    prefix, _, plain = name.rpartition(".")
    if prefix and prefix not in _SCOPES:
        return False
    for root in registries:
        with root.switch_scope_and_registry(prefix or scope) as registry:
            registry.import_from_location()
            names = set(registry.module_dict)
        if plain in names or (not prefix and plain in root.module_dict):
            return True
    from mmcv import ops

    # RoI extractors and NMS look up their operators here.
    return name in ops.__all__
