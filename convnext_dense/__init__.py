"""ConvNeXt backbones for MMDetection and MMSegmentation.

``custom_imports = dict(imports=['convnext_dense'])`` in a config registers
everything, with either toolbox.
"""

from convnext_dense.errors import MissingStackError

try:
    import mmengine  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mmengine":
        raise
    raise MissingStackError(
        "convnext_dense works with MMDetection and MMSegmentation, and neither is "
        "installed here"
    ) from error

from convnext_dense import checkpoints
from convnext_dense.patches import mmcv_ops

# Before the toolboxes' models are imported, which import mmcv.ops.
mmcv_ops.install()
checkpoints.install()

from convnext_dense.datasets import shapes  # noqa: E402, F401
from convnext_dense.engine import fsdp  # noqa: E402, F401
from convnext_dense.engine.exact_resume.hook import ExactResumeHook  # noqa: E402, F401
from convnext_dense.engine.watch.hook import WatchHook  # noqa: E402, F401
from convnext_dense.models.convnext import ConvNeXt  # noqa: E402
from convnext_dense.optim.layer_decay import LayerDecayOptimWrapperConstructor  # noqa: E402
from convnext_dense.projects import roadmap  # noqa: E402, F401
from convnext_dense.reports.run.hook import RunReportHook  # noqa: E402, F401

__version__ = "0.1.0"
__all__ = ["ConvNeXt", "LayerDecayOptimWrapperConstructor"]
