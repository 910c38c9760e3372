"""Reads the config text inside a checkpoint as data.

mmengine writes a run's config into its checkpoints as Python, and reads it again by
executing it. This module parses the text instead. Settings can run code, too: mmengine
imports the modules that ``type`` or ``custom_imports`` name, the toolboxes evaluate a
few strings, and some models and transforms open files. So ``check_prediction`` allows

- a type: a name that a toolbox registers;
- an import: a module of this package or of a toolbox;
- a path: none. A string is a plain word, and only where ``WORDS`` says so.
"""

import ast
import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, DefaultScope, Registry
from mmengine.utils import import_modules_from_strings
from torch.nn.modules import module as torch_module

from .unpickling.structure import ADDRESSES

MOST_TEXT = 2_000_000  # characters; the toolboxes' longest config has 0.1 million
MOST_COUNT = 10_000_000  # of anything that a setting counts
MOST_PIXELS = 178_956_970  # of an image, as predict takes them
MOST_SIDE = 65_500  # pixels; any other number of a pipeline is smaller, too
MOST_SCALE = 16
MOST_MODULES = 100_000  # of a model; ConvNeXt-XL with Cascade Mask R-CNN has 500
MOST_BYTES = 2_000_000_000  # of a model, beside twice the weights in its checkpoint
_KNOWN_MODULE = re.compile(r"(convnext_dense|mmdet|mmseg)(\.\w+)*")
# Without mmpretrain: its wrappers of transformers run code of other repositories.
_SCOPES = ("mmengine", "mmdet", "mmseg")
# Settings whose type is looked up among mmcv's operators. Elsewhere mmengine would
# import a module of the operator's name.
_OPERATORS = ("roi_layer", "nms", "nms_cfg", "dqs_cfg")
_WORD = re.compile(r"[\w -]*")
# These settings load weights from other files; prediction uses the checkpoint's alone.
_WEIGHTS = ("init_cfg", "pretrained")
# The settings of both toolboxes that choose something by a word, from their configs
# and signatures. Not here, since a word can also be a file or a model of a hub:
# class_weight, name and lang_model_name (language models), checkpoint, *_path,
# teacher_*, weights. Not here, since it is evaluated or imported: warp_mode, target.
WORDS = frozenset(
    """
    action_candidate add_extra_convs aggregation anchor_type approximate arch
    attention_type backend bbox_norm_type bbox_reg_loss_type bias block bottleneck_type
    box_format box_type branch_field classes color_format color_type conv_bias
    covariance_type crop_type dataset_name decode_backend default_meta_keys direction
    flip_direction frozen_exclude fusion_types imdecode_backend input_keys
    input_transform interpolate_mode interpolation iou_mode kernel keys layer log_scale
    loss_key loss_name loss_type match_metric meta_keys method mode model_name order
    padding padding_mode patch_pad paths pooling_type position predict_box_type
    predict_on prefix psa_type query_scale_type readout_type reduction refine_type
    resize_type semantic_fusion sos_token_format stats_mode stdc_type step style
    templates test_pad_mode transform_method upsample_mode vocabulary
    """.split()  # noqa: SIM905 (a list of 80 strings is not easier to read)
)


# The settings of a config that prediction needs, and their types, for ``parse``.
PREDICTION = {
    "default_scope": str,
    "custom_imports": dict,
    "model": dict,
    "test_dataloader": dict,
}


class NotData(Exception):
    """A config is not only data; the message says with which setting."""


