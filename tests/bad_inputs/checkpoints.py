"""Checkpoint files, however they are given."""

import json
import os
import struct
import zipfile
from collections.abc import Callable

import torch

from convnext_dense import ConvNeXt

from ..helpers.hostile_pickle import Run
from ..helpers.peers import timm_name
from .case import DET, Case, write
from .weights import save, small_config

FC = "roi_head.bbox_head.0.fc_cls.weight"
GAMMA = "backbone.stages.1.0.gamma"


def test(mistake: str, change: Callable, says: str) -> Case:
    """Test a checkpoint after ``change(content)``."""
    return Case(
        "test", mistake, lambda t: [small_config(t), save(t, change=change)], says
    )


def load_from(mistake: str, change: Callable, says: str) -> Case:
    """Train from a checkpoint, as ``load_from``."""

    def arguments(t):
        file = save(t, change=change)
        return [small_config(t), "--cfg-options", f"load_from={file}"]

    return Case("train", f"load_from: {mistake}", arguments, says)


def resume(mistake: str, change: Callable, says: str) -> Case:
    def arguments(t):
        return [small_config(t), "--resume", save(t, change=change)]

    return Case("train", f"--resume: {mistake}", arguments, says)


def init_cfg(mistake: str, change: Callable | str, says: str) -> Case:
    """Train with a backbone that starts from a checkpoint, or a URL."""

    def arguments(t):
        source = change if isinstance(change, str) else save(t, change=change)
        more = f", init_cfg=dict(type='Pretrained', checkpoint={str(source)!r})"
        return [small_config(t, more=more)]

    return Case("train", f"init_cfg: {mistake}", arguments, says)


def file(mistake: str, content: str | bytes, says: str, name: str = "x.pth") -> Case:
    """Test a file of that content."""
    return Case("test", mistake, lambda t: [DET, write(t / name, content)], says)


def damaged(mistake: str, change: Callable, says: str) -> Case:
    """Test a checkpoint after ``change(bytes)``."""

    def arguments(t):
        path = save(t)
        return [DET, write(path, change(path.read_bytes()))]

    return Case("test", mistake, arguments, says)


def predict(mistake: str, change: Callable, says: str) -> Case:
    def arguments(t):
        images = t / "data/shapes/images/val"
        return [save(t, change=change), images, "--out", "out"]

    return Case("predict", mistake, arguments, says)


def with_weight(name: str, change: Callable) -> Callable:
    def changed(content):
        weights = content["state_dict"]
        return dict(content, state_dict={**weights, name: change(weights[name])})

    return changed


def with_meta(**more) -> Callable:
    return lambda content: dict(content, meta={**content["meta"], **more})


def weights_of_backbone(content) -> dict:
    weights = content["state_dict"].items()
    return {name: v for name, v in weights if name.startswith("backbone.")}


def backbone(content) -> dict:
    """Its backbone alone, under timm's names."""
    weights = {name[9:]: v for name, v in weights_of_backbone(content).items()}
    return {timm_name(name): v for name, v in weights.items() if name[:4] != "norm"}


def halved(weights: dict) -> dict:
    """Other values, as an average of weights has."""
    return {name: value / 2 for name, value in weights.items()}


def as_run(**meta) -> Callable:
    """With what a run saves beside its weights, so that it could go on."""

    def changed(content):
        hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
        return dict(
            content,
            meta={**content["meta"], "epoch": 1, "iter": 8, **meta},
            message_hub=hub,
            optimizer=dict(state={}, param_groups=[]),
        )

    return changed


def with_best_score(score: object) -> Callable:
    def changed(content):
        content = as_run()(content)
        content["message_hub"]["runtime_info"]["best_score"] = score
        return content

    return changed


def hostile(content) -> dict:
    return dict(content, meta=Run(os.mkdir, "mark"), optimizer={})


