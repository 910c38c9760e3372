"""Let mmengine load any checkpoint into a detector or segmentor with a ConvNeXt.

``load_from``, ``--resume``, a tool's CHECKPOINT argument and the toolboxes' own
inference all call two functions of mmengine: one reads the file, one puts a state
dict into a model. ``install`` makes the first read safely, and gives the second the
backbone's tensors under their native names. A model without this package's ConvNeXt
is loaded as before.
"""

import functools
from collections.abc import Mapping

from mmengine import runner as mmengine_runner
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from convnext_dense.checkpoints.reading import read
from convnext_dense.checkpoints.whole_models import match, with_source

# mmengine's patterns, with all that it would unpickle by itself; "" is for the rest.
_SCHEMES = (
    *("", "http://", "https://", "modelzoo://", "torchvision://", "open-mmlab://"),
    *("openmmlab://", "mmcls://", "pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://"),
)


def install() -> None:
    """Make mmengine read every checkpoint by ``read`` and know all origins."""
    CheckpointLoader.register_scheme(_SCHEMES, _load, force=True)
    plain = mmengine_checkpoint.load_state_dict
    if hasattr(plain, "__wrapped__"):  # installed already
        return

    @functools.wraps(plain)
    def load_state_dict(module, state_dict, strict=False, logger=None):
        matched = match(module, state_dict)
        for choice in matched.choices:
            choice.report()
        if matched.alone and not strict:  # else all that is new would be warned of
            matched.model.load_state_dict(matched.weights, strict=False)
        else:
            plain(module, matched.weights, strict=strict, logger=logger)

    mmengine_checkpoint.load_state_dict = load_state_dict
    mmengine_runner.load_state_dict = load_state_dict


def _load(filename, map_location=None):
    content = read(filename, map_location)
    if str(filename).startswith("mmcls://"):
        content = mmengine_checkpoint._process_mmcls_checkpoint(content)
    if not isinstance(content, Mapping):
        return content
    if isinstance(content.get("state_dict"), Mapping):
        return {**content, "state_dict": with_source(content["state_dict"], filename)}
    return with_source(content, filename)
