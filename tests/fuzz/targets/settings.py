"""Reads configs inside checkpoints, and ``--cfg-options``."""

import copy
import functools
from pathlib import Path
from random import Random

from mmengine.config import Config

from convnext_dense.config.embedded import embedded_config
from convnext_dense.config.options import load_config, use_options
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError

from ...helpers.runs import DET, SEG
from ..case import Files
from ..mutations import python_text, values
from .target import Target


@functools.cache
def _configs() -> tuple[Config, ...]:
    return tuple(load_config(str(file)) for file in (DET, SEG))


@functools.cache
def _config_seeds() -> list[Files]:
    """The configs as a run writes them, and short ones."""
    small = []
    for cfg in _configs():
        kept = {
            key: cfg[key]
            for key in ("default_scope", "custom_imports", "model", "test_dataloader")
            if key in cfg
        }
        small.append(Config(kept))
    return [{"cfg.py": cfg.dump().encode()} for cfg in small]


def _mutate_config(files: Files, rng: Random) -> Files:
    text = files["cfg.py"].decode("utf-8", "surrogatepass")
    changed = python_text.change(text, rng)
    return {"cfg.py": changed.encode("utf-8", "surrogatepass")}


def _use_config(folder: Path) -> None:
    """Read the config as ``predict`` does, and build its model without memory."""
    text = (folder / "cfg.py").read_bytes().decode("utf-8", "surrogatepass")
    cfg = embedded_config(dict(meta=dict(cfg=text)), "c.pth")
    build_model(cfg)


_KEYS = (
    *("model.backbone.arch", "model.backbone.drop_path_rate", "train_cfg.max_epochs"),
    *("data_root", "model.backbone.0.x", "optim_wrapper.optimizer.lr", "work_dir", "x"),
    *("model", "model.type", "default_hooks.checkpoint.interval", "custom_imports", ""),
    *("model.backbone.frozen_stages", "train_dataloader.dataset.pipeline.0.type"),
    *(
        "model.backbone.arch._delete_",
        "_base_",
        "model.roi_head.bbox_head.0.num_classes",
    ),
)
_VALUES = (
    *(
        "1",
        "tiny",
        "None",
        "True",
        "(1,2)",
        "[1,2]",
        "[[1,2],[3]]",
        "'a'",
        '"a"',
        "1e-4",
    ),
    *(
        "[(a,b),c]",
        "dict(a=1)",
        "{}",
        "{'a':1}",
        "[",
        "(",
        "]",
        "[[[",
        "((1)",
        "[,]",
        ",",
    ),
    *(
        "a,b",
        "[a,b",
        "()",
        "[]",
        "'[1'",
        "[1,'a]",
        "__import__('os').system('x')",
        "eval",
    ),
)


@functools.cache
def _option_seeds() -> list[Files]:
    options = ("train_cfg.max_iters=3", "model.backbone.drop_path_rate=0.1")
    return [{"options": option.encode()} for option in options]


def _mutate_option(files: Files, rng: Random) -> Files:
    option = files["options"].decode("utf-8", "surrogatepass")
    match rng.randrange(6):
        case 0 | 1:
            option = f"{rng.choice(_KEYS)}={rng.choice(_VALUES)}"
        case 2:
            option = f"{rng.choice(_KEYS)}={values.word(rng)}"
        case 3:
            bracket = rng.choice(("[", "(", "[(", "[1,", "(a,", "dict(a=", "{1:", "'"))
            option += bracket * rng.choice((1, 30, 300, 3000))
        case 4:
            option += rng.choice(_VALUES) * rng.choice((1, 2, 500))
        case _:
            place = rng.randrange(len(option) + 1)
            option = option[:place] + values.word(rng) + option[place + 1 :]
    return {"options": option.encode("utf-8", "surrogatepass")}


def _use_option(folder: Path) -> None:
    option = (folder / "options").read_bytes().decode("utf-8", "surrogatepass")
    refused = None
    for cfg in _configs():
        try:
            use_options(copy.deepcopy(cfg), [option])
        except InputError as error:
            refused = error
    if refused:
        raise refused


TARGETS_HERE = (
    Target("config", _config_seeds, _mutate_config, _use_config, share=2.5),
    Target("options", _option_seeds, _mutate_option, _use_option, share=0.7),
)
