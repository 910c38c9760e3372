"""Checks that custom data suits the task of a config.

Custom data is objects in images (a COCO file) for MMDetection, and label maps for
MMSegmentation. Both toolboxes also have configs for tasks that need other data.
"""

from typing import NamedTuple

from mmengine.config import Config

from convnext_dense.config.sections import dataset_configs, transforms
from convnext_dense.errors import InputError

TASK_NAMES = dict(mmdet="object detection", mmseg="semantic segmentation")
DATA_NAMES = dict(
    mmdet="objects, with boxes or masks (a COCO file)",
    mmseg="label maps, with a class for each pixel",
)
INSTANCES = "a config of instance segmentation, such as configs/det/mask_rcnn_*.py"
DETECTORS = "a config of a detector, such as those of configs/det"
SEGMENTORS = "a config of semantic segmentation, such as those of configs/seg"


class Task(NamedTuple):
    """A task that needs other data than custom data.

    Attributes:
        name: in words.
        needs: what its data has beside images.
        instead: the configs that suit custom data.
        types: of data sets, transforms and models, of which only configs for the task
            have some.
    """

    name: str
    needs: str
    instead: str
    types: tuple[str, ...]


TASKS = (
    Task(
        *("panoptic segmentation", "objects and label maps of the rest", INSTANCES),
        ("LoadPanopticAnnotations", "CocoPanopticDataset"),
    ),
    Task(
        *("tracking", "videos with objects that are followed", DETECTORS),
        ("TrackDataPreprocessor", "LoadTrackAnnotations"),
    ),
    Task(
        *("re-identification", "crops with the identity of each", DETECTORS),
        ("ReIDDataPreprocessor", "BaseReID"),
    ),
    Task(
        *("semi-supervised detection", "images without annotations too", DETECTORS),
        ("MultiBranchDataPreprocessor", "SoftTeacher"),
    ),
    Task(
        *("region proposals", "no classes", DETECTORS),
        ("RPN",),
    ),
    Task(
        *("detection in stored proposals", "a file of proposals", DETECTORS),
        ("LoadProposals",),
    ),
    Task(
        *("pre-training with texts", "phrases for the objects", DETECTORS),
        ("ODVGDataset", "RandomSamplingNegPos"),
    ),
    Task(
        *("depth estimation", "depth maps", SEGMENTORS),
        ("LoadDepthAnnotation", "DepthEstimator"),
    ),
    Task(
        *("change detection", "two images of each place", SEGMENTORS),
        ("LoadMultipleRSImageFromFile",),
    ),
    Task(
        *("segmentation of volumes", "medical volumes", SEGMENTORS),
        ("LoadBiomedicalImageFromFile", "LoadBiomedicalData"),
    ),
)


def check_task(cfg: Config) -> None:
    """Check that a config can be trained on custom data of its toolbox.

    Raises:
        InputError: its task needs other data.
    """
    loader = cfg.train_dataloader
    preprocessor = cfg.model.get("data_preprocessor") or {}
    types = {str(preprocessor.get("type")), str(cfg.model.get("type"))}
    types |= {str(dataset["type"]) for dataset in dataset_configs(loader)}
    types |= {str(transform["type"]) for transform in transforms(loader)}
    types = {name.rpartition(".")[2] for name in types}
    for task in TASKS:
        if types & set(task.types):
            raise InputError(
                f"{cfg.filename} is a config of {task.name}, which needs "
                f"{task.needs}. The data is {DATA_NAMES[cfg.default_scope]}: use "
                f"{task.instead}"
            )
