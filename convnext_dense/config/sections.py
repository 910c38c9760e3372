"""Walk through the sections of a config."""

from collections.abc import Iterator, Mapping


def dataset_configs(loader: Mapping | None) -> Iterator[Mapping]:
    """The data sets of a dataloader: wrappers such as ConcatDataset, then theirs."""
    queue = [(loader or {}).get("dataset")]
    while queue:
        dataset = queue.pop(0)
        if isinstance(dataset, Mapping):
            queue.append(dataset.get("dataset"))
            queue.extend(dataset.get("datasets") or ())
            if "type" in dataset:
                yield dataset
