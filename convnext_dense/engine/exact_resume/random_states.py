"""Saves and restores the random generators that a process draws from."""

# ruff: noqa: NPY002 (the toolboxes draw from NumPy's global generator)

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from convnext_dense.utils.text import reason

_WORDS = 624  # of the generators of Python and NumPy
_DRAWS = 2 * _WORDS


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


def problem(states: object) -> str | None:
    """Why ``restore`` could not restore ``states``; None if it can.

    The states are tried on other generators. NumPy would read outside of its memory
    with a wrong position. With some states, such as zeros, a generator returns the
    same number for ever, and a loop that waits for another one does not end.

    >>> problem(capture())
    >>> problem(dict(python=1))
    'that are not states of generators'
    """
    match states:
        case {
            "python": (int() as version, [*numbers], float() | None as gauss),
            "numpy": ("MT19937", np.ndarray() as keys, int() as position, _, _) as ours,
            "torch": torch.Tensor() as torch_state,
            **others,
        } if (
            len(numbers) == _WORDS + 1
            and keys.shape == (_WORDS,)
            and keys.dtype == np.uint32
            and 0 <= position <= _WORDS
            and torch_state.numel() == torch.get_rng_state().numel()
            and _is_bytes(others.get("cuda", torch_state))
        ):
            pass
        case _:
            return "that are not states of generators"
    alone, of_numpy = random.Random(), np.random.RandomState()
    of_torch = torch.Generator()
    try:
        alone.setstate((version, tuple(numbers), gauss))
        of_numpy.set_state(ours)
        of_torch.set_state(torch_state.cpu())
        draws = (
            {alone.getrandbits(32) for _ in range(_DRAWS)},
            set(of_numpy.randint(2**31, size=_DRAWS).tolist()),
            set(torch.randint(2**31, (_DRAWS,), generator=of_torch).tolist()),
        )
    except Exception as error:  # each library raises its own
        return f"that cannot be restored ({reason(error)})"
    if min(map(len, draws)) < _DRAWS // 2:
        return "that return the same number again and again"
    return None


def _is_bytes(value: object) -> bool:
    """Whether a value is a tensor of bytes that a generator's state may be."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == torch.uint8
        and value.numel() <= torch.get_rng_state().numel()
    )


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
