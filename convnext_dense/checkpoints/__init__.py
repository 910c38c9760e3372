"""Everything that reads a checkpoint file: safely, with a word on what was used."""

from .loading import load_pretrained
from .reading import URL, install, locate, read

__all__ = ["URL", "install", "load_pretrained", "locate", "read"]
