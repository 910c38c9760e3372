"""Every change that this package makes to mmengine and mmcv."""

from . import checkpoint_loading, mmcv_ops, run_checkpoints


def install() -> None:
    """Make the changes; a second call changes nothing."""
    mmcv_ops.install()
    checkpoint_loading.install()
    run_checkpoints.install()
