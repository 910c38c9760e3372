"""The model card: the page of a repository, with metadata that the hub reads.

The metadata is described in the hub's documentation, "Model Cards"
(https://huggingface.co/docs/hub/model-cards).
"""

import html
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from mmengine.config import Config

from convnext_dense.errors import printable

from . import hub

_TASKS = {"mmdet": "object-detection", "mmseg": "image-segmentation"}
_TAGS = {"mmdet": "mmdetection", "mmseg": "mmsegmentation"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#|!~])")
_DATA = {"CocoDataset": "COCO", "ADE20KDataset": "ADE20K"}
_PRETRAINED = re.compile(r"timm://(?P<timm>[\w.-]+)|hf://(?P<hf>[\w.-]+/[\w.-]+)")


class Facts(NamedTuple):
    """What a model card says.

    Attributes:
        repository: 'OWNER/NAME'.
        revision: the branch; None is 'main'.
        license_id: of the weights, or None.
        cfg: the config that is uploaded.
        iteration: after which the checkpoint was saved.
        classes: the names of the classes.
        metrics: of the checkpoint's validation, with mmengine's names.
        pictures: their paths in the repository.
    """

    repository: str
    revision: str | None
    license_id: str | None
    cfg: Config
    iteration: int
    classes: Sequence[str]
    metrics: dict[str, float]
    pictures: Sequence[str]


def text(facts: Facts) -> str:
    """The model card as Markdown, with its metadata (YAML) at the top."""
    name = facts.repository.rpartition("/")[2]
    address = hub.address(facts.repository, facts.revision)
    lines = [
        "---",
        _metadata(facts, name),
        "---",
        "",
        f"# {name}",
        "",
        f"{_architecture(facts.cfg)}, trained with convnext_dense.",
        "",
        "## Use it",
        "",
        "```bash",
        "pip install 'convnext-dense[onedl]'",
        f"convnext-dense predict {address} photo.jpg --out out",
        "```",
        "",
        "```python",
        "import convnext_dense",
        "",
        f'predictor = convnext_dense.load("{address}")',
        'sample = predictor("photo.jpg")',
        'predictor.draw("photo.jpg", sample).save("drawn.png")',
        "```",
        "",
        "`config.py` is the config of the run; its paths are placeholders. To train "
        "from these weights:",
        "",
        "```bash",
        f"convnext-dense train config.py --cfg-options load_from={address}",
        "```",
        "",
    ]
    if facts.metrics:
        split = f"On the validation split ({_data_name(facts.cfg)})"
        lines += ["## Metrics", ""]
        lines += [f"{split}, after iteration {facts.iteration:,}:", ""]
        lines += ["| metric | value |", "|---|---|"]
        lines += [
            f"| {_plain(metric)} | {value:g} |"
            for metric, value in facts.metrics.items()
        ]
        lines.append("")
    lines += [f"## Classes ({len(facts.classes)})", ""]
    lines += [", ".join(map(_plain, facts.classes)), ""]
    if facts.pictures:
        lines += ["## Predictions for images of the validation split", ""]
        lines += [f"![prediction]({picture})" for picture in facts.pictures]
        lines.append("")
    return "\n".join(lines)


def _plain(value: str) -> str:
    """A name as Markdown shows it: no markup, no HTML."""
    return _MARKDOWN.sub(r"\\\1", html.escape(printable(str(value)), quote=False))


def _architecture(cfg: Config) -> str:
    """The model in words, such as 'UPerHead with ConvNeXt (tiny)'."""
    backbone, head = cfg.model.get("backbone", {}), cfg.model.get("decode_head")
    name = head["type"] if isinstance(head, dict) and "type" in head else cfg.model.type
    arch = backbone.get("arch")
    size = f" ({_plain(arch)})" if isinstance(arch, str) else ""
    return f"{_plain(name)} with {_plain(backbone.get('type', 'a backbone'))}{size}"


def _data_name(cfg: Config) -> str:
    """The name of the validation data, if it has a public data set's own classes."""
    dataset = (cfg.get("val_dataloader") or {}).get("dataset", {})
    name = _DATA.get(dataset.get("type", ""))
    return name if name and not dataset.get("metainfo") else "custom data"


def _base_model(cfg: Config) -> str | None:
    """The repository of the pre-trained weights, if the config names one on the hub."""
    init_cfg = cfg.model.get("backbone", {}).get("init_cfg")
    source = init_cfg.get("checkpoint") if isinstance(init_cfg, dict) else None
    match = _PRETRAINED.match(str(source))
    return (match["timm"] and f"timm/{match['timm']}") or match["hf"] if match else None


def _metadata(facts: Facts, name: str) -> str:
    """The metadata as YAML, with the metrics as the hub's model index."""
    from huggingface_hub import EvalResult, ModelCardData

    scope = facts.cfg.default_scope
    task = _TASKS[scope]
    data = _data_name(facts.cfg)
    results = [
        EvalResult(
            task_type=task,
            dataset_type=data.lower().replace(" ", "-"),
            dataset_name=data,
            dataset_split="validation",
            metric_type=metric.rpartition("/")[2],
            metric_name=metric,
            metric_value=float(f"{value:.6g}"),
        )
        for metric, value in facts.metrics.items()
        if math.isfinite(value)
    ]
    return ModelCardData(
        license=facts.license_id,
        library_name="convnext_dense",
        pipeline_tag=task,
        tags=["convnext", _TAGS[scope]],
        base_model=_base_model(facts.cfg),
        model_name=name if results else None,
        eval_results=results or None,
    ).to_yaml()
