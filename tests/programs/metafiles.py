"""Writes the files that mim reads: ``python -m tests.programs.metafiles``.

``configs/det/metafile.yml`` and ``configs/seg/metafile.yml`` have an entry for each
config: its parameters and multiply-adds, counted here, and the numbers and weights of
``configs/paper.json``. ``model-index.yml`` names the two.
"""

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from convnext_dense.commands.complexity import counting
from convnext_dense.config import options, shipped
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT

METRICS = {  # of paper.json: task, and the name in the toolboxes' metafiles
    "box_ap": ("Object Detection", "box AP"),
    "mask_ap": ("Instance Segmentation", "mask AP"),
    "miou_ss": ("Semantic Segmentation", "mIoU"),
    "miou_ms": ("Semantic Segmentation", "mIoU(ms+flip)"),
}
DATA_SETS = {
    "coco_o": "COCO-O",
    "coco": "COCO",
    "ade20k": "ADE20K",
    "imagenet_s919": "ImageNet-S",
    "shapes": "shapes (built in)",
}
COLLECTIONS = {
    "convnext": ("ConvNeXt", "A ConvNet for the 2020s", "2201.03545"),
    "convnextv2": (
        "ConvNeXt V2",
        "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
        "2301.00808",
    ),
}
HEAD = "# Written by python -m tests.programs.metafiles; mim reads it.\n"


def entry(name: str, published: dict[str, Any]) -> dict[str, Any]:
    """The metafile's entry of a config.

    Args:
        name: such as ``det/mask_rcnn_convnext_t_coco``.
        published: its row of ``paper.json``, or an empty one.
    """
    cfg = options.load_config(shipped.resolve(name))
    bare = Path(name).name
    data_set = next(text for key, text in DATA_SETS.items() if key in bare)
    metadata = {"Training Data": data_set, **complexity(cfg, published.get("shape"))}
    for key, title in ("max_epochs", "Epochs"), ("max_iters", "Iterations"):
        if key in (cfg.get("train_cfg") or {}):
            metadata[title] = cfg.train_cfg[key]
    results: dict[str, dict] = {}
    for key, (task, metric) in METRICS.items():
        if key in published:
            results.setdefault(task, {})[metric] = published[key]
    model = {
        "Name": bare,
        "In Collection": COLLECTIONS[collection_of(bare)][0],
        "Config": f"configs/{name}.py",
        "Metadata": metadata,
    }
    if results:
        model["Results"] = [
            {"Task": task, "Dataset": data_set, "Metrics": metrics}
            for task, metrics in results.items()
        ]
    if "weights" in published:
        model["Weights"] = published["weights"]
    return model


def collection_of(bare: str) -> str:
    """The key of ``COLLECTIONS`` that a config belongs to."""
    return "convnextv2" if "convnextv2" in bare else "convnext"


def complexity(cfg: Any, shape: list[int] | None) -> dict[str, str]:
    """Parameters, and multiply-adds where the model runs without annotations."""
    try:
        counted = counting.measure(copy.deepcopy(cfg), shape and tuple(shape))
    except InputError:  # queries need the annotations of an image
        model = build_model(cfg)
        params = sum(parameter.numel() for parameter in model.parameters())
        return {"Parameters": f"{params / 1e6:.1f} M"}
    height, width = counted.shape
    return {
        "Parameters": f"{counted.params / 1e6:.1f} M",
        "Multiply-adds": f"{counted.macs / 1e9:.0f} G at {height} x {width}",
    }


def main() -> None:
    """Write the three files."""
    published = json.loads((shipped.folder() / "paper.json").read_text())
    collections = [
        {
            "Name": name,
            "Metadata": {"Architecture": [name]},
            "Paper": {"Title": title, "URL": f"https://arxiv.org/abs/{number}"},
            "README": "configs/README.md",
        }
        for name, title, number in COLLECTIONS.values()
    ]
    imports = ["configs/det/metafile.yml", "configs/seg/metafile.yml"]
    _write("model-index.yml", {"Import": imports, "Collections": collections})
    for task in "det", "seg":
        names = [name for name in shipped.names() if name.startswith(task)]
        models = [entry(name, published.get(Path(name).name, {})) for name in names]
        _write(f"configs/{task}/metafile.yml", {"Models": models})


def _write(file: str, content: dict) -> None:
    text = yaml.safe_dump(content, sort_keys=False, width=200)
    (ROOT / file).write_text(HEAD + text)


if __name__ == "__main__":
    main()
