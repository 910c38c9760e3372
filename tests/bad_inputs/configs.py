"""Mistakes in config files."""

from ..helpers.runs import ADE, COCO
from .case import Case, heir, write


def config(mistake: str, text: str, says: str) -> Case:
    """Train by a config that inherits a good one."""
    return Case("train", mistake, lambda t: [heir(t, text)], says)


def alone(mistake: str, content: str | bytes, says: str, name: str = "c.py") -> Case:
    """Train by a file of that content."""
    return Case("train", mistake, lambda t: [write(t / name, content)], says)


def unknown(where: str, name: str, near: str, text: str) -> Case:
    """Train by a config with a type's name misspelt."""
    says = f"{where}={name!r} of .../c.py is not known: did you mean {near}"
    return config(f"an unknown type: {where}", text, says)


def circle(t):
    """Two configs, each the base of the other."""
    write(t / "b.py", "_base_ = 'a.py'")
    return [write(t / "a.py", "_base_ = 'b.py'")]


def broken_base(t):
    """A config whose base has a syntax error."""
    write(t / "base.py", "model = dict(")
    return [write(t / "c.py", "_base_ = 'base.py'")]


def pipeline(step: str) -> str:
    """The text of a config whose training pipeline is this step."""
    return f"train_dataloader = dict(dataset=dict(pipeline=[dict({step})]))"


