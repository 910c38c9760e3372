"""Lists the files that a command reads because a config or a checkpoint names them.

``utils.outputs.check`` takes them: no output may replace one of them.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from convnext_dense.checkpoints import sources
from convnext_dense.errors import InputError
from convnext_dense.utils import images
from convnext_dense.utils.outputs import Folder

from .checks.files import data_paths
from .sections import dataset_configs


def config_inputs(
    cfg: Config, splits: Sequence[str] = (), download: bool = False
) -> Iterator[Path | Folder]:
    """The files that a run with a config reads.

    Args:
        cfg: as ``load_config`` returns it.
        splits: 'train', 'val' and 'test', those whose data is read.
        download: as in ``checkpoint_inputs``.

    Yields:
        The config file and those that it inherits from, the checkpoints that it names,
        and the data.
    """
    # Before the text of each file, mmengine writes its path on a line.
    for line in (str(cfg.filename), *cfg.text.splitlines()):
        if os.path.isfile(line):
            yield Path(line)
    init_cfg = (cfg.get("model") or {}).get("backbone", {}).get("init_cfg")
    named = [cfg.get("load_from")]
    if isinstance(init_cfg, Mapping):
        named.append(init_cfg.get("checkpoint"))
    for checkpoint in named:
        if isinstance(checkpoint, str):
            yield from checkpoint_inputs(checkpoint, download)
    for split in splits:
        for dataset in dataset_configs(cfg.get(f"{split}_dataloader")):
            for path in data_paths(dataset):
                yield Folder(path, images.SUFFIXES) if path.is_dir() else path


def checkpoint_inputs(
    source: str | os.PathLike, download: bool = False
) -> Iterator[Path]:
    """The files of a checkpoint on this disk, with the shards of an index.

    Of a folder, these are all files that could be its weights, also those that do not
    exist.

    Args:
        source: whatever ``checkpoints.locate`` takes.
        download: whether to look up a URL or a model's name, which may download it. It
            is only needed if existing files may be replaced.

    Raises:
        InputError: the download failed.
    """
    scheme, separator, _ = os.fspath(source).partition("://")
    if separator and not (download and scheme in sources.SCHEMES):
        return
    path = sources.locate(source) if separator else Path(source).expanduser()
    files = [path / name for name in sources.WEIGHTS] if path.is_dir() else [path]
    for file in files:
        yield file
        if file.suffix == ".json" and file.is_file():
            # Reading the file reports what is wrong with it.
            with contextlib.suppress(InputError):
                yield from (file.parent / name for name in sources.shards(file))
