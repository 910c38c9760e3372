"""Saves and restores the random generators that a process draws from."""

# ruff: noqa: NPY002 (the toolboxes draw from NumPy's global generator)

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def capture() -> dict:
    """The states of the generators of Python, NumPy, torch and, if in use, the GPU.

    >>> before = capture()
    >>> first = random.random()
    >>> restore(before)
    >>> random.random() == first
    True
    """
    states = dict(
        python=random.getstate(),
        numpy=np.random.get_state(),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore(states: dict) -> None:
    """Restore the states that ``capture`` returned."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


@contextmanager
def drawn_from(*key: int) -> Iterator[None]:
    """Draw random numbers inside that depend only on ``key``.

    Afterwards the generators continue as if nothing had been drawn. A GPU's generator
    is not changed.

    Args:
        key: whole numbers from 0 on.

    >>> with drawn_from(1, 2):
    ...     first = random.random()
    >>> with drawn_from(1, 2):
    ...     random.random() == first
    True
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    # Not torch.manual_seed, which seeds GPUs, too.
    torch.random.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