def flipped(content: bytes) -> bytes:
    """A byte in the middle is another."""
    bad = bytearray(content)
    bad[len(bad) // 2] ^= 1
    return bytes(bad)


def zipped(t):
    with zipfile.ZipFile(t / "x.pth", "w") as archive:
        archive.writestr("photo.txt", "holiday")
    return [DET, t / "x.pth"]


def shards(t):
    index = dict(weight_map={"a": "model-1.safetensors", "b": "model-2.safetensors"})
    return [DET, write(t / "model.safetensors.index.json", json.dumps(index))]


def convert(mistake: str, change: Callable, says: str, *more: str) -> Case:
    """Convert a checkpoint after ``change(content)``."""

    def arguments(t):
        return [save(t, change=change), "y.pth", "--to", "timm", *more]

    return Case("convert_checkpoint", mistake, arguments, says)


def renamed(prefix: str, content) -> dict:
    """The weights of a checkpoint with something before each name."""
    return {f"{prefix}{name}": v for name, v in content["state_dict"].items()}


def student_and_teacher(content) -> dict:
    return dict(
        state_dict={**renamed("student.", content), **renamed("teacher.", content)}
    )


class Settings:
    """A class that only the script which wrote the file has."""


def with_an_object_in_its_run(content) -> dict:
    content = as_run()(content)
    content["message_hub"]["runtime_info"]["settings"] = Settings()
    return content


def overlapping_stem(content) -> dict:
    stem = {"stem.0.weight": torch.rand(20, 3, 3, 3), "stem.0.bias": torch.rand(20)}
    return {**backbone(content), **stem}


def sharded(t):
    for name in (".metadata", "__0_0.distcp"):
        write(t / "step_9" / name, "")
    return [t / "step_9", "y.pth", "--to", "timm"]


CONFIG_IN_IT = """default_scope = 'mmseg'
test_dataloader = dict(dataset=dict(
    type='ADE20KDataset', pipeline=[dict(type='LoadImageFromFile')]))
model = dict(type='EncoderDecoder', """
DAMAGED = "is damaged or not a checkpoint: "
NOT_READ = "x.pth was not read: it asks for posix.mkdir, which no checkpoint needs"
NOTHING = "holds a backbone (timm) and nothing else of this CascadeRCNN"

CASES = [
    Case(
        *("test", "a file that is not there"),
        lambda t: [DET, "nowhere.pth"],
        "no checkpoint at nowhere.pth",
    ),
    Case(
        *("test", "the checkpoint before the config"),
        lambda t: [save(t), DET],
        "x.pth is a checkpoint: give the config before it",
    ),
    Case(
        *("test", "a folder"),
        lambda t: [DET, t / "data"],
        "no checkpoint at .../data (a folder, without model.safetensors)",
    ),
    file("an empty file", "", f"x.pth {DAMAGED}it is empty"),
    file("a page that says 404", "<!DOCTYPE html><html>404</html>", f"x.pth {DAMAGED}"),
    Case("test", "a zip of something else", zipped, f"x.pth {DAMAGED}"),
    damaged(
        "a file cut short", lambda b: b[: len(b) // 2], DAMAGED + "it is cut short"
    ),
    damaged("a byte that has changed", flipped, "has changed since it was written"),
    file(
        "safetensors with a broken header",
        struct.pack("<Q", 20) + b"{" + b"x" * 40,
        f"x.safetensors {DAMAGED}",
        "x.safetensors",
    ),
    file(
        "safetensors with a header of 4 EiB",
        struct.pack("<Q", 2**62) + b"{}",
        f"x.safetensors {DAMAGED}",
        "x.safetensors",
    ),
    Case(
        *("test", "an index whose shards are not there"),
        shards,
        "names 2 files and 2 of them are missing: model-1.safetensors, model-2",
    ),
    test("a file that would run code", hostile, NOT_READ),
    load_from("a file that would run code", hostile, NOT_READ),
    resume("a file that would run code", hostile, NOT_READ),
    init_cfg("a file that would run code", hostile, NOT_READ),
    predict("a file that would run code", hostile, NOT_READ),
    Case(
        *("convert_checkpoint", "a file that would run code"),
        lambda t: [save(t, change=hostile), "y.pth", "--to", "timm"],
        NOT_READ,
    ),
    Case(
        *("export", "a file that would run code"),
        lambda t: [
            *(small_config(t), save(t, change=hostile)),
            *("--backbone", "--out", "y.pt2"),
        ],
        NOT_READ,
    ),
    test("a list", lambda c: [1, 2], "x.pth holds a list, not weights"),
    init_cfg("a list", lambda c: [1, 2], "x.pth holds a list, not weights"),
    test("an empty dict", lambda c: {}, "x.pth holds no weights: it is empty"),
    load_from("no weights", lambda c: dict(a=3), "x.pth holds no weights, only a"),
    test("a backbone alone", backbone, f"x.pth {NOTHING}"),
    resume(
        "a backbone alone",
        lambda c: dict(as_run()(c), state_dict=backbone(c)),
        f"x.pth {NOTHING}",
    ),
    resume(
        "weights without a run",
        lambda c: dict(state_dict=c["state_dict"]),
        "--resume: .../x.pth is not a checkpoint of a run: ... load_from=FILE",
    ),
    resume(
        "an iteration that is text",
        as_run(iter="8"),
        "--resume: .../x.pth is damaged or was not written by a run: meta.iter is "
        "'8', not a whole number, 0 or more. Resume from another checkpoint",
    ),
    resume(
        "a best score that is text",
        with_best_score("high"),
        "x.pth is damaged or was not written by a run: "
        "message_hub.runtime_info.best_score is 'high', not a number",
    ),
    resume(
        "more epochs than the command asks for",
        as_run(epoch=99),
        "--resume: the run has 99 epochs already, and this run ends at ...: raise "
        "--epochs (custom data) or --cfg-options train_cfg.max_epochs, or name an "
        "earlier checkpoint: --resume FILE",
    ),
    resume(
        "the optimizer of another model",
        as_run(),
        "--resume: the state of the run in .../x.pth does not fit this run: ... Resume "
        "with the config with which the run began",
    ),
    test(
        "a model without its mask head",
        lambda c: {k: v for k, v in c["state_dict"].items() if "mask_head" not in k},
        "x.pth lacks roi_head (...) of this CascadeRCNN: they would be random",
    ),
    test(
        "a head of other classes",
        with_weight(FC, lambda v: torch.rand(81, v.shape[1])),
        f"x.pth does not fit: {FC} is (81, 128) in it and ",
    ),
    Case(
        *("test", "a segmentor's, to a detector's config"),
        lambda t: [small_config(t), save(t, "seg")],
        "x.pth holds a backbone (the authors' names) and nothing else of this "
        "CascadeRCNN, whose neck (...), roi_head (...), rpn_head (...) would be random",
    ),
    test(
        "another architecture",
        lambda c: ConvNeXt("femto").state_dict(),
        "x.pth (the authors' names) is of another architecture: ... set arch='femto'",
    ),
    init_cfg(
        "another architecture",
        lambda c: ConvNeXt("femto").state_dict(),
        "x.pth (the authors' names) is of another architecture: ... set arch='femto'",
    ),
    test(
        "a tensor of another shape",
        with_weight(GAMMA, lambda v: v[:3]),
        "x.pth does not fit: stages.1.0.gamma is (3,) in it and (80,) in the model",
    ),
    load_from(
        "NaN in a head",
        with_weight(FC, lambda v: v / 0),
        f"x.pth is damaged: {FC} holds NaN or infinite values",
    ),
    init_cfg(
        "NaN in the backbone",
        lambda c: backbone(with_weight(GAMMA, lambda v: v / 0)(c)),
        "x.pth is damaged: stages.1.0.gamma holds NaN or infinite values",
    ),
    test(
        "complex weights",
        with_weight(GAMMA, lambda v: v.to(torch.complex64)),
        "x.pth does not fit: stages.1.0.gamma is torch.complex64 in it",
    ),
    test(
        "whole numbers as weights",
        with_weight(GAMMA, lambda v: v.to(torch.int8)),
        "x.pth does not fit: stages.1.0.gamma is torch.int8 in it",
    ),
    test(
        "weights without values",
        with_weight(GAMMA, lambda v: v.to("meta")),
        "x.pth was not read: it asks for torch._utils._rebuild_meta_tensor",
    ),
    test(
        "a word as a weight",
        with_weight(GAMMA, lambda v: "big"),
        "x.pth lacks 1 of the 60 tensors of this ConvNeXt, such as stages.1.0.gamma",
    ),
    load_from(
        "another model",
        lambda c: {"backbone.conv1.weight": torch.rand(3)},
        "x.pth has no ConvNeXt: backbone would be random",
    ),
    init_cfg(
        "another model",
        lambda c: dict(model={"conv1.weight": torch.rand(3)}),
        "x.pth has no tensor of this ConvNeXt, whose weights would be random",
    ),
    init_cfg(
        "a URL that cannot be reached",
        "http://127.0.0.1:9/x.pth",
        "http://127.0.0.1:9/x.pth could not be downloaded ... init_cfg.checkpoint=FILE "
        "or start from scratch: ... init_cfg=None",
    ),
    init_cfg("a file that is not there", "x.pth", "no checkpoint at x.pth"),
    Case(
        *("test", "a kind of URL that is not known"),
        lambda t: [DET, "gopher://x/y"],
        "gopher://x/y: mmengine has no file backend for gopher://; give a file, a URL",
    ),
    Case(
        *("test", "a name that is none of the hub's"),
        lambda t: [DET, "hf://a b/c"],
        "hf://a b/c: give hf://OWNER/NAME",
    ),
    Case(
        *("convert_checkpoint", "a name of timm's without a tag"),
        lambda t: ["timm://convnext_tiny", "y.pth", "--to", "timm"],
        "timm://convnext_tiny: give the whole name with its tag, such as "
        "timm://convnext_tiny.fb_in22k",
    ),
    convert(
        "a model that is no ConvNeXt",
        lambda c: {"conv1.weight": torch.rand(3)},
        "x.pth holds no ConvNeXt: give the checkpoint of one",
    ),
    convert(
        "several entries with weights",
        lambda c: dict(params=backbone(c), params_ema=halved(backbone(c))),
        "x.pth holds 2 ConvNeXts, under 'params', 'params_ema': name one as --prefix",
    ),
    convert(
        "a prefix that no tensor has",
        lambda c: dict(params=backbone(c), params_ema=backbone(c)),
        "x.pth has no tensors below --prefix='ema.', only params (52), params_ema "
        "(52). Name one of these",
        *("--prefix", "ema"),
    ),
    test(
        "a student and a teacher",
        student_and_teacher,
        "x.pth holds 2 ConvNeXts, under 'student.backbone.', 'teacher.backbone.': name "
        "one as the --prefix of convnext-dense convert-checkpoint ...x.pth weights.pth "
        "--to native --prefix NAME, then give weights.pth",
    ),
    init_cfg(
        "a student and a teacher",
        student_and_teacher,
        "x.pth holds 2 ConvNeXts, under 'student.backbone.', 'teacher.backbone.': name "
        "one as init_cfg.prefix",
    ),
    convert(
        "a whole model instead of its weights",
        lambda c: torch.nn.ModuleDict(dict(backbone=torch.nn.Linear(2, 2))),
        "x.pth holds a whole model (torch.nn.modules.container.ModuleDict), which only "
        "its own code can build. Save its weights alone, ... model = torch.load('...', "
        "'cpu', weights_only=False) torch.save(model.state_dict(), 'weights.pth') Or "
        "use --trust-checkpoint",
    ),
    convert(
        "an optimizer's state alone",
        lambda c: dict(state={}, param_groups=[dict(lr=0.1, params=[0])]),
        "x.pth holds no weights, only state, param_groups. It has the state of an "
        "optimizer. Give the file with the model",
    ),
    convert(
        "a LoRA adapter",
        lambda c: {"base_model.model.x.lora_A.weight": torch.rand(2, 2)},
        "x.pth was not used: it holds a LoRA adapter: changes to the weights of "
        "another model. Merge them and save the result: ",
    ),
    convert(
        "a model of timm's with another stem",
        overlapping_stem,
        "x.pth (timm) is of a variant of ConvNeXt that cannot be loaded: it has "
        "another stem (kernels of 3 x 3, not of 4 x 4, as timm's convnext_*_ols). "
        "Use the checkpoint of another model",
    ),
    convert(
        "a sparse tensor",
        lambda c: dict(net={**backbone(c), "stem.0.bias": torch.eye(2).to_sparse()}),
        "x.pth, entry 'net' was not used: stem.0.bias is not an ordinary tensor. Save "
        "it as one, by tensor.to_dense()",
    ),
    Case(
        *("convert_checkpoint", "a sharded checkpoint"),
        sharded,
        "no checkpoint at .../step_9 (a folder, without model.safetensors): it is a "
        "sharded checkpoint (torch.distributed.checkpoint). Join it: python -m "
        "torch.distributed.checkpoint.format_utils dcp_to_torch .../step_9 weights.pth",
    ),
    Case(
        *("convert_checkpoint", "the weights of another framework"),
        lambda t: [
            write(t / "x.onnx", b"\x08\x07\x12\x07pytorch"),
            "y.pth",
            "--to",
            "timm",
        ],
        f"x.onnx {DAMAGED}it holds the weights of another framework (ONNX). Give "
        "weights that PyTorch has saved: ",
    ),
    resume(
        "an object of a class of others in the state of the run",
        with_an_object_in_its_run,
        "--resume: .../x.pth was not used: its message_hub.runtime_info.settings is a "
        "tests.bad_inputs.checkpoints.Settings, which is not built, because that could "
        "run code; none was run. If you trust its author, use --trust-checkpoint",
    ),
    predict(
        "weights without a config",
        lambda c: c["state_dict"],
        "x.pth contains no config; only checkpoints that a training run wrote do. Name "
        "the config before the checkpoint",
    ),
    predict(
        "a config in it that is cut short",
        with_meta(cfg="model = dict("),
        "the config in .../x.pth was not used: it cannot be read",
    ),
    predict(
        "a config in it that would run code",
        with_meta(cfg="import os\nos.mkdir('mark')"),
        "the config in .../x.pth was not used: it contains code, not only settings: "
        "import os",
    ),
    predict(
        "a config in it with a setting that could be a file's name",
        with_meta(cfg=f"{CONFIG_IN_IT}class_weight='yaml')"),
        "the config in .../x.pth was not used: model.class_weight is 'yaml', which "
        "could name a file or a model",
    ),
    predict(
        "a config in it that is too long",
        with_meta(cfg="x = 1\n" * 400_000),
        "the config in .../x.pth was not used: it has 2400000 characters, and the "
        "longest config that is read has 2000000",
    ),
    predict(
        "no classes in it",
        with_meta(dataset_meta=None),
        "x.pth has no class names",
    ),
    predict(
        "a backbone alone",
        lambda c: {**c, "state_dict": weights_of_backbone(c)},
        "x.pth holds a backbone (the authors' names) and nothing else of this ",
    ),
    Case(
        *("predict", "a config of another architecture"),
        lambda t: [DET, save(t), t / "data/shapes/images/val", "--out", "out"],
        "x.pth (the authors' names) is of another architecture: ... The checkpoint "
        "fits the config of its run, which is inside it: leave out ",
    ),
    Case(
        *("predict", "a file that is not there"),
        lambda t: ["gone.pth", t / "data/shapes/images/val", "--out", "out"],
        "no checkpoint at gone.pth",
    ),
]
