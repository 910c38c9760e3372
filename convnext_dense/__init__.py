"""ConvNeXt backbones for MMDetection and MMSegmentation.

``custom_imports = dict(imports=['convnext_dense'])`` in a config registers
everything, with either toolbox.
"""

from .errors import MissingStackError

try:
    import mmengine  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mmengine":
        raise
    raise MissingStackError(
        "convnext_dense works with MMDetection and MMSegmentation, and neither is "
        "installed here"
    ) from error

from . import checkpoints, mmcv_ops

# Before the toolboxes' models are imported, which import mmcv.ops.
mmcv_ops.install()
checkpoints.install()

from . import roadmap, sharding  # noqa: E402, F401
from .backbone import ConvNeXt  # noqa: E402
from .datasets import shapes  # noqa: E402, F401
from .layer_decay import LayerDecayOptimWrapperConstructor  # noqa: E402
from .resuming.hook import ExactResumeHook  # noqa: E402, F401
from .run_report.hook import RunReportHook  # noqa: E402, F401
from .watching.hook import WatchHook  # noqa: E402, F401

__version__ = "0.1.0"
__all__ = ["ConvNeXt", "LayerDecayOptimWrapperConstructor"]
