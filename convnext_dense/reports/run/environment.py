"""Where a run ran: what mmengine wrote into its log, and the versions here."""

import os
import re
from importlib import import_module
from pathlib import Path

from mmengine.utils.dl_utils import collect_env

_LEFT_OUT = {"PyTorch compiling details", "numpy_random_seed"}
_ITEM = re.compile(r"    (\S[^:\n]*): (.*)")


def of_run(work_dir: str | os.PathLike) -> dict[str, str]:
    """Python, GPUs, PyTorch, seed, ... of the newest start that trained; empty if
    its log does not tell."""
    for scalars in sorted(Path(work_dir).glob("*/vis_data/scalars.json"), reverse=True):
        start = scalars.parents[1]
        log = start / f"{start.name}.log"
        if not log.is_file():
            continue
        with log.open(encoding="utf-8", errors="replace") as lines:
            text = lines.read(100_000)  # it is at the beginning
        _, found, text = text.partition("System environment:\n")
        if found:
            items = map(_ITEM.fullmatch, text.partition("\n-----")[0].splitlines())
            found = {item[1]: item[2] for item in items if item}
            return {key: found[key] for key in found if key not in _LEFT_OUT}
    return {}


def of_machine() -> dict[str, str]:
    """The same of this machine."""
    return {key: str(v) for key, v in collect_env().items() if key not in _LEFT_OUT}


def toolbox_versions(scope: str) -> dict[str, str]:
    """Versions of the packages that mmengine's report leaves out."""
    names = ("convnext_dense", "mmcv", scope)
    return {name: import_module(name).__version__ for name in names}
