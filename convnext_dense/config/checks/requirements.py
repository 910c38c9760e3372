"""Checks that this machine has what a config needs: libraries, and short paths."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

from mmengine.config import Config

from convnext_dense.errors import InputError, MissingStackError

TOOLBOXES = {"mmdet": "MMDetection", "mmseg": "MMSegmentation"}

LONGEST_SOCKET = 107 if sys.platform == "linux" else 103  # bytes of a socket's path


def check_toolbox(cfg: Config) -> None:
    """Check that ``cfg`` has a model, and that its toolbox is installed.

    Raises:
        InputError: it is not a config of either toolbox.
        MissingStackError: the toolbox is not installed.
    """
    scope = cfg.get("default_scope")
    if scope not in TOOLBOXES or not isinstance(cfg.get("model"), Mapping):
        raise InputError(
            f"{cfg.filename} is neither an MMDetection nor an MMSegmentation config: "
            + (
                "it has no model"
                if scope in TOOLBOXES
                else f"default_scope is {scope!r}, not 'mmdet' or 'mmseg'"
            )
            + "; inherit from one of configs/det or configs/seg"
        )
    if find_spec(scope) is None:
        raise MissingStackError(
            f"{cfg.filename} is a config of {TOOLBOXES[scope]}, which is not installed"
        )


def check_tensorboard(cfg: Config) -> None:
    """Raise an InputError if ``cfg`` logs to TensorBoard, which is not installed."""
    backends = cfg.get("visualizer", {}).get("vis_backends") or ()
    types = [backend.get("type") for backend in backends]
    if "TensorboardVisBackend" in types and find_spec("tensorboard") is None:
        raise InputError(
            f"{cfg.filename} logs to TensorBoard, which is not installed: "
            "pip install tensorboard"
        )


def check_panopticapi(cfg: Config, splits: Sequence[str]) -> None:
    """Raise an InputError if ``splits`` need panopticapi, which is not installed.

    mmdet reads and evaluates panoptic labels with it. It is in no package index.
    """
    used = [
        cfg.get(f"{split}_{section}")
        for split in splits
        for section in ("dataloader", "evaluator")
    ]
    needing = {"LoadPanopticAnnotations", "CocoPanopticMetric"} & set(_types(used))
    if needing and find_spec("panopticapi") is None:
        raise InputError(
            f"{cfg.filename} needs panopticapi for {' and '.join(sorted(needing))}, "
            "and it is not installed: pip install "
            "git+https://github.com/cocodataset/panopticapi.git"
        )


def _types(node: Any) -> Iterator[str]:
    """Every ``type`` below a section of a config, without its scope."""
    if isinstance(node, Mapping):
        if isinstance(node.get("type"), str):
            yield node["type"].rpartition(".")[2]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from _types(child)


def check_sockets(loader: Mapping | None, split: str) -> None:
    """Raise an InputError if data-loader workers could not send their batches.

    Workers send tensors through sockets in the folder of temporary files. If the path
    of a socket is too long, mmengine waits for the workers forever.
    """
    workers = (loader or {}).get("num_workers")
    if isinstance(workers, int) and workers > 0:
        socket = Path(get_temp_dir(), "listener-12345678")
        if len(os.fsencode(socket)) > LONGEST_SOCKET:
            raise InputError(
                f"the folder of temporary files, {tempfile.gettempdir()}, has too "
                "long a name for data-loader workers: set TMPDIR=/tmp in the "
                f"environment, or --cfg-options {split}_dataloader.num_workers=0 "
                f"{split}_dataloader.persistent_workers=False"
            )
