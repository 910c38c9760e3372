"""Checks the names in a config: keys that nothing reads, types that do not exist.

mmengine accepts a misspelt key without a message and trains with the old value.
"""

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from string import digits
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from convnext_dense.errors import InputError

from .requirements import TOOLBOXES


def _arguments(function: Callable) -> set[str]:
    """The names of a function's arguments."""
    return set(inspect.signature(function).parameters)


# The sections that mmengine and this package's commands read.
_TOP = (_arguments(Runner) - {"cfg"}) | {
    *("runner_type", "strategy", "custom_imports", "compile", "model_wrapper_cfg"),
    *("find_unused_parameters", "sync_bn", "activation_checkpointing"),
    *("efficient_conv_bn_eval", "tta_model", "tta_pipeline", "data_root"),
}
_LOADER = (_arguments(DataLoader) | {"num_batch_per_epoch"}) | {
    "disable_subprocess_warning"
}
# Sections whose possible keys are all known.
_CLOSED = {
    **{f"{split}_dataloader": _LOADER for split in ("train", "val", "test")},
    "env_cfg": {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"},
    "randomness": _arguments(Runner.set_randomness) - {"self"},
    "auto_scale_lr": {"enable", "base_batch_size"},
}
_OPEN = {"custom_keys", "metainfo", "data_prefix"}  # sections with any keys
_MARKS = {"type", "_delete_", "_scope_"}  # keys that every section may have
# A new key whose difflib ratio to a known key is at least this is a misspelling:
CLOSE = 0.8  # of --cfg-options
SLIP = 0.9  # of a config file, which may define any variable


def check_options(cfg: Config, options: Mapping[str, object]) -> None:
    """Check the settings of ``--cfg-options`` before they are merged into ``cfg``.

    Args:
        options: keys with dots, and their values.

    Raises:
        InputError: a key is new, and nothing reads it or it is close to an existing
            one; a key lies below a value that is not a section; or a word replaces a
            number or a switch.
    """
    for option, value in options.items():
        path, node = "", cfg._cfg_dict
        for key in option.split("."):
            if not key:
                raise InputError(f"--cfg-options: {option!r} is not a setting's name")
            if isinstance(node, list | tuple):
                if not key.isdecimal() or int(key) >= len(node):
                    raise InputError(
                        f"--cfg-options: {option}: {path} has the entries 0 to "
                        f"{len(node) - 1}: there is no entry {key}"
                    )
                node = node[int(key)]
            elif isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, Mapping):
                _check_new(key, path, node, options, cfg.get("default_scope"))
                break
            elif _is_replaced(path, options):
                break
            else:
                raise InputError(
                    f"--cfg-options: {option}: {path} is {node!r}, not a section; to "
                    f"replace it by a section, add {path}._delete_=True"
                )
            path = f"{path}.{key}" if path else key
        else:
            _check_value_type(option, node, value)
            if option.split(".")[0] not in _TOP:
                print_log(
                    f"--cfg-options {option} changes nothing: the config file has "
                    "already computed other settings from this variable. Change those "
                    f"settings{_same_key(cfg, option)}",
                    "current",
                    logging.WARNING,
                )


def _same_key(cfg: Config, key: str) -> str:
    """', such as train_cfg.max_iters' for the variable max_iters, if it is there."""
    for name in sorted(_TOP & cfg.keys()):
        section = cfg[name]
        if isinstance(section, Mapping) and key in section:
            return f", such as {name}.{key}"
    return ""


def _is_replaced(path: str, options: Mapping) -> bool:
    """Whether ``_delete_`` removes the value at ``path`` or a section above it."""
    keys = path.split(".")
    return any(
        options.get(".".join([*keys[:depth], "_delete_"]))
        for depth in range(1, len(keys) + 1)
    )


