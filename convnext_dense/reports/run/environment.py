"""The environment of a run: what mmengine wrote into its log, and versions."""

import os
import re
from importlib import import_module
from pathlib import Path

from mmengine.utils.dl_utils import collect_env

_LEFT_OUT = {"PyTorch compiling details", "numpy_random_seed"}
_ITEM = re.compile(r"    (\S[^:\n]*): (.*)")
# Characters of a log. mmengine writes the environment at its beginning.
_HEAD = 100_000


def of_run(work_dir: str | os.PathLike) -> dict[str, str]:
    """Python, GPUs, PyTorch, seed, ... of the newest start that trained.

    Empty if no log has them.
    """
    for scalars in sorted(Path(work_dir).glob("*/vis_data/scalars.json"), reverse=True):
        start = scalars.parents[1]
        log = start / f"{start.name}.log"
        if not log.is_file():
            continue
        with log.open(encoding="utf-8", errors="replace") as lines:
            text = lines.read(_HEAD)
        _, heading, text = text.partition("System environment:\n")
        if heading:
            items = map(_ITEM.fullmatch, text.partition("\n-----")[0].splitlines())
            values = {item[1]: item[2] for item in items if item}
            return {key: v for key, v in values.items() if key not in _LEFT_OUT}
    return {}


def of_machine() -> dict[str, str]:
    """Python, GPUs, PyTorch, ... of this machine."""
    return {key: str(v) for key, v in collect_env().items() if key not in _LEFT_OUT}


def toolbox_versions(scope: str) -> dict[str, str]:
    """Versions of the packages that mmengine's report leaves out.

    Args:
        scope: 'mmdet' or 'mmseg'.
    """
    names = ("convnext_dense", "mmcv", scope)
    return {name: import_module(name).__version__ for name in names}
