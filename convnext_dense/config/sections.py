"""Iterates over the sections of a config."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

MISSING = object()  # the value of a setting that a config does not have


def dataset_configs(loader: Mapping | None) -> Iterator[Any]:
    """The configs of the data sets of a dataloader.

    A wrapper such as ConcatDataset comes first, then the data sets that it wraps.

    Args:
        loader: a section such as ``train_dataloader``.

    >>> inner = dict(type="CocoDataset")
    >>> loader = dict(dataset=dict(type="ConcatDataset", datasets=[inner]))
    >>> [dataset["type"] for dataset in dataset_configs(loader)]
    ['ConcatDataset', 'CocoDataset']
    """
    queue = [(loader or {}).get("dataset")]
    while queue:
        dataset = queue.pop(0)
        if isinstance(dataset, Mapping):
            queue.append(dataset.get("dataset"))
            several = dataset.get("datasets")
            queue.extend(several if isinstance(several, list | tuple) else ())
            if "type" in dataset:
                yield dataset


def transforms(loader: Mapping | None) -> Iterator[Any]:
    """Every transform of a dataloader's pipelines, and those inside other transforms.

    Args:
        loader: a section such as ``train_dataloader``.

    >>> flip = dict(type="RandomApply", transforms=[dict(type="RandomFlip")])
    >>> loader = dict(dataset=dict(type="CocoDataset", pipeline=[flip]))
    >>> [transform["type"] for transform in transforms(loader)]
    ['RandomApply', 'RandomFlip']
    """
    for dataset in dataset_configs(loader):
        yield from typed_sections(dataset.get("pipeline"))


def typed_sections(node: object) -> Iterator[Any]:
    """Every dict with a ``type`` in nested dicts and lists."""
    if isinstance(node, Mapping):
        if "type" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from typed_sections(child)


def setting(cfg: Config, key: str) -> Any:
    """The value of a setting; ``MISSING`` if the config does not have it.

    Args:
        key: with dots, as in ``--cfg-options``.
    """
    node: Any = cfg._cfg_dict
    for name in key.split("."):
        if (
            isinstance(node, list | tuple)
            and name.isdecimal()
            and int(name) < len(node)
        ):
            node = node[int(name)]
        elif isinstance(node, Mapping) and name in node:
            node = node[name]
        else:
            return MISSING
    return node