def _check_new(
    key: str, path: str, node: Mapping, options: Mapping, scope: str | None
) -> None:
    """Raise an InputError if ``key`` is a misspelling.

    Args:
        path: of the section ``node``, which does not have the key.
    """
    if key in _MARKS or f"{path}._delete_" in options or path.split(".")[-1] in _OPEN:
        return
    known = _TOP if not path else _CLOSED.get(path)
    if known is not None:
        if key not in known:
            raise InputError(_unread(path, key, {*known, *node}))
        return
    accepted = _accepted(options.get(f"{path}.type", node.get("type")), scope)
    if key not in accepted and near(key, {*node, *accepted} - _MARKS, CLOSE):
        raise InputError(_unread(path, key, {*node, *accepted} - _MARKS))


def _unread(path: str, key: str, known: Iterable[str]) -> str:
    """The message about a key that nothing reads, with the nearest of ``known``."""
    name = f"{path}.{key}" if path else key
    similar = near(key, known, 0.6)
    meant = f"{path}.{similar[0]}" if path and similar else "".join(similar[:1])
    return (
        f"--cfg-options: nothing reads {name}"
        + (f": did you mean {meant}?" if meant else "")
        + " (a key that is new on purpose belongs in a config file)"
    )


def near(name: str, known: Iterable[str], cutoff: float) -> list[str]:
    """Those of ``known`` that ``name`` may be a misspelling of, the nearest first.

    Names that differ only in a number at the end, as norm1 and norm2, are not.

    Args:
        cutoff: the least difflib ratio, 0 to 1.
    """
    original = {key.lower(): key for key in map(str, known)}
    close = difflib.get_close_matches(name.lower(), original, 3, cutoff)
    letters = name.lower().rstrip(digits)
    return [
        original[key]
        for key in close
        if key == name.lower() or key.rstrip(digits) != letters
    ]


def _accepted(target: Any, scope: str | None) -> set[str]:
    """The arguments of a class or function.

    Args:
        target: the class or function, or the name under which it is registered.
        scope: the toolbox whose registries are searched, besides mmengine's.
    """
    if isinstance(target, str):
        target = _registered(target.rpartition(".")[2], scope)
    if inspect.isfunction(target):
        return _arguments(target)
    if not inspect.isclass(target):
        return set()
    constructors = [vars(c).get("__init__", object.__init__) for c in target.__mro__]
    return set().union(*map(_arguments, constructors)) - {"self"}


def _registered(name: str, scope: str | None) -> object:
    """The class or function that any registry has under ``name``; None if none has."""
    if scope in TOOLBOXES and find_spec(scope):
        import_module(f"{scope}.registry")  # without it, mmengine has no child registry
    for root in vars(mmengine.registry).values():
        if isinstance(root, Registry):
            for registry in (root, root.children.get(scope)):
                if registry is not None:
                    registry.import_from_location()
                    if name in registry.module_dict:
                        return registry.module_dict[name]
    return None


def _check_value_type(option: str, before: object, after: object) -> None:
    """Raise an InputError if a word takes the place of a number or a switch."""
    if option.endswith("loss_scale"):  # a number or 'dynamic'
        return
    if isinstance(after, str) and isinstance(before, bool | int | float):
        expected = "True or False" if isinstance(before, bool) else "a number"
        raise InputError(f"--cfg-options {option}={after!r}: give {expected}")


def check_names(cfg: Config, splits: Sequence[str]) -> None:
    """Check the names of sections and the types in them, before anything is built.

    Args:
        splits: those of 'train', 'val' and 'test' that will be used; if empty, only
            the model is checked.

    Raises:
        InputError: a section's name is misspelt, or a type is not registered.
    """
    for name in set(cfg._cfg_dict) - _TOP if splits else ():
        similar = near(name, _TOP, SLIP)
        if similar:
            raise InputError(
                f"{cfg.filename}: nothing reads {name}: did you mean {similar[0]}?"
            )
    for path, type_name, root in _types(cfg, splits):
        with root.switch_scope_and_registry(cfg.default_scope) as registry:
            if isinstance(type_name, str) and registry.get(type_name) is None:
                raise InputError(unknown_type(cfg, path, type_name, registry))


