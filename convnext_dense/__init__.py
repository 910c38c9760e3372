"""ConvNeXt backbones for MMDetection and MMSegmentation.

``custom_imports = dict(imports=['convnext_dense'])`` in a config registers
everything, with either toolbox.
"""

import sys

# ``python -m convnext_dense`` runs this file before it runs __main__.py. The imports
# wait then: commands.run runs this file again when the arguments are parsed.
if sys.argv[:1] != ["-m"] or not {"convnext_dense", "-mconvnext_dense"} & set(
    sys.orig_argv
):
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

    from . import patches

    # Before the toolboxes' models are imported, which import mmcv.ops.
    patches.install()

    # Importing these registers their types.
    from .datasets import shapes  # noqa: F401
    from .engine import fsdp  # noqa: F401
    from .engine.exact_resume.hook import ExactResumeHook  # noqa: F401
    from .engine.watch.hook import WatchHook  # noqa: F401
    from .models.convnext import ConvNeXt
    from .optim.layer_decay import LayerDecayOptimWrapperConstructor
    from .projects import roadmap  # noqa: F401
    from .reports.run.hook import RunReportHook  # noqa: F401
    from .version import __version__

    __all__ = ["ConvNeXt", "LayerDecayOptimWrapperConstructor", "__version__"]
