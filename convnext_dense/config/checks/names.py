"""Names in a config that nothing knows: what was meant?

mmengine merges a key that nothing reads without a word, and trains by the old one.
"""

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from string import digits

import mmengine.registry
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from convnext_dense.errors import InputError


def _arguments(function) -> set[str]:
    return set(inspect.signature(function).parameters)


# What mmengine and the tools here read of a config.
_TOP = (_arguments(Runner) - {"cfg"}) | {
    *("runner_type", "strategy", "custom_imports", "compile", "model_wrapper_cfg"),
    *("find_unused_parameters", "sync_bn", "activation_checkpointing"),
    *("efficient_conv_bn_eval", "tta_model", "tta_pipeline", "data_root"),
}
_LOADER = (_arguments(DataLoader) | {"num_batch_per_epoch"}) | {
    "disable_subprocess_warning"
}
# Sections of which every key is known.
_CLOSED = {
    **{f"{split}_dataloader": _LOADER for split in ("train", "val", "test")},
    "env_cfg": {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"},
    "randomness": _arguments(Runner.set_randomness) - {"self"},
    "auto_scale_lr": {"enable", "base_batch_size"},
}
_OPEN = {"custom_keys", "metainfo", "data_prefix"}  # their keys are anybody's names
_MARKS = {"type", "_delete_", "_scope_"}
CLOSE = 0.8  # difflib's ratio from which on a new key is taken for a slip
SLIP = 0.9  # the same in a config file, where any variable may be


def check_options(cfg: Config, options: Mapping[str, object]) -> None:
    """Look at ``--cfg-options`` before they are merged.

    Raises:
        InputError: a key is new and nothing reads it, or is close to one that is
            there; or a number or a switch is replaced by a word.
    """
    for option, value in options.items():
        path, node = "", cfg._cfg_dict
        for key in option.split("."):
            if not key:
                raise InputError(f"--cfg-options: {option!r} is not a setting's name")
            if isinstance(node, list | tuple):
                if not key.isdecimal() or int(key) >= len(node):
                    raise InputError(
                        f"--cfg-options: {option}: {path} has entries, 0 to "
                        f"{len(node) - 1}, and none called {key}"
                    )
                node = node[int(key)]
            elif isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, Mapping):
                _check_new(key, path, node, options, cfg.get("default_scope"))
                break
            else:
                break
            path = f"{path}.{key}" if path else key
        else:
            _check_kind(option, node, value)
            if option.split(".")[0] not in _TOP:
                print_log(
                    f"--cfg-options {option}: nothing but the config file itself reads "
                    "this; set what it was used for there",
                    "current",
                )


def _check_new(
    key: str, path: str, node: Mapping, options: Mapping, scope: str | None
) -> None:
    """Raise an InputError if ``key``, which ``node`` at ``path`` lacks, is a slip."""
    if key in _MARKS or f"{path}._delete_" in options or path.split(".")[-1] in _OPEN:
        return
    known = _TOP if not path else _CLOSED.get(path)
    if known is not None:
        if key not in known:
            raise InputError(_unread(path, key, {*known, *node}))
        return
    accepted = _accepted(options.get(f"{path}.type", node.get("type")), scope)
    if key not in accepted and _near(key, {*node, *accepted} - _MARKS, CLOSE):
        raise InputError(_unread(path, key, {*node, *accepted} - _MARKS))


def _unread(path: str, key: str, known: Iterable[str]) -> str:
    name = f"{path}.{key}" if path else key
    near = _near(key, known, 0.6)
    meant = f"{path}.{near[0]}" if path and near else "".join(near[:1])
    return (
        f"--cfg-options: nothing reads {name}"
        + (f": did you mean {meant}?" if meant else "")
        + " (what is new on purpose can be said in a config file)"
    )


def _near(name: str, known: Iterable[str], cutoff: float) -> list[str]:
    """Those of ``known`` that ``name`` could be a slip for; not those that only count
    on, as norm1 and norm2 do."""
    lower = {one.lower(): one for one in map(str, known)}
    found = difflib.get_close_matches(name.lower(), lower, 3, cutoff)
    letters = name.lower().rstrip(digits)
    return [
        lower[one]
        for one in found
        if one == name.lower() or one.rstrip(digits) != letters
    ]


