"""Everything that reads or writes a checkpoint file.

sources      what a user names -> a file on this disk
unpickling   without running code
reading      file -> its content
origins      how each library names a ConvNeXt's parameters
recognition  a checkpoint's origin, from its keys; tensors under native names
loading      into a backbone, with a word on what was used
whole_models the same for mmengine's detectors and segmentors
converting   the other way: under another library's names
writing      whole or not at all
"""

from .loading import groups, load_pretrained
from .reading import read, read_batch
from .sources import SCHEMES, locate
from .unpickling import TRUST
from .whole_models import require_whole, source_of

__all__ = [
    "SCHEMES",
    "TRUST",
    "groups",
    "load_pretrained",
    "locate",
    "read",
    "read_batch",
    "require_whole",
    "source_of",
]
