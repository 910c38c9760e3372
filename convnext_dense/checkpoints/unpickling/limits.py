"""What the calls of one pickle may cost, and what may be a key of its dicts."""

from collections.abc import Iterable
from pathlib import PurePath

import torch

from .names import Named
from .refused import Refused, TooMuch

# Dict keys that are neither text nor ordinary numbers. A file can give them equal
# hashes; each then takes time in proportion to their number.
MOST_ODD_KEYS = 10_000

_KEYS = (
    *(str, bytes, type(None), bool, int, float, complex, torch.dtype, PurePath),
    Named,  # its hash is that of the object, which a file cannot choose
)


class Limits:
    """What the calls of one pickle may cost together.

    Args:
        size: of the pickle, in bytes.
    """

    def __init__(self, size: int) -> None:
        # A few times the file: a small one must not have a large list copied over and
        # over again.
        self._budget = 16 * size + 2**20
        self._odd_keys = 0

    def spend(self, amount: int) -> None:
        """Note that so many bytes or entries are copied.

        Raises:
            TooMuch: together, they are far more than the pickle has.
        """
        self._budget -= amount
        if self._budget < 0:
            raise TooMuch("its pickle copies the same content again and again")

    def check_keys(self, keys: Iterable) -> None:
        """Check the keys of a dict, or the members of a set, before it is filled.

        Raises:
            Refused: one is not text, a number or a tuple of these. The time to hash
                nested tuples can grow without bound.
            TooMuch: many have hashes that a file can choose.
        """
        for key in keys:
            # The hashes of text differ from process to process.
            if type(key) in (str, bytes) or key is None:
                continue
            if type(key) is int and -(2**60) < key < 2**60:
                continue
            for value in key if type(key) is tuple else (key,):
                if not isinstance(value, _KEYS):
                    raise Refused(f"a dict or set with a {type(value).__name__} as key")
            self._odd_keys += 1
            if self._odd_keys > MOST_ODD_KEYS:
                raise TooMuch(
                    f"over {MOST_ODD_KEYS:,} keys of its dicts are neither text nor "
                    "ordinary numbers"
                )
