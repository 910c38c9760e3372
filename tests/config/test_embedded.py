"""The config inside a checkpoint is read as mmengine reads it, and never run."""

import sys

import pytest
from mmengine.config import Config

from convnext_dense.checkpoints import TRUST
from convnext_dense.checkpoints.run_config import parse
from convnext_dense.config.embedded import embedded_config
from convnext_dense.config.options import image_pipeline, load_config
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT
from ..helpers.runs import ADE, COCO, DET, SEG

CONFIGS = [
    *(DET, SEG, COCO, ADE),
    ROOT / "configs/det/cascade_mask_rcnn_convnext_xl_in22k_coco_o.py",
    ROOT / "configs/seg/convnext_t_imagenet_s919.py",
    ROOT / "configs/seg/upernet_roadmap_resnet50_shapes.py",
    ROOT / "examples/mmdet_retinanet_convnext_t_coco.py",
    ROOT / "examples/mmseg_semantic_fpn_convnext_t_ade20k.py",
]


def checkpoint(text):
    return dict(meta=dict(cfg=text), state_dict={})


def text_of(cfg):
    cfg._format_python_code = False  # as pretty_text without a second of yapf
    return cfg.pretty_text


@pytest.fixture(scope="module")
def segmentor():
    return text_of(load_config(str(SEG)))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_of_this_repository_pass(file):
    cfg = Config.fromfile(file)
    embedded = embedded_config(checkpoint(text_of(cfg)), "x.pth")
    assert embedded.default_scope == cfg.default_scope
    assert image_pipeline(embedded) == image_pipeline(cfg)
    assert "Load" not in str(image_pipeline(embedded)[1:])
    cfg.model.backbone.pop("init_cfg", None)  # its weights would be downloaded
    assert embedded.model == cfg.model


def test_values_are_what_mmengine_reads():
    values = dict(
        numbers=[0, -1, 2.5, -1e-8, True, None],
        strings=["it's", 'say "x"', "two\nlines", "ä", "back\\slash"],
        nested={"not a name": dict(a=(1,), b=[]), "x": {}, "empty": ()},
        **{"sets": {1, 2}},
    )
    text = text_of(Config(dict(model=values, default_scope="mmdet")))
    assert parse(text, dict(model=dict))["model"] == values
    assert Config.fromstring(text, ".py").model == values  # the reference
    # mmengine writes infinity as a name that it cannot read.
    text = text_of(Config(dict(model=dict(least=-float("inf"), most=float("inf")))))
    assert parse(text, dict(model=dict))["model"] == dict(
        least=-float("inf"), most=float("inf")
    )


def test_yapf_changes_nothing():
    cfg = Config.fromfile(SEG)
    formatted = embedded_config(checkpoint(cfg.pretty_text), "x.pth")
    cfg._format_python_code = False
    plain = embedded_config(checkpoint(cfg.pretty_text), "x.pth")
    assert formatted.model == plain.model


def with_model(change):
    return lambda text: f"{text}\nmodel = {change}\n"


def in_pipeline(step):
    pipeline = f"[dict(type='LoadImageFromFile'), {step}]"
    dataset = f"dict(type='CocoDataset', pipeline={pipeline})"
    return lambda text: f"{text}\ntest_dataloader = dict(dataset={dataset})\n"


def appended(line):
    return lambda text: f"{text}\n{line}\n"


