"""Every change that this package makes to other libraries, in one table.

Importing ``convnext_dense`` calls ``install``. Hooks also wrap methods of single
objects of a run (its loop, its optimizer wrapper). That leaves the libraries as they
are, and ends with the run.
"""

import textwrap
from collections.abc import Callable
from typing import NamedTuple

from . import (
    checkpoint_config,
    checkpoint_finding,
    checkpoint_loading,
    checkpoint_saving,
    chosen_device,
    console,
    log_lines,
    mmcv_deform_attn,
    mmcv_ops,
    mmseg_resize,
    regular_files,
    scheduler_state,
    yaml_files,
)

AT_IMPORT = "always"
DURING_EXPORT = "while convnext-dense export traces a model"
DURING_A_RUN = "while a command trains, validates or tests"


class Patch(NamedTuple):
    """One change to another library.

    Attributes:
        names: the dotted names that are replaced.
        library: the library they belong to.
        why: what the change does for the user, in one or two sentences.
        versions: the versions of the library that need it.
        install: makes the change; a second call changes nothing. A context manager,
            which undoes the change at its end, if ``when`` is not ``AT_IMPORT``.
        when: the time during which the change is in effect.
    """

    names: tuple[str, ...]
    library: str
    why: str
    versions: str
    install: Callable[[], object]
    when: str = AT_IMPORT

    def __str__(self) -> str:
        when = "" if self.when == AT_IMPORT else f" Only {self.when}."
        return f"{self.why}{when} Needed for {self.versions}."


