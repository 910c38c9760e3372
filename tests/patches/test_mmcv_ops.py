"""How mmcv's compiled module is replaced where there is none."""

from importlib.util import find_spec

import pytest
import torch

from convnext_dense.patches import mmcv_ops

from ..helpers.running import shell

pytestmark = pytest.mark.skipif(
    find_spec("mmcv._ext").origin != mmcv_ops.__file__,
    reason="this mmcv has compiled ops",
)


def test_op_without_stand_in_names_itself_and_the_remedy():
    from mmcv.ops import three_nn

    with pytest.raises(NotImplementedError, match=r"'three_nn_forward'.*pip install"):
        three_nn(torch.rand(1, 4, 3), torch.rand(1, 4, 3))


def fresh(code):
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_is_enough_and_says_so_once():
    said = fresh(
        "import convnext_dense, mmdet.models, mmseg.models\n"
        "from mmengine.utils.dl_utils import collect_env; collect_env()\n"
        "from mmcv.ops import get_compiler_version; print(get_compiler_version())"
    )
    assert said.count("mmcv has no compiled ops here") == 1
    assert "stand-ins of convnext_dense" in said


def test_compiled_ops_are_never_replaced(tmp_path):
    """With a compiled module in mmcv's folder, the stand-ins stay away."""
    (tmp_path / "_ext.py").write_text("origin = 'compiled'")
    said = fresh(
        "import mmcv, convnext_dense\n"
        f"mmcv.__path__.append({str(tmp_path)!r})\n"
        "import mmcv._ext as ext; print(ext.origin)"
    )
    assert "compiled" in said
    assert "no compiled ops" not in said