HOSTILE = {  # how the text is changed; what the message says
    "a call": (
        appended("model = __import__('os').mkdir('MARK')"),
        "not only settings: __import__",
    ),
    "an import": (appended("import os"), "not only settings: import os"),
    "an expression": (appended("__import__('os').mkdir('MARK')"), "not only settings"),
    "a name": (with_model("dict(type=exit)"), "not only settings: exit"),
    "an unpacking": (with_model("dict(**globals())"), "not only settings"),
    "a string with values": (with_model("f'{exit()}'"), "not only settings"),
    "a comprehension": (with_model("[exit() for _ in 'a']"), "not only settings"),
    "an unhashable key": (with_model("{[]: 1}"), "cannot be read"),
    "nested too deeply": (with_model("[" * 5000 + "]" * 5000), "cannot be read"),
    "not Python": (appended("model = ("), "cannot be read"),
    "a list as model": (with_model("[1]"), "its model is not a dict"),
    "a scope of another kind": (appended("default_scope = ['a']"), "not a str"),
    "a function": (
        with_model("dict(type='os.mkdir', path='MARK')"),
        r"model\.type is 'os\.mkdir', which no toolbox registers",
    ),
    "a module": (with_model("dict(type='antigravity')"), "model.type is 'antigravity'"),
    "an unregistered name of a toolbox": (
        with_model("dict(type='mmengine.load', file='x', file_format='pickle')"),
        "'mmengine.load', which no toolbox registers",
    ),
    "below": (
        with_model("dict(type='EncoderDecoder', a=[(dict(b=dict(type='os.a')),)])"),
        r"model\.a\[0\]\[0\]\.b\.type is 'os\.a'",
    ),
    "a wrapper of other models": (
        with_model("dict(type='mmpretrain.AutoModelForCausalLM')"),
        "which no toolbox registers",
    ),
    "a scope": (with_model("dict(type='ConvNeXt', _scope_='evil')"), "_scope_ is"),
    "an operator that is a module's name": (
        with_model("dict(type='mmdet.CascadeRCNN', bbox_coder=dict(type='nms'))"),
        r"bbox_coder\.type is 'nms', which no toolbox registers",
    ),
    "an address": (
        with_model(
            "dict(type='FCN', a=dict(__array_interface__=dict(data=(1, False))))"
        ),
        "__array_interface__, which numpy takes for an address",
    ),
    "what mmcv evaluates": (
        with_model("dict(type='mmdet.CascadeRCNN', nms=dict(type='exit()'))"),
        r"nms\.type is 'exit\(\)'",
    ),
    "what mmdet evaluates": (
        with_model("dict(type='mmdet.CascadeRCNN', warp_mode='exit()')"),
        "warp_mode is 'exit",
    ),
    "a config to execute": (
        with_model("dict(type='mmdet.LAD', teacher_config='evil.py')"),
        "teacher_config is 'evil.py', which is not a word",
    ),
    "a file to unpickle": (
        with_model("dict(type='EncoderDecoder', class_weight='a.pkl')"),
        "class_weight is 'a.pkl'",
    ),
    **{
        f"a file that is called {name}": (
            with_model(f"dict(type='EncoderDecoder', class_weight='{name}')"),
            f"class_weight is '{name}', which could name a file",
        )
        for name in ("yaml", "yml", "json", "pickle", "numbers")
    },
    "a structure file of mmcv": (
        with_model("dict(type='ConvNeXt', rfstructure_file='yaml')"),
        "rfstructure_file is 'yaml', which could name a file",
    ),
    "a model of a hub": (
        with_model("dict(type='mmdet.GLIP', language_model=dict(name='evil'))"),
        r"language_model\.name is 'evil', which could name a file or a model",
    ),
    "a name in a list": (
        with_model("dict(type='EncoderDecoder', checkpoint=[('evil',)])"),
        r"model\.checkpoint\[0\]\[0\] is 'evil', which could name",
    ),
    "an image that is enlarged": (
        in_pipeline("dict(type='Resize', scale=(30000, 30000), keep_ratio=False)"),
        r"scale is \(30000, 30000\), more than 178,956,970 pixels",
    ),
    "a side of an image": (
        in_pipeline("dict(type='Pad', size_divisor=100000)"),
        "size_divisor is 100000, more than 65,500",
    ),
    "a factor of an image": (
        in_pipeline("dict(type='Resize', scale_factor=400.0)"),
        "it enlarges images more than 16-fold",
    ),
    "a window at each pixel": (
        with_model(
            "dict(type='EncoderDecoder', test_cfg=dict(mode='slide', "
            "crop_size=(32, 32), stride=(1, 1)))"
        ),
        "stride is 1 for windows of 32 pixels",
    ),
    "a module that cannot be imported": (
        appended("custom_imports = dict(imports=['mmdet.utils.benchmark'])"),
        "could not be used: (AttributeError|ImportError|ModuleNotFound)",
    ),
    "a file of the pipeline": (
        in_pipeline("dict(type='PackSegInputs', label_map_file='x')"),
        r"\[1\]\.label_map_file is 'x', which could name",
    ),
    "a number of modules": (
        with_model("dict(type='EncoderDecoder', depth=10 ** 12)"),
        "contains code, not only settings: 10 ",
    ),
    "a large number": (
        with_model(f"dict(type='EncoderDecoder', depth={10**12})"),
        "depth is 1000000000000, more than 10000000",
    ),
    "a number of many digits": (
        with_model(f"dict(type='EncoderDecoder', depth={'9' * 10000})"),
        "cannot be read",
    ),
    "signs": (appended("model = " + "-" * 10**5 + "1"), "cannot be read"),
    "sums": (appended("model = " + "1+" * 10**5 + "1"), "cannot be read|not only"),
    "brackets": (appended("model = " + "[" * 10**5 + "]" * 10**5), "cannot be read"),
    "much text": (appended("x = 1\n" * 10**6), "and the longest config that is read"),
    "imports that are no names": (
        appended("custom_imports = dict(imports=5)"),
        "it imports 5",
    ),
    "a model far larger than its weights": (
        lambda text: text.replace("num_classes=6", "num_classes=10000000"),
        "its model has 1?[2-9].* GB of weights or more, and the checkpoint has 0.0 GB",
    ),
    "a file to unpickle that is called pkl": (
        with_model("dict(type='EncoderDecoder', class_weight='pkl')"),
        "class_weight is 'pkl'",
    ),
    "a transform": (
        in_pipeline("dict(type='os.mkdir')"),
        r"\[1\]\.type is 'os\.mkdir'",
    ),
    "a transform that unpickles the image": (
        in_pipeline(
            "dict(type='LoadBiomedicalImageFromFile', decode_backend='pickle')"
        ),
        "which reads more files",
    ),
    "a loader by another name": (
        lambda text: in_pipeline("")(text).replace("'Load", "'evil.Load"),
        "'evil.LoadImageFromFile', which no toolbox registers",
    ),
    "a module to import": (
        appended("custom_imports = dict(imports=['evil_module'])"),
        "it imports evil_module",
    ),
    "a module to import, alone": (
        appended("custom_imports = dict(imports='evil_module')"),
        "it imports evil_module",
    ),
}


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.replace(" ", "-"))
def test_hostile_configs_are_refused(case, segmentor, tmp_path, monkeypatch):
    change, message = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil_module.py").write_text("import os; os.mkdir('MARK')")
    text = change(segmentor)
    assert text != segmentor
    with pytest.raises(InputError, match=message) as refused:
        embedded_config(checkpoint(text), "x.pth")
    assert "Name the config before the checkpoint" in str(refused.value)
    assert not (tmp_path / "MARK").exists()
    assert "evil_module" not in sys.modules


