"""Iterates over the sections of a config."""

from collections.abc import Iterator, Mapping
from typing import Any


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
