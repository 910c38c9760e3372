"""What libraries raise while they build what a config describes, as a message."""

import traceback

from torch import nn

from convnext_dense.errors import InputError

# mmengine's functions -> the section that they build; {split}: whose loop asks for it.
_SECTIONS = {
    "build_model": "model",
    "wrap_model": "model_wrapper_cfg",
    "setup_env": "env_cfg",
    "set_randomness": "randomness",
    "build_logger": "log_level",
    "build_log_processor": "log_processor",
    "build_visualizer": "visualizer",
    "register_default_hooks": "default_hooks",
    "register_custom_hooks": "custom_hooks",
    "build_optim_wrapper": "optim_wrapper",
    "scale_lr": "auto_scale_lr",
    "build_param_scheduler": "param_scheduler",
    "build_train_loop": "train_cfg",
    "build_val_loop": "val_cfg",
    "build_test_loop": "test_cfg",
    "build_dataloader": "{split}_dataloader",
    "build_evaluator": "{split}_evaluator",
}


def explain(error: Exception) -> str:
    """Which section of a config could not be built, and why.

    Args:
        error: caught where it was raised: its stack says what was being built.
    """
    split, section = "", ""
    for frame in traceback.extract_tb(error.__traceback__):
        found = _SECTIONS.get(frame.name)
        if found:
            section = found
        if frame.name.startswith("build_") and frame.name.endswith("_loop"):
            split = frame.name.split("_")[1]
    reason = f"{type(error).__name__}: {str(error).strip()}"
    if not section:
        return (
            f"the run could not be started: {reason}. CONVNEXT_DENSE_DEBUG=1 in the "
            "environment shows where"
        )
    return f"the config's {section.format(split=split)} could not be built: {reason}"


def check_channels(model: nn.Module) -> None:
    """See that what takes the maps of one of this package's backbones fits them.

    Raises:
        InputError: a neck or a head is for other channels.
    """
    info = getattr(getattr(model, "backbone", None), "feature_info", None)
    if not info:
        return
    channels = [one.channels for one in info]
    neck = getattr(model, "neck", None)
    if neck is not None:
        wanted = getattr(neck, "in_channels", None)
        if isinstance(wanted, list | tuple) and list(wanted) != channels:
            _refuse("neck", wanted, channels)
        return
    for name in ("decode_head", "auxiliary_head"):
        head = getattr(model, name, None)
        index, wanted = (
            getattr(head, key, None) for key in ("in_index", "in_channels")
        )
        if isinstance(index, int) and isinstance(wanted, int):
            index, wanted = [index], [wanted]
        if isinstance(index, list | tuple) and isinstance(wanted, list | tuple):
            there = [channels[i] for i in index if i < len(channels)]
            if list(wanted) != there:
                _refuse(name, wanted, there)


def _refuse(name: str, wanted, channels: list[int]) -> None:
    raise InputError(
        f"model.{name}.in_channels is {list(wanted)}, and the backbone's maps there "
        f"have {channels}: set it to that"
    )