def test_settings_that_are_none(segmentor):
    text = f"{segmentor}\ncustom_imports = None\n"
    assert "custom_imports" not in embedded_config(checkpoint(text), "x.pth")
    with pytest.raises(
        InputError, match=r"config in x\.pth is neither .* has no model"
    ):
        embedded_config(checkpoint(f"{segmentor}\nmodel = None\n"), "x.pth")


def test_other_settings_are_ignored(segmentor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = embedded_config(checkpoint(f"{segmentor}\nhook = exit()\n"), "x.pth")
    assert set(cfg) == {"default_scope", "custom_imports", "model", "test_dataloader"}


@pytest.mark.parametrize("case", ["a function", "a module to import"])
def test_trusted_configs_run_their_code(case, segmentor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(TRUST, "1")
    (tmp_path / "evil_module.py").write_text("import os; os.mkdir('MARK')")
    cfg = embedded_config(checkpoint(HOSTILE[case][0](segmentor)), "x.pth")
    build_model(cfg, "cpu")
    sys.modules.pop("evil_module", None)
    assert (tmp_path / "MARK").exists()


@pytest.mark.parametrize(
    "content", [{}, dict(meta=None), dict(meta=dict(cfg=None)), dict(meta=dict(cfg=""))]
)
def test_a_checkpoint_without_config(content):
    with pytest.raises(InputError, match=r"x\.pth contains no config.*Name the config"):
        embedded_config(content, "x.pth")


def test_settings_that_are_no_lists(segmentor):
    text = f"{segmentor}\ntest_dataloader = dict(dataset=dict(datasets=5))\n"
    with pytest.raises(InputError, match=r"no test_dataloader\.dataset\.pipeline"):
        embedded_config(checkpoint(text), "x.pth")


def test_a_transform_that_cannot_be_built(segmentor):
    text = in_pipeline("dict(type='RandomFlip', prob=[1, 2], direction=3)")(segmentor)
    with pytest.raises(
        InputError, match=r"pipeline of the config in x\.pth could not be"
    ):
        embedded_config(checkpoint(text), "x.pth")
