"""The states of every random generator that a process draws from."""

# ruff: noqa: NPY002 (the toolboxes draw from NumPy's global generator)

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def capture() -> dict:
    """Those of Python, NumPy, torch and, where it is in use, of this process's GPU."""
    states = dict(
        python=random.getstate(),
        numpy=np.random.get_state(),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore(states: dict) -> None:
    """Go on drawing where ``capture`` was called."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


@contextmanager
def drawn_from(*key: int) -> Iterator[None]:
    """Draw from generators that ``key`` alone determines, and leave the others be.

    Args:
        key: whole numbers from 0 on.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    # Not torch.manual_seed, which seeds GPUs too.
    torch.random.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