PATCHES = (
    Patch(
        names=(mmcv_ops.NAME,),
        library="mmcv",
        why="Where the installed mmcv has no compiled ops, this package computes with "
        "torchvision, PyTorch and Triton every op that the models of mmdet 3 and mmseg "
        "1 train and predict with, and \"No module named 'mmcv._ext'\" no longer "
        "occurs. Compiled ops are never replaced. Any other op (of 3D points, for "
        "example) raises an error that names the op and says how to install compiled "
        "ops.",
        versions="mmcv-lite, and onedl-mmcv or mmcv built without compiled ops",
        install=mmcv_ops.install,
    ),
    Patch(
        names=tuple(
            f"{mmcv_deform_attn.MODULE}.{name}"
            for name in (mmcv_deform_attn.FUNCTION, mmcv_deform_attn.PYTORCH)
        ),
        library="mmcv",
        why="Deformable attention on a GPU is as fast in bf16 as in fp16, and keeps "
        "its sampling positions in fp32. The first name is replaced only where mmcv "
        "has no compiled ops. The second is replaced everywhere for tensors on a GPU, "
        "because compiled ops have no bf16; on a CPU it remains mmcv's.",
        versions="all versions",
        install=mmcv_deform_attn.install,
    ),
    Patch(
        names=("mmengine.runner.checkpoint.CheckpointLoader._schemes",),
        library="mmengine",
        why="mmengine reads every checkpoint without running code from it.",
        versions="onedl-mmengine 0.10.12, which unpickles without restriction what "
        "torch has refused, and mmengine 0.10.7, which cannot read its own checkpoints "
        "under torch 2.6 and later",
        install=checkpoint_loading.read_safely,
    ),
    Patch(
        names=(
            "mmengine.config.Config.fromstring",
            "mmengine.runner.Runner.resume",
            "mmengine.runner._flexible_runner.FlexibleRunner.resume",
            "mmengine.infer.BaseInferencer._init_model",
        ),
        library="mmengine",
        why="The config inside a checkpoint is read as data, and never run. The state "
        "of a run in a checkpoint is checked before the run goes on from it.",
        versions="all versions",
        install=checkpoint_config.read_as_data,
    ),
    Patch(
        names=("mmengine.infer.BaseInferencer.__init__",),
        library="mmengine",
        why="The toolboxes' inferencers take a run's checkpoint alone, also as their "
        "first argument: MMSegInferencer(CHECKPOINT). mmengine would read it as a "
        "config.",
        versions="all versions",
        install=checkpoint_config.take_checkpoint_as_model,
    ),
    Patch(
        names=(
            "mmengine.optim.scheduler.param_scheduler._ParamScheduler.load_state_dict",
        ),
        library="mmengine",
        why="A checkpoint changes the values of a scheduler, and not its methods.",
        versions="all versions",
        install=scheduler_state.take_values_only,
    ),
    Patch(
        names=("mmengine.fileio.handlers.yaml_handler.YamlHandler.load_from_fileobj",),
        library="mmengine",
        why="YAML files are read as data. mmengine calls the Python functions that "
        "they name.",
        versions="all versions",
        install=yaml_files.read_as_data,
    ),
    Patch(
        names=(
            "mmengine.runner.checkpoint.load_state_dict",
            "mmengine.runner.load_state_dict",
        ),
        library="mmengine",
        why="Models with this package's ConvNeXt load checkpoints of any origin. Other "
        "models load as before.",
        versions="all versions",
        install=checkpoint_loading.load_any_origin,
    ),
    Patch(
        names=(
            "mmengine.runner.checkpoint.save_checkpoint",
            "mmengine.runner.save_checkpoint",
            "mmengine.runner.runner.save_checkpoint",
        ),
        library="mmengine",
        why="A checkpoint gets its name only when it is complete on the disk.",
        versions="all versions",
        install=checkpoint_saving.save_whole,
    ),
    Patch(
        names=(
            "mmengine.hooks.CheckpointHook._save_checkpoint_with_step",
            "mmengine.hooks.CheckpointHook._save_best_checkpoint",
        ),
        library="mmengine",
        why="The previous checkpoint is removed only after the new one is complete.",
        versions="all versions",
        install=checkpoint_saving.remove_after_saving,
    ),
    Patch(
        names=(
            "mmengine.runner.Runner.dump_config",
            "mmengine.runner._flexible_runner.FlexibleRunner.dump_config",
        ),
        library="mmengine",
        why="A run writes its config and last_checkpoint through no link, so that no "
        "file outside the work dir changes. A test by this package replaces no config.",
        versions="all versions",
        install=checkpoint_saving.write_own_files,
    ),
    Patch(
        names=("mmengine.hooks.CheckpointHook.before_train",),
        library="mmengine",
        why="A run that resumes removes checkpoints of its own folder only, whatever "
        "its checkpoint calls the best one.",
        versions="all versions",
        install=checkpoint_saving.remove_own_only,
    ),
    Patch(
        names=(
            "mmengine.runner.checkpoint.find_latest_checkpoint",
            "mmengine.runner.find_latest_checkpoint",
            "mmengine.runner.runner.find_latest_checkpoint",
            "mmengine.runner._flexible_runner.find_latest_checkpoint",
            "mmengine.runner.Runner.load_or_resume",
            "mmengine.runner._flexible_runner.FlexibleRunner.load_or_resume",
        ),
        library="mmengine",
        why="--resume takes the newest checkpoint that is complete, and none outside "
        "the run's folders.",
        versions="all versions",
        install=checkpoint_finding.resume_from_newest_complete,
    ),
    Patch(
        names=(
            "mmengine.fileio.backends.local_backend.LocalBackend.get",
            "mmengine.fileio.backends.local_backend.LocalBackend.get_text",
        ),
        library="mmengine",
        why="A pipe or a device among the images is an error. mmengine waits for it "
        "for ever.",
        versions="all versions",
        install=regular_files.read_regular_files_only,
    ),
    Patch(
        names=("mmengine.logging.logger.MMFormatter.format",),
        library="mmengine",
        why="Control characters in log lines are written out, since names of tensors "
        "and classes are from files.",
        versions="all versions",
        install=log_lines.write_out_control_characters,
    ),
    Patch(
        names=("mmengine.logging.print_log", "mmengine.logging.logger.print_log"),
        library="mmengine",
        why="Messages of level DEBUG that have no logger are not printed, such as "
        '"Could not import OneDL" of onedl-mmdet and onedl-mmsegmentation.',
        versions="all versions",
        install=log_lines.print_no_debug_messages,
    ),
    Patch(
        names=("mmengine.logging.MMLogger.callHandlers",),
        library="mmengine",
        why="The console of a run leaves out the config, the environment, the order of "
        "the hooks and long lists of tensors. The log file has them.",
        versions="all versions",
        install=console.short_console,
        when=DURING_A_RUN,
    ),
    Patch(
        names=("mmengine.device.utils.DEVICE",),
        library="mmengine",
        why="--device chooses where a run computes. mmengine takes a GPU wherever "
        "there is one.",
        versions="all versions",
        install=chosen_device.chosen_device,
        when=DURING_A_RUN,
    ),
    Patch(
        names=("mmseg.models.utils.resize",),
        library="mmseg",
        why="Its warning about sizes is off, because comparing sizes while tracing "
        "makes them constants in the exported program.",
        versions="all versions",
        install=mmseg_resize.without_size_warning,
        when=DURING_EXPORT,
    ),
)


def install() -> None:
    """Make all changes that last; a second call changes nothing."""
    for patch in PATCHES:
        if patch.when == AT_IMPORT:
            patch.install()


def markdown() -> str:
    """``PATCHES`` as a Markdown list, for docs/install.md."""
    return "\n".join(
        textwrap.fill(
            f"- {', '.join(f'`{name}`' for name in patch.names)}: {patch}",
            width=95,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for patch in PATCHES
    )
