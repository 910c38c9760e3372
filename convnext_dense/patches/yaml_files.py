"""Make mmengine read YAML files as data.

mmengine reads them with a loader that calls any Python function that the file names.
"""

from typing import Any, TextIO

import yaml
from mmengine.fileio.handlers.yaml_handler import YamlHandler

# PyYAML without its C library has only the slower one.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """Reads plain values, and the tuples that mmengine writes."""


def _tuple(loader: _Loader, node: Any) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_as_data() -> None:
    """Replace the method with which mmengine reads YAML."""
    YamlHandler.load_from_fileobj = load_from_fileobj


def load_from_fileobj(self: YamlHandler, file: TextIO, **kwargs: Any) -> Any:
    """The content of an open YAML file.

    Raises:
        yaml.YAMLError: the file is not YAML, or holds more than plain values.
    """
    kwargs.setdefault("Loader", _Loader)
    return yaml.load(file, **kwargs)
