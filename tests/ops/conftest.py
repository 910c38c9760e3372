"""The stand-ins are tested through mmcv, where no compiled ops take their place."""

from importlib.util import find_spec

import pytest

from convnext_dense.patches import mmcv_ops


@pytest.fixture(autouse=True)
def not_compiled():
    if find_spec(mmcv_ops.NAME).origin != mmcv_ops.__file__:
        pytest.skip("this mmcv has compiled ops")
