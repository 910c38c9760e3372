"""The free memory, and the limit on what a library takes."""

import resource
from pathlib import Path

import numpy as np
import pytest

from convnext_dense.utils.memory import _address_space, at_most, free_memory

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs Linux"
)


def test_allocations_fail_within_the_limit_only():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with at_most(2**30):
        np.empty(2**28, np.uint8)
        with pytest.raises(MemoryError):
            np.empty(2**33, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    np.empty(2**33, np.uint8)  # nothing is written, so nothing is taken
    with pytest.raises(KeyError), at_most(2**30):
        raise KeyError
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_limit_of_the_shell_counts(monkeypatch):
    limits = (_address_space() + 10**8, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert 0 <= free_memory() <= 10**8
    set_limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: set_limits.append(new))
    with at_most(2**60):
        pass
    assert set_limits == [limits, limits]  # never above that of the shell