def unknown_type(cfg: Config, path: str, type_name: str, registry: Registry) -> str:
    """The message about a type that is not registered, with similar names.

    Args:
        path: the setting that names the type.
        registry: where the type should be, or in a registry above it.
    """
    names: set[str] = set()
    level: Registry | None = registry
    while level is not None:
        names |= level.module_dict.keys()
        level = level.parent
    similar = near(type_name.rpartition(".")[2], names, 0.6)
    return (
        f"{path}={type_name!r} of {cfg.filename} is not known"
        + (f": did you mean {' or '.join(similar)}?" if similar else "")
        + "\nIf your own package registers it, import the package: custom_imports = "
        "dict(imports=['PACKAGE'])"
    )


def _types(
    cfg: Config, splits: Sequence[str]
) -> Iterator[tuple[str, object, Registry]]:
    """Path, type and registry of each object that a Runner builds by itself."""
    registries = vars(mmengine.registry)

    def of(path: str, node: object, registry: str) -> Iterator:
        if isinstance(node, Mapping) and "type" in node:
            yield f"{path}.type", node["type"], registries[registry]
        elif isinstance(node, list | tuple):
            for i, entry in enumerate(node):
                yield from of(f"{path}.{i}", entry, registry)

    yield from of("model", cfg.model, "MODELS")
    for key, component in cfg.model.items():
        if key.endswith(("backbone", "neck", "head", "preprocessor")):
            yield from of(f"model.{key}", component, "MODELS")
    if not splits:
        return
    yield from of("visualizer", cfg.get("visualizer"), "VISUALIZERS")
    yield from of("custom_hooks", cfg.get("custom_hooks"), "HOOKS")
    for key, hook in (cfg.get("default_hooks") or {}).items():
        yield from of(f"default_hooks.{key}", hook, "HOOKS")
    for split in splits:
        yield from _types_of_split(cfg, split, of)
    if "train" in splits:
        wrapper = cfg.get("optim_wrapper") or {}
        yield from of("optim_wrapper", wrapper, "OPTIM_WRAPPERS")
        optimizer = wrapper.get("optimizer")
        yield from of("optim_wrapper.optimizer", optimizer, "OPTIMIZERS")
        if "constructor" in wrapper:
            constructors = registries["OPTIM_WRAPPER_CONSTRUCTORS"]
            yield "optim_wrapper.constructor", wrapper["constructor"], constructors
        yield from of("param_scheduler", cfg.get("param_scheduler"), "PARAM_SCHEDULERS")


def _types_of_split(cfg: Config, split: str, of: Callable[..., Iterator]) -> Iterator:
    """Path, type and registry of what the sections of one split describe.

    Args:
        of: yields them for one section, as ``_types`` defines it.
    """
    loader = cfg.get(f"{split}_dataloader") or {}
    for key in ("sampler", "batch_sampler"):
        path = f"{split}_dataloader.{key}"
        yield from of(path, loader.get(key), "DATA_SAMPLERS")
    path, dataset = f"{split}_dataloader.dataset", loader.get("dataset")
    while isinstance(dataset, Mapping):
        yield from of(path, dataset, "DATASETS")
        yield from of(f"{path}.pipeline", dataset.get("pipeline"), "TRANSFORMS")
        path, dataset = f"{path}.dataset", dataset.get("dataset")
    yield from of(f"{split}_cfg", cfg.get(f"{split}_cfg"), "LOOPS")
    path = f"{split}_evaluator"
    evaluator = cfg.get(path)
    whole = isinstance(evaluator, Mapping) and "metrics" in evaluator
    yield from of(path, evaluator, "EVALUATOR" if whole else "METRICS")
