"""Explains errors raised while building: which section of the config is at fault."""

import traceback

from convnext_dense.utils.text import reason

# mmengine's functions -> the section that each builds. {split} is the split of the
# loop that calls the function.
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


def explain_build(error: Exception) -> str:
    """The message about a config that could not be built: which section, and why.

    Args:
        error: what a library raised; its stack tells which section was being built.
    """
    split, section = "", ""
    for frame in traceback.extract_tb(error.__traceback__):
        section = _SECTIONS.get(frame.name, section)
        if frame.name.startswith("build_") and frame.name.endswith("_loop"):
            split = frame.name.split("_")[1]
    if not section:
        return (
            f"the run could not be started: {reason(error)}. CONVNEXT_DENSE_DEBUG=1 in "
            "the environment shows where"
        )
    section = section.format(split=split)
    return f"the config's {section} could not be built: {reason(error)}"
