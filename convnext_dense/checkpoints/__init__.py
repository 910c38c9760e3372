"""Everything that reads or writes a checkpoint file.

sources      from a path, a URL or a model's name to a file on this disk
unpickling   reads a pickle without running code from it
reading      the content of a file, in any format; it uses torch_zip, torch_legacy,
             safetensors_file and storages
other_formats  what to do with a file or a folder that is not read
origins      how each library names a ConvNeXt's parameters: the table, and adapters
layout       the architecture of a ConvNeXt, from the shapes of its tensors
entries      the weights among what a checkpoint holds
recognition  the origin of a checkpoint, from its keys; tensors under native names
variants     of ConvNeXt that cannot be loaded
loading      into a backbone, with one log line on what was used
whole_models into mmengine's detectors and segmentors
run_config   the config that a run wrote into its checkpoint, read as data
run_state    checks the state of a run, before anything is loaded from it
loaded_state checks that the run's optimizers and schedulers can use that state
converting   to another library's names
calls        the call that builds another library's model
writing      a file that is complete or absent

>>> import torch
>>> from convnext_dense import ConvNeXt, checkpoints
>>> torch.save(ConvNeXt("atto").state_dict(), "atto.pth")
>>> backbone = ConvNeXt("atto")
>>> checkpoints.load_pretrained(backbone, "atto.pth")  # or timm://..., hf://..., a URL
>>> content = checkpoints.read("atto.pth")
>>> conversion = checkpoints.convert(content, "atto.pth", to="timm")
>>> sorted(conversion.weights)[:2]
['stages_0.blocks.0.conv_dw.bias', 'stages_0.blocks.0.conv_dw.weight']
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .converting import convert
    from .entries import groups
    from .loading import load_pretrained
    from .reading import read, read_batch
    from .sources import SCHEMES, locate
    from .unpickling import TRUST
    from .whole_models import require_whole, source_of

__all__ = [
    "SCHEMES",
    "TRUST",
    "convert",
    "groups",
    "load_pretrained",
    "locate",
    "read",
    "read_batch",
    "require_whole",
    "source_of",
]
_MODULES = {
    "SCHEMES": "sources",
    "TRUST": "unpickling",
    "convert": "converting",
    "groups": "entries",
    "load_pretrained": "loading",
    "locate": "sources",
    "read": "reading",
    "read_batch": "reading",
    "require_whole": "whole_models",
    "source_of": "whole_models",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the tools' ``--help`` lists
    ``origins`` and shall not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
