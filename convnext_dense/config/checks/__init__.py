"""Checks a config before a run starts: ``check`` makes all of the checks.

requirements  the toolbox and other libraries are installed
values        the sections exist, and their numbers are in range
names         no section is misspelt, and every type is registered
files         the checkpoints and data sets exist

After the model and the data are built, or fail to build:

channels      necks and heads expect the backbone's channels
custom_keys   each key of the optimizer applies to a parameter
data_errors   explains why a data set failed or is empty
build_errors  explains which section of the config failed, and why
"""

from collections.abc import Sequence

from mmengine.config import Config

from . import files, names, requirements, values


def check(cfg: Config, splits: Sequence[str], data_files: bool = True) -> None:
    """Check everything about ``cfg`` that can be known before anything is built.

    ``build_runner`` and ``build_model`` call this once, before ``fit_to_machine``
    changes the config.

    Args:
        cfg: as ``load_config`` returns it; it is not changed.
        splits: those of 'train', 'val' and 'test' whose data will be used; empty for
            a command that only builds the model.
        data_files: whether the config's data files and types must exist. False for
            custom data, which replaces them; ``names.check_names`` follows then.

    Raises:
        InputError: the first thing that is missing or wrong.
    """
    requirements.check_toolbox(cfg)
    values.check(cfg, splits)
    requirements.check_tensorboard(cfg)
    requirements.check_panopticapi(cfg, splits)
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        if data_files:
            files.check_annotations(cfg, split)
            files.check_data(loader, split)
        requirements.check_sockets(loader, split)
    files.check_weights(cfg, splits)
    if data_files:
        names.check_names(cfg, splits)