def parse(text: str, expected: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings in a config's text, without running it.

    Args:
        text: as ``Config.pretty_text`` writes it.
        expected: the type, or types, of each setting that is taken; None takes all.
            Other settings are left out, and so are those that are None.

    Raises:
        NotData: the text is too long, is not Python, or is more than assignments of
            plain values.

    >>> parse("model = dict(type='FCN', depths=[1, 2])\\nx = exit()", dict(model=dict))
    {'model': {'type': 'FCN', 'depths': [1, 2]}}
    """
    if len(text) > MOST_TEXT:
        raise NotData(
            f"it has {len(text)} characters, and the longest config that is read has "
            f"{MOST_TEXT}"
        )
    settings = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign):
                raise NotData(
                    f"it contains code, not only settings: {excerpt(statement)}"
                )
            (target,) = statement.targets
            if isinstance(target, ast.Name) and (
                expected is None or target.id in expected
            ):
                settings[target.id] = _value(statement.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise NotData(f"it cannot be read ({error})") from error
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, value in settings.items():
        if expected and not isinstance(value, expected[name]):
            raise NotData(f"its {name} is not a {expected[name].__name__}")
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
            return _dict(map(_value, keys), values)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=items) if all(
            item.arg for item in items
        ):
            return _dict((item.arg for item in items), [item.value for item in items])
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as only], keywords=[]):
            return _value(only)
    assert node is not None  # only a key of ast.Dict can be None
    raise NotData(f"it contains code, not only settings: {excerpt(node)}")


def _dict(keys: Iterable, values: list[ast.expr]) -> dict:
    result = dict(zip(keys, map(_value, values), strict=True))
    for key in result:
        if isinstance(key, str) and key.startswith(ADDRESSES):
            raise NotData(
                f"it has a setting {key:.40}, which numpy takes for an address"
            )
    return result


def excerpt(node: ast.AST) -> str:
    """The first 60 characters of an expression or a statement."""
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:60]}..."


def without_weights(node: Any) -> Any:
    """A copy of settings without those that load weights."""
    if isinstance(node, dict):
        return {k: without_weights(v) for k, v in node.items() if k not in _WEIGHTS}
    if isinstance(node, list | tuple):
        return type(node)(map(without_weights, node))
    return node


def import_modules(settings: Mapping, only_known: bool = True) -> None:
    """Import the modules that ``custom_imports`` names.

    Args:
        settings: of the config.
        only_known: whether each must be a module of this package or of a toolbox.

    Raises:
        NotData: it is another module; none was imported.
        ImportError: there is no such module.
    """
    names = settings.get("custom_imports", {}).get("imports") or []
    names = list(names) if isinstance(names, list | tuple) else [names]
    for name in names:
        if not isinstance(name, str) or not (
            _KNOWN_MODULE.fullmatch(name) or not only_known
        ):
            raise NotData(f"it imports {name}")
    import_modules_from_strings(names)


def check_prediction(
    model: Mapping, pipeline: Iterable, scope: str, state_dict: Mapping
) -> None:
    """Refuse settings with which a toolbox would run code, open a file or fill memory.

    Args:
        model: the config's model.
        pipeline: the steps from an image to the model's input.
        scope: the config's toolbox.
        state_dict: the weights in the same checkpoint.

    Raises:
        NotData: there is such a setting.
    """
    _check(model, "model", "model", (MODELS, TASK_UTILS), scope)
    _check(pipeline, "test pipeline", "pipeline", (TRANSFORMS,), scope)
    _check_image_sizes(pipeline, "test pipeline")
    _check_windows(model.get("test_cfg"))
    _check_size(model, scope, state_dict)


def _check(
    node: Any, path: str, key: str, registries: Iterable[Registry], scope: str
) -> None:
    """Check the settings below ``node``.

    Args:
        path: of ``node`` in the config, for messages.
        key: of the setting that ``node`` belongs to.
        registries: where each ``type`` must be registered, in one of them.
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            setting = f"{path}.{name}"
            if name == "type":
                operator = key in _OPERATORS and _is_operator(value)
                if not operator and not _is_registered(value, registries, scope):
                    raise NotData(f"{setting} is {value!r}, which no toolbox registers")
                if "Load" in value and value != "LoadImageFromFile":
                    raise NotData(f"{setting} is {value!r}, which reads more files")
            elif name == "_scope_" and value not in _SCOPES:
                raise NotData(f"{setting} is {value!r}, which is not a known toolbox")
            elif name != "_scope_":
                _check(value, setting, name, registries, scope)
    elif isinstance(node, list | tuple | set):
        for index, child in enumerate(node):
            _check(child, f"{path}[{index}]", key, registries, scope)
    elif isinstance(node, str):
        if not _WORD.fullmatch(node):
            raise NotData(f"{path} is {node!r}, which is not a word")
        if key not in WORDS:
            raise NotData(f"{path} is {node!r}, which could name a file or a model")
    elif type(node) is int and abs(node) > MOST_COUNT:
        raise NotData(f"{path} is {node}, more than {MOST_COUNT}")


def _check_image_sizes(node: Any, path: str) -> None:
    """Refuse steps that enlarge an image beyond what predict decodes."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            _check_image_sizes(value, f"{path}.{name}")
    elif isinstance(node, list | tuple | set):
        sizes = [value for value in node if isinstance(value, int | float)]
        if len(sizes) == len(node) == 2 and abs(sizes[0] * sizes[1]) > MOST_PIXELS:
            raise NotData(f"{path} is {node}, more than {MOST_PIXELS:,} pixels")
        for index, child in enumerate(node):
            _check_image_sizes(child, f"{path}[{index}]")
    elif isinstance(node, int | float) and not abs(node) <= MOST_SIDE:
        raise NotData(f"{path} is {node}, more than {MOST_SIDE:,}")
    elif isinstance(node, int | float) and "scale_factor" in path and node > MOST_SCALE:
        raise NotData(
            f"{path} is {node}: it enlarges images more than {MOST_SCALE}-fold"
        )


def _check_windows(test_cfg: Any) -> None:
    """Refuse a segmentor's sliding window that moves on by few pixels."""
    settings = test_cfg if isinstance(test_cfg, Mapping) else {}
    sides, strides = settings.get("crop_size"), settings.get("stride")
    if not isinstance(sides, list | tuple) or not isinstance(strides, list | tuple):
        return  # mmseg takes pairs
    for side, stride in zip(sides, strides, strict=False):
        if isinstance(side, int) and isinstance(stride, int) and stride * 16 < side:
            raise NotData(
                f"model.test_cfg.stride is {stride} for windows of {side} pixels: "
                "prediction would compute each pixel over 16 x 16 times"
            )


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
    return False


def _is_operator(name: object) -> bool:
    from mmcv import ops

    return name in ops.__all__


def _check_size(model: Mapping, scope: str, state_dict: Mapping) -> None:
    """Refuse a model that is far larger than its weights, before memory is taken.

    The model is built on the meta device for that.
    """
    saved = sum(t.nbytes for t in state_dict.values() if isinstance(t, torch.Tensor))
    size, modules = 0, 0

    def add(owner: Any, name: str, value: Any) -> None:
        nonlocal size, modules
        if isinstance(value, torch.Tensor):
            size += value.nbytes
        else:
            modules += 1
        if size > 2 * saved + MOST_BYTES:
            raise NotData(
                f"its model has {size / 1e9:.1f} GB of weights or more, and the "
                f"checkpoint has {saved / 1e9:.1f} GB"
            )
        if modules > MOST_MODULES:
            raise NotData(f"its model has more than {MOST_MODULES} modules")

    hooks = (
        torch_module.register_module_parameter_registration_hook(add),
        torch_module.register_module_buffer_registration_hook(add),
        torch_module.register_module_module_registration_hook(add),
    )
    try:
        with DefaultScope.overwrite_default_scope(scope), torch.device("meta"):
            MODELS.build(copy.deepcopy(model))  # mmdet changes it
    except NotData:
        raise
    except Exception:
        return  # a mistake in the config, which building it in memory raises again
    finally:
        for hook in hooks:
            hook.remove()
