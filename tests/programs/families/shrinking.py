"""A family's model in small, without downloads.

The structure stays as shipped. ``CHANGES`` says what changes, for the table's note.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from .catalogue import Family, config_root
from .data import TEXTS

CHANGES = (
    "weights are random instead of pretrained",
    "images have 64 x 64 pixels (corner detectors and DetectoRS 128, SSD 300, "
    "MobileNetV3 416, "
    "CLRNet 320 x 800)",
    "batch augmentations, which resize and pad, are off",
    "an RPN gives 50 proposals, RoI heads train with 16 sampled RoIs, and a detector "
    "predicts 50 objects",
    "more than 50 queries become 50, because small images have few positions",
    "BERT has two layers and a vocabulary of a few words",
    "SyncBN becomes BN",
)

SIZES = {
    "mmdet/ssd": 300,
    "mmdet/cornernet": 128,
    "mmdet/centripetalnet": 128,
    "mmseg/mobilenet_v3": 416,  # its head pools 49 x 49 positions of stride 8
    "mmdet/detectors": 128,  # pads the deepest map by two positions
}
MOST = {
    "num_queries": 50,
    "sos_token_num": 50,
    "num_proposals": 50,
    "nms_pre": 100,
    "max_per_img": 50,
}
LINE_SIZE = (320, 800)  # CLRNet's head has it as a default


def image_size(family: Family) -> int:
    """Height and width of the made images, in pixels."""
    return SIZES.get(family.name, 64)


def small_model(family: Family, folder: Path) -> ConfigDict:
    """The config of a family's model, changed as ``CHANGES`` says.

    Args:
        family: whose config is read.
        folder: where the files of a small BERT may be written.
    """
    model = Config.fromfile(family.config).model
    size = image_size(family)
    for node in dicts(model):
        if node.get("init_cfg") and "checkpoint" in str(node.init_cfg):
            node.init_cfg = None
        for key in ("pretrained", "teacher_ckpt"):
            if key in node:
                node[key] = False if isinstance(node[key], bool) else None
        if node.get("type") in ("SyncBN", "MMSyncBN"):
            node.type = "BN"
        if "batch_augments" in node:
            node.batch_augments = None
        if "num" in node and node.get("type", "").endswith("Sampler"):
            node.num = min(node.num, 16)
        for key, most in MOST.items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], most)
        for key in ("name", "lang_model_name"):
            if node.get(key) == "bert-base-uncased":
                node[key] = str(_small_bert(folder))
    _fit_image_size(model, size)
    if "img_size" in model.get("backbone", {}):  # of a position embedding
        model.backbone.img_size = (size, size)
    if "teacher_config" in model:
        path = Path(model.teacher_config).relative_to("configs")
        model.teacher_config = Config.fromfile(config_root(family.toolbox) / path)
        for node in dicts(model.teacher_config.model):
            if node.get("init_cfg") and "checkpoint" in str(node.init_cfg):
                node.init_cfg = None
    return model


def dicts(node) -> Iterator[ConfigDict]:
    """A config and all dicts in it, from the outside in."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from dicts(child)


def smallest(model: ConfigDict, key: str, default: int) -> int:
    """The smallest number that ``key`` has anywhere in a model's config."""
    values = [node[key] for node in dicts(model) if isinstance(node.get(key), int)]
    return min(values, default=default)


def _fit_image_size(model: ConfigDict, size: int) -> None:
    preprocessor = model.get("data_preprocessor") or {}
    if preprocessor.get("size"):
        preprocessor["size"] = (size, size)
    if (preprocessor.get("size_divisor") or 0) > size:
        preprocessor["size_divisor"] = size


def _small_bert(folder: Path) -> Path:
    """Write a BERT with random weights, in the files of Hugging Face."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = folder / "bert"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *TEXTS]
        (folder / "vocab.txt").write_text("\n".join(words))
        (folder / "tokenizer_config.json").write_text(
            json.dumps(dict(tokenizer_class="BertTokenizer", do_lower_case=True))
        )
        BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
        config = BertConfig(vocab_size=len(words), num_hidden_layers=2)
        BertModel(config).save_pretrained(folder)
    return folder