def _accepted(kind, scope: str | None) -> set[str]:
    """The arguments of whatever has the name ``kind`` in a registry of ``scope``."""
    if isinstance(kind, str):
        kind = _registered(kind.rpartition(".")[2], scope)
    if inspect.isfunction(kind):
        return _arguments(kind)
    if not inspect.isclass(kind):
        return set()
    return set().union(*(_arguments(c.__init__) for c in kind.__mro__)) - {"self"}


def _registered(name: str, scope: str | None):
    for root in vars(mmengine.registry).values():
        if isinstance(root, Registry):
            for registry in (root, root.children.get(scope)):
                if registry is not None:
                    registry.import_from_location()
                    if name in registry.module_dict:
                        return registry.module_dict[name]
    return None


def _check_kind(option: str, before, after) -> None:
    """Raise an InputError if a word takes the place of a number or a switch."""
    if option.endswith("loss_scale"):  # a number or 'dynamic'
        return
    if isinstance(after, str) and isinstance(before, bool | int | float):
        wanted = "True or False" if isinstance(before, bool) else "a number"
        raise InputError(f"--cfg-options {option}={after!r}: give {wanted}")


def check_names(cfg: Config, splits: Sequence[str]) -> None:
    """Look at the names of sections and of the types in them, before all is built.

    Args:
        splits: of 'train', 'val' and 'test', those that will be used; without one,
            the model alone.

    Raises:
        InputError: a section's name is a slip, or nothing is registered under a type.
    """
    for name in set(cfg._cfg_dict) - _TOP if splits else ():
        near = _near(name, _TOP, SLIP)
        if near:
            raise InputError(
                f"{cfg.filename}: nothing reads {name}: did you mean {near[0]}?"
            )
    for path, kind, registry in _types(cfg, splits):
        with registry.switch_scope_and_registry(cfg.default_scope) as found:
            if isinstance(kind, str) and found.get(kind) is None:
                raise InputError(unknown_type(cfg, path, kind, found))


def unknown_type(cfg: Config, path: str, kind: str, registry: Registry) -> str:
    """A message about a type that is in no registry, with those of like names."""
    names: set[str] = set()
    here: Registry | None = registry
    while here is not None:
        names |= here.module_dict.keys()
        here = here.parent
    near = _near(kind.rpartition(".")[2], names, 0.6)
    return (
        f"{path}={kind!r} of {cfg.filename} is not known"
        + (f": did you mean {' or '.join(near)}?" if near else "")
        + "\nWhat is of a package of one's own: custom_imports = "
        "dict(imports=['PACKAGE'])"
    )


def _types(
    cfg: Config, splits: Sequence[str]
) -> Iterator[tuple[str, object, Registry]]:
    """Path, type and registry of what a Runner builds itself."""
    registries = vars(mmengine.registry)

    def of(path: str, node, registry: str):
        if isinstance(node, Mapping) and "type" in node:
            yield f"{path}.type", node["type"], registries[registry]
        elif isinstance(node, list | tuple):
            for i, one in enumerate(node):
                yield from of(f"{path}.{i}", one, registry)

    yield from of("model", cfg.model, "MODELS")
    for key, part in cfg.model.items():
        if key.endswith(("backbone", "neck", "head", "preprocessor")):
            yield from of(f"model.{key}", part, "MODELS")
    if not splits:
        return
    yield from of("visualizer", cfg.get("visualizer"), "VISUALIZERS")
    yield from of("custom_hooks", cfg.get("custom_hooks"), "HOOKS")
    for key, hook in (cfg.get("default_hooks") or {}).items():
        yield from of(f"default_hooks.{key}", hook, "HOOKS")
    for split in splits:
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
    if "train" in splits:
        wrapper = cfg.get("optim_wrapper") or {}
        yield from of("optim_wrapper", wrapper, "OPTIM_WRAPPERS")
        optimizer = wrapper.get("optimizer")
        yield from of("optim_wrapper.optimizer", optimizer, "OPTIMIZERS")
        if "constructor" in wrapper:
            makers = registries["OPTIM_WRAPPER_CONSTRUCTORS"]
            yield "optim_wrapper.constructor", wrapper["constructor"], makers
        yield from of("param_scheduler", cfg.get("param_scheduler"), "PARAM_SCHEDULERS")
