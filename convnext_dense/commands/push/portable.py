"""The config of a run, as it can be given away: without paths and secrets.

The config text inside a checkpoint is read as data (``checkpoints.run_config``). So
pushing a checkpoint from somebody else runs no code of its config either.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mmengine.config import Config

from convnext_dense.checkpoints import run_config
from convnext_dense.checkpoints.sources import SCHEMES
from convnext_dense.errors import InputError

# Settings of one start of a run, and of its machine.
_OF_THE_RUN = (
    *("work_dir", "load_from", "resume", "resume_from", "launcher", "local_rank"),
    *("gpu_ids", "experiment_name", "auto_resume"),
)
# Settings of file backends, which can hold access keys.
_BACKENDS = ("backend_args", "file_client_args")
_SECRET = re.compile(
    r"(.*_)?(token|password|passwd|secret|api_?key|(access|secret)_?key|credentials?)",
    re.IGNORECASE,
)
_ABSOLUTE = re.compile(r"[/~]|\.\.[/\\]|[A-Za-z]:[/\\]|\\\\|file:")


def portable(text: str, source: str) -> Config:
    """A flat config without what belongs to one machine or one person.

    - Absolute paths become paths below ``data``. The folders of the data sets keep
      their last name, and what is inside them keeps its place.
    - Trackers, file backends, and settings that are named as a secret is, are left
      out; so are the user and the query of an address.
    - Weights that are a local file are left out: the checkpoint has others.

    Args:
        text: of the config, as a run writes it into its checkpoints.
        source: the checkpoint's name, for messages.

    Raises:
        InputError: the text contains code.
    """
    try:
        settings = run_config.parse(text, None)
    except run_config.NotData as problem:
        raise InputError(
            f"the config in {source} cannot be pushed: {problem}. Train with a config "
            "that has plain settings"
        ) from problem
    for name in _OF_THE_RUN:
        settings.pop(name, None)
    visualizer = settings.get("visualizer")
    if isinstance(visualizer, dict):
        visualizer.pop("save_dir", None)
        visualizer["vis_backends"] = [dict(type="LocalVisBackend")]
    roots = sorted(set(_data_roots(settings)), key=len, reverse=True)
    return Config(_cleaned(settings, roots))


def _data_roots(node: Any) -> Iterator[str]:
    """The absolute folders of data sets in a config."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "data_root" and isinstance(value, str) and _ABSOLUTE.match(value):
                yield _plain(value)
            else:
                yield from _data_roots(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _data_roots(value)


def _cleaned(node: Any, roots: list[str]) -> Any:
    """A copy of settings, cleaned as ``portable`` says."""
    if isinstance(node, Mapping):
        return {
            key: None if _names_local_weights(key, value) else _cleaned(value, roots)
            for key, value in node.items()
            if key not in _BACKENDS and not _is_secret(key, value)
        }
    if isinstance(node, list | tuple):
        return type(node)(_cleaned(value, roots) for value in node)
    return _cleaned_text(node, roots) if isinstance(node, str) else node


def _is_secret(key: Any, value: Any) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, str)
        and bool(_SECRET.fullmatch(key))
        and not key.startswith("cls_")
    )


def _names_local_weights(key: Any, value: Any) -> bool:
    """Whether a setting is an ``init_cfg`` or ``pretrained`` with a local file."""
    if key == "init_cfg" and isinstance(value, Mapping):
        value = value.get("checkpoint")
    elif key != "pretrained":
        return False
    return isinstance(value, str) and value.partition("://")[0] not in SCHEMES


def _cleaned_text(text: str, roots: list[str]) -> str:
    if _ABSOLUTE.match(text) and len(text) > 1:
        return _below_data(_plain(text), roots) + ("/" if text.endswith("/") else "")
    if text.startswith(("http://", "https://")):
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    return text


def _plain(path: str) -> str:
    """A path with ``/`` between its names, and none at its end."""
    return path.replace("\\", "/").rstrip("/")


def _below_data(path: str, roots: list[str]) -> str:
    """The place below ``data`` of an absolute path."""
    for root in roots:
        if path == root or path.startswith(f"{root}/"):
            return f"data/{PurePosixPath(root).name}{path[len(root) :]}"
    return f"data/{PurePosixPath(path).name}"