CASES = [
    alone("a syntax error", "model = dict(", "c.py could not be read: ...yntax"),
    alone("an exception", "x = 1 / 0", "c.py could not be read: ZeroDivisionError: "),
    alone(
        "an import that fails",
        "custom_imports = dict(imports='nope')",
        "c.py could not be read: ...nope",
    ),
    alone(
        "an empty file",
        "",
        "c.py is neither an MMDetection nor an MMSegmentation config: default_scope",
    ),
    alone("a binary file", bytes(range(256)), "c.py could not be read: "),
    alone(
        "text that is not UTF-8",
        "x = 'Käfer'".encode("latin-1"),
        "c.py could not be read: ",
    ),
    alone("a suffix .txt", "x = 1", "c.txt could not be read: ", "c.txt"),
    alone("JSON, cut short", '{"model": ', "c.json could not be read: ", "c.json"),
    alone("YAML, cut short", "model: [1, 2", "c.yaml could not be read: ", "c.yaml"),
    alone(
        "a config of neither toolbox",
        "model = dict(type='X')",
        "c.py is neither an MMDetection nor an MMSegmentation config",
    ),
    alone(
        "a config without a model",
        "default_scope = 'mmdet'",
        "it has no model; inherit from one of configs/det or configs/seg",
    ),
    config("model = None", "model = None", "it has no model"),
    alone(
        "a _base_ that does not exist",
        "_base_ = 'gone.py'",
        "c.py could not be read: ...gone.py",
    ),
    Case(
        *("train", "a config that inherits from itself"),
        circle,
        "a.py could not be read: it inherits from itself through _base_",
    ),
    Case(
        *("train", "a _base_ with a syntax error"),
        broken_base,
        "c.py could not be read: ...yntax",
    ),
    unknown(
        *("model.type", "MaskRCN", "MaskRCNN"),
        "model = dict(type='MaskRCN')",
    ),
    unknown(
        *("model.backbone.type", "ConvNext", "ConvNeXt"),
        "model = dict(backbone=dict(type='ConvNext'))",
    ),
    unknown(
        *("optim_wrapper.optimizer.type", "AdamX", "Adam"),
        "optim_wrapper = dict(optimizer=dict(type='AdamX'))",
    ),
    unknown(
        *("optim_wrapper.constructor", "LayerDecayConstructor", "LayerDecayOptim"),
        "optim_wrapper = dict(constructor='LayerDecayConstructor')",
    ),
    unknown(
        *("param_scheduler.0.type", "CosineLR", "Cosine"),
        "param_scheduler = [dict(type='CosineLR')]",
    ),
    unknown(
        *("custom_hooks.0.type", "EMAHok", "EMAHook"),
        "custom_hooks = [dict(type='EMAHok')]",
    ),
    unknown(
        *("train_dataloader.dataset.type", "CocoDatset", "CocoDataset"),
        "train_dataloader = dict(dataset=dict(type='CocoDatset', ann_file=''))",
    ),
    unknown(
        *("train_dataloader.dataset.pipeline.0.type", "LoadImage", "LoadImageFromFile"),
        pipeline("type='LoadImage'"),
    ),
    unknown(
        *("train_dataloader.sampler.type", "DefautSampler", "DefaultSampler"),
        "train_dataloader = dict(sampler=dict(type='DefautSampler'))",
    ),
    unknown(
        *("train_cfg.type", "EpochTrainLoop", "EpochBasedTrainLoop"),
        "train_cfg = dict(type='EpochTrainLoop')",
    ),
    unknown(
        *("val_evaluator.type", "CocoMetrics", "CocoMetric"),
        "val_evaluator = dict(type='CocoMetrics')",
    ),
    unknown(
        *("visualizer.type", "Visualiser", "Visualizer"),
        "visualizer = dict(type='Visualiser')",
    ),
    config(
        "a metric that the evaluator does not know",
        "val_evaluator = dict(metric='mAP')",
        "the config's val_evaluator could not be built: ...mAP",
    ),
    config(
        "an argument that a scheduler does not take",
        "param_scheduler = [dict(type='MultiStepLR', milestone=[1])]",
        "the config's param_scheduler could not be built: TypeError: ...milestone",
    ),
    config(
        "an argument that a transform does not take",
        pipeline("type='LoadImageFromFile', channels=3"),
        "the config's train_dataloader could not be built: TypeError: ...channels",
    ),
    config(
        "a hook without a type",
        "custom_hooks = [dict(priority=1)]",
        "the config's custom_hooks could not be built: ",
    ),
    config(
        "an optimizer without a type",
        "optim_wrapper = dict(_delete_=True, optimizer=dict(lr=1.))",
        "the config's optim_wrapper could not be built: ",
    ),
    config(
        "train_dataloader = None",
        "train_dataloader = None",
        "c.py has no train_dataloader: to train, a config needs train_dataloader, "
        "train_cfg, optim_wrapper",
    ),
    config("train_cfg = None", "train_cfg = None", "c.py has no train_cfg: "),
    config("optim_wrapper = None", "optim_wrapper = None", "c.py has no optim_wrapper"),
    config(
        "val_evaluator = None",
        "val_evaluator = None",
        "c.py has no val_evaluator: to validate, a config needs val_dataloader, "
        "val_cfg, val_evaluator",
    ),
    config(
        "a dataloader without a data set",
        "train_dataloader = dict(_delete_=True, batch_size=2)",
        "c.py has no train_dataloader.dataset",
    ),
    Case(
        *("test", "test_dataloader = None"),
        lambda t: [heir(t, "test_dataloader = None"), write(t / "x.pth", "")],
        "c.py has no test_dataloader: to test, a config needs",
    ),
    Case(
        *("train", "a COCO file in a config of a segmentor"),
        lambda t: [
            heir(
                t,
                "train_dataloader = dict(dataset=dict(ann_file='objects.json'))",
                ADE,
            )
        ],
        "train_dataloader: ADE20KDataset of a segmentation config reads a list of "
        "image names, and its ann_file is ...objects.json. A segmentor learns from "
        "label maps ... use a config of configs/det",
    ),
    Case(
        *("train", "a folder of label maps in a config of a detector"),
        lambda t: [
            heir(
                t,
                "train_dataloader = dict(dataset=dict(data_root='data', "
                "ann_file='shapes/labels'))",
                COCO,
            )
        ],
        "train_dataloader: CocoDataset of a detection config reads a file of objects, "
        "and its ann_file is the folder data/shapes/labels. Name the file; for label "
        "maps, use a config of configs/seg",
    ),
    Case(
        *("train", "no COCO data set in its folder"),
        lambda t: [COCO],
        "the train data is not there: ... "
        "data/coco/annotations/instances_train2017.json,...--cfg-options "
        "data_root=FOLDER",
    ),
    Case(
        *("train", "no ADE20K data set in its folder"),
        lambda t: [ADE],
        "the train data is not there: ... data/ade/ADEChallengeData2016/images/training"
        "...--cfg-options data_root=FOLDER",
    ),
]
