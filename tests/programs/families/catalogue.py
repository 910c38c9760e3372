"""The model families that mmdet and mmseg ship, and a config of each."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

TOOLBOXES = ("mmdet", "mmseg")

# Folders without models of their own: bases, schedules, and data sets' descriptions.
NO_FAMILIES = {"_base_", "common", "dsdl"}

_FRAMES = "trains on frames of a video, with labels of tracks"
_TRACKER = "a tracker around a detector of another family; nothing more is trained"
LEFT_OUT = {
    "mmdet/bytetrack": _TRACKER,
    "mmdet/deepsort": _TRACKER,
    "mmdet/ocsort": _TRACKER,
    "mmdet/sort": _TRACKER,
    "mmdet/strongsort": _TRACKER,
    "mmdet/qdtrack": _FRAMES,
    "mmdet/masktrack_rcnn": _FRAMES,
    "mmdet/mask2former_vis": _FRAMES,
    "mmdet/reid": "a classifier of persons for trackers",
}
"""Families that the sweep leaves out, with the reason."""

# Where the shortest name of the smallest model is not what the family is about.
CONFIGS = {
    "mmdet/cascade_rpn": "cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py",
    "mmdet/dcn": "faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py",
    "mmdet/dcnv2": "faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py",
    "mmdet/fpg": "faster-rcnn_r50_fpg-chn128_crop640-50e_coco.py",
    "mmdet/glip": "glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py",
    "mmdet/groie": "mask-rcnn_r50_fpn_groie_1x_coco.py",
    "mmdet/htc": "htc_r50_fpn_1x_coco.py",
    "mmdet/nas_fpn": "retinanet_r50_nasfpn_crop640-50e_coco.py",
    "mmdet/detectors": "detectors_cascade-rcnn_r50_1x_coco.py",
    "mmdet/libra_rcnn": "libra-faster-rcnn_r50_fpn_1x_coco.py",
    "mmdet/mask2former": "mask2former_r50_8xb2-lsj-50e_coco.py",
    "mmdet/nas_fcos": "nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py",
    "mmdet/openimages": "faster-rcnn_r50_fpn_32xb2-1x_openimages.py",
    "mmdet/timm_example": "retinanet_timm-tv-resnet50_fpn_1x_coco.py",
    "mmdet/gcnet": "mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco.py",
    "mmseg/swin": (
        "swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py"
    ),
    "mmseg/setr": "setr_vit-l_naive_8xb2-160k_ade20k-512x512.py",
    "mmseg/upernet": "upernet_r18_4xb2-40k_cityscapes-512x1024.py",
    "mmseg/knet": "knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py",
}
"""The config of a family that the rule would not choose."""

MORE_CONFIGS = {
    "mmdet/dcn+dpool": "faster-rcnn_r50_fpn_dpool_1x_coco.py",
    "mmdet/dcnv2+mdpool": "faster-rcnn_r50_fpn_mdpool_1x_coco.py",
    "mmdet/mask2former+panoptic": "mask2former_r50_8xb2-lsj-50e_coco-panoptic.py",
    "mmdet/guided_anchoring+retinanet": "ga-retinanet_r50_fpn_1x_coco.py",
    "mmdet/pascal_voc+c4": "faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py",
    "mmdet/rtmdet+ins": "rtmdet-ins_tiny_8xb32-300e_coco.py",
    "mmseg/setr+mla": "setr_vit-l_mla_8xb2-160k_ade20k-512x512.py",
    "mmdet/solov2+dcn": "solov2-light_r50-dcn_fpn_ms-3x_coco.py",
}
"""A second model of a family, with other ops or annotations."""

SLOW = ("cornernet", "centripetalnet", "v3det", "glip", "grounding", "detectors", "san")

# The words of a config's name that tell the size of its backbone, from small to large.
_SIZES = (
    *("atto", "nano", "tiny", "slim", "b0", "t", "r18", "hr18", "w18", "s12", "s"),
    *("effb3", "400MF", "r34", "r50", "s50"),
)


class Family(NamedTuple):
    """A row of the table.

    Attributes:
        name: "TOOLBOX/FOLDER", or "TOOLBOX/FOLDER+MODEL" for a second model.
        config: the config's file.
    """

    name: str
    config: Path

    @property
    def toolbox(self) -> str:
        """The name of the toolbox's package."""
        return self.name.partition("/")[0]


def config_root(toolbox: str) -> Path:
    """The folder with the configs that the installed toolbox ships.

    Raises:
        SystemExit: the toolbox is not installed.
    """
    spec = importlib.util.find_spec(toolbox)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{toolbox} is not installed")
    return Path(spec.origin).parent / ".mim" / "configs"


def families(toolboxes=TOOLBOXES, names=()) -> list[Family]:
    """The families of the installed toolboxes, those that take long first.

    Args:
        toolboxes: which of ``TOOLBOXES``.
        names: of families, with or without the toolbox; all if empty.

    Raises:
        SystemExit: no family has one of the names.
    """
    everything = []
    for toolbox in toolboxes:
        root = config_root(toolbox)
        for folder in sorted(root.iterdir()):
            name = f"{toolbox}/{folder.name}"
            if folder.is_dir() and folder.name not in NO_FAMILIES:
                everything.append(Family(name, _choose(name, folder)))
        for name, file in MORE_CONFIGS.items():
            config = root / name.partition("/")[2].partition("+")[0] / file
            if name.startswith(toolbox) and config.exists():
                everything.append(Family(name, config))
    for name in names:
        if not any(_matches(family, name) for family in everything):
            raise SystemExit(f"no family is called {name!r}")
    chosen = [
        family
        for family in everything
        if not names or any(_matches(family, name) for name in names)
    ]
    return sorted(chosen, key=lambda f: not any(word in f.name for word in SLOW))


def _matches(family: Family, name: str) -> bool:
    return name in (family.name, family.name.partition("/")[2])


def _choose(name: str, folder: Path) -> Path:
    if name in CONFIGS:
        return folder / CONFIGS[name]
    files = [path for path in folder.glob("*.py") if not path.name.startswith("_")]
    return min(files, key=_cost)


def _cost(path: Path) -> tuple[int, int, str]:
    """Sorts the configs of a family: small backbones first, then short names."""
    words = re.split("[-_.]", path.name.replace("regnetx-", ""))
    sizes = [i for i, size in enumerate(_SIZES) if size in words]
    return min(sizes, default=len(_SIZES)), len(path.name), path.name
