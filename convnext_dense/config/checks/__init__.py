"""Checks of a config before a run starts, behind one call.

requirements  the toolbox and other libraries are installed
values        the sections exist, and their numbers are in range
names         no misspelt section, no unknown type
files         checkpoints and data sets exist

After the model and the data are built, or could not be:

channels      necks and heads take the backbone's channels
data_errors   why a data set failed or is empty
build_errors  which section of the config failed, and why
"""

from collections.abc import Sequence

from mmengine.config import Config

from . import files, names, requirements, values


def check(cfg: Config, splits: Sequence[str], data_files: bool = True) -> None:
    """Check everything about ``cfg`` that is known before anything is built.

    Called once for a run, before ``fit_to_machine`` changes the config.

    Args:
        splits: of 'train', 'val' and 'test', those whose data will be used; none for
            a command that only builds the model.
        data_files: whether the data's files must exist; custom data brings its own.

    Raises:
        InputError: the first thing that is missing or wrong.
    """
    requirements.check_toolbox(cfg)
    values.check(cfg, splits)
    requirements.check_tensorboard(cfg)
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        if data_files:
            files.check_data(loader, split)
        requirements.check_sockets(loader, split)
    files.check_weights(cfg, splits)
    names.check_names(cfg, splits)
