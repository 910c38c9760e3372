"""Whether checkpoints may run code: the user's choice."""

import os

TRUST = "CONVNEXT_DENSE_TRUST_CHECKPOINT"


def trusted() -> bool:
    """Whether the user has asked for unrestricted unpickling."""
    return os.environ.get(TRUST) == "1"
