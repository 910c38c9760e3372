"""Reads the config inside a checkpoint without running any of its code.

``checkpoints.run_config`` parses and checks the text. This module takes the settings
that prediction needs, the model and the test pipeline, and says what is wrong.
"""

import copy
from collections.abc import Mapping

from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from convnext_dense.checkpoints import run_config
from convnext_dense.checkpoints.unpickling import trusted
from convnext_dense.errors import InputError
from convnext_dense.utils.text import reason

from .checks.requirements import check_toolbox
from .options import image_pipeline

_NAME_IT = "Name the config before the checkpoint, or in Python as config=FILE"


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
            f"do. {_NAME_IT}"
        )
    try:
        settings = run_config.parse(text, run_config.PREDICTION)
        cfg = Config(settings, text, filename=f"the config in {source}")
        check_toolbox(cfg)
        cfg.model = run_config.without_weights(cfg.model.to_dict())
        run_config.import_modules(settings, only_known=not trusted())
        if not trusted():
            pipeline = image_pipeline(cfg)
            weights = checkpoint.get("state_dict", checkpoint)
            run_config.check_prediction(cfg.model, pipeline, cfg.default_scope, weights)
            _check_pipeline(pipeline, cfg)
    except run_config.NotData as problem:
        raise InputError(
            f"the config in {source} was not used: {problem}. None of its code was "
            f"run. {_NAME_IT} or, if you trust the checkpoint's author, use "
            "--trust-checkpoint or CONVNEXT_DENSE_TRUST_CHECKPOINT=1"
        ) from problem
    except InputError:
        raise
    except Exception as error:  # an imported module can raise anything
        raise InputError(
            f"the config in {source} could not be used: {reason(error)}. Name the "
            "config before the checkpoint"
        ) from error
    return cfg


def _check_pipeline(pipeline: list[ConfigDict], cfg: Config) -> None:
    """Raise an InputError if the steps of a pipeline cannot be built."""
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            Compose(copy.deepcopy(pipeline))
    except Exception as error:  # a toolbox's transform can raise anything
        raise InputError(
            f"the test pipeline of {cfg.filename} could not be built: {reason(error)}"
        ) from error
