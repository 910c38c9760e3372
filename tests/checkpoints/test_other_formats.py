"""Files and folders that are not read: each is named, and its advice works."""

import bz2
import gzip
import io
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.checkpoints.converting import convert
from convnext_dense.errors import InputError

from ..helpers.peers import timm_name

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


def small(**kwargs):
    return ConvNeXt(SMALL, layer_scale_init_value=1.0, **kwargs)


def whole_model(value=0.5):
    """A model of a training script, of one value."""
    model = torch.nn.ModuleDict(dict(backbone=small(), head=torch.nn.Linear(8, 2)))
    for parameter in model.parameters():
        parameter.data.fill_(value)
    return model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problem(source):
    """The message for a file or folder that is not read."""
    with pytest.raises(InputError) as error:
        checkpoints.load_pretrained(small(), str(source))
    return str(error.value)


def check_loads(source):
    model = small()
    checkpoints.load_pretrained(model, str(source))
    assert (model.stages[0][0].gamma == 0.5).all()


def saved(content, name="a.pth", **how):
    torch.save(content, name, **how)
    return name


def run_lines(message):
    """Run the lines of Python that a message shows."""
    lines = [line.strip() for line in message.split("\n") if line.startswith("  ")]
    exec("\n".join(lines), {})


INSIDE = {
    "nothing else": lambda model: model,
    "a dict": lambda model: dict(model=model, epoch=3),
    "dicts": lambda model: {"trainer": {1: {"a.b": model}}},
    "a list": lambda model: dict(models=[0, model]),
}


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_the_advice_for_a_whole_model_works(folder, monkeypatch, inside, zipped):
    content = INSIDE[inside](whole_model())
    file = saved(content, _use_new_zipfile_serialization=zipped)
    message = problem(file)
    assert (
        "a.pth holds a whole model (torch.nn.modules.container.ModuleDict)" in message
    )
    run_lines(message)
    check_loads("weights.pth")
    assert "Or use --trust-checkpoint" in message
    monkeypatch.setenv(checkpoints.TRUST, "1")
    check_loads(file)


def test_the_advice_for_torchscript_works(folder, monkeypatch):
    script = torch.jit.trace(whole_model()["backbone"].eval(), torch.ones(1, 3, 32, 32))
    script.save("a.pt")
    assert "TorchScript program" in problem("a.pt")
    monkeypatch.setenv(checkpoints.TRUST, "1")
    check_loads("a.pt")


def test_the_advice_for_an_exported_program_works(folder):
    if not hasattr(torch.export, "save"):
        pytest.skip("this torch has none")
    program = torch.export.export(whole_model()["head"], (torch.ones(1, 8),))
    torch.export.save(program, "a.pt2")
    message = problem("a.pt2")
    assert "it is an exported program (torch.export)" in message
    code = message.partition("save its weights: ")[2].replace("FILE", "'a.pt2'")
    exec(code, {"torch": torch})
    weights = torch.load("weights.pth")
    assert (weights["weight"] == 0.5).all()


def test_the_advice_for_pickles_works(folder, monkeypatch):
    """What Python's own pickle wrote: tensors need code, arrays do not."""
    weights = small().state_dict()
    weights = {name: torch.full_like(w, 0.5) for name, w in weights.items()}
    with open("a.pkl", "wb") as file:
        pickle.dump(dict(model={n: w.numpy() for n, w in weights.items()}), file)
    check_loads("a.pkl")
    with open("b.pkl", "wb") as file:
        pickle.dump(weights, file)
    message = problem("b.pkl")
    assert "asks for torch.storage._load_from_bytes" in message
    assert "--trust-checkpoint" in message
    monkeypatch.setenv(checkpoints.TRUST, "1")
    check_loads("b.pkl")


def test_trust_without_the_code_says_to_leave_it_out(folder, monkeypatch):
    class Settings:
        """A class of a module that goes away."""

    Settings.__module__, Settings.__qualname__ = "lightning.settings", "Settings"
    module = type(sys)("lightning.settings")
    module.Settings = Settings
    monkeypatch.setitem(sys.modules, "lightning.settings", module)
    monkeypatch.setitem(sys.modules, "lightning", type(sys)("lightning"))
    weights = {f"net.{n}": w for n, w in whole_model()["backbone"].state_dict().items()}
    file = saved(dict(state_dict=weights, hyper_parameters=Settings()), "a.ckpt")
    monkeypatch.delitem(sys.modules, "lightning.settings")
    monkeypatch.delitem(sys.modules, "lightning")
    monkeypatch.setenv(checkpoints.TRUST, "1")
    message = problem(file)
    assert "whose code is not installed" in message
    assert "leave out --trust-checkpoint" in message
    monkeypatch.delenv(checkpoints.TRUST)
    check_loads(file)


def test_the_advice_for_compressed_files_works(folder):
    saved(whole_model().state_dict())
    data = (folder / "a.pth").read_bytes()
    for name, packed, command in (
        ("b.pth.gz", gzip.compress(data), "gunzip"),
        ("c.pth.bz2", bz2.compress(data), "bunzip2"),
    ):
        (folder / name).write_bytes(packed)
        assert f"{name} is damaged or not a checkpoint: it is compressed" in problem(
            name
        )
        assert f"unpack it with {command}" in problem(name)
        if shutil.which(command):
            subprocess.run([command, name], check=True)
            check_loads(name.rpartition(".")[0])


def test_the_advice_for_archives_and_folders_works(folder):
    (folder / "run").mkdir()
    saved(whole_model().state_dict(), "run/epoch_3.pth")
    message = problem("run")
    assert "a folder, without model.safetensors): name one of its files" in message
    check_loads(f"run/{message.rpartition(': ')[2]}")

    shutil.make_archive("packed", "zip", "run")
    message = problem("packed.zip")
    assert "a zip archive with epoch_3.pth: unzip it and name that file" in message

    with zipfile.ZipFile("run/epoch_3.pth") as archive:
        archive.extractall("unpacked")
    (inside,) = (folder / "unpacked").iterdir()
    message = problem(f"unpacked/{inside.name}")
    command = shlex.split(message.partition("again: python ")[2].partition(", and")[0])
    subprocess.run([sys.executable, *command], check=True)
    check_loads("weights.zip")


def test_the_advice_for_a_sharded_checkpoint_works(folder, monkeypatch):
    """Its command, in this process: it imports torch for five seconds."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp.save(dict(model=whole_model().state_dict()), checkpoint_id="sharded")
    message = problem("sharded")
    assert "-m torch.distributed.checkpoint.format_utils dcp_to_torch" in message
    dcp_to_torch_save(*shlex.split(message.partition("dcp_to_torch ")[2]))
    check_loads("weights.pth")
    (piece,) = (folder / "sharded").glob("*.distcp")
    assert "it is a piece of a sharded checkpoint: name its folder" in problem(piece)


def npz():
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(2))
    return stream.getvalue()


def zip_of(name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"x")
    return stream.getvalue()


FILES = {
    # name: the content, and what it is called
    "a.pth": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    "b.pth": (b"<!DOCTYPE html>", "a page of the web"),
    "c.pth": (b'{"error": "not found"}', "it is JSON"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "HDF5"),
    "a.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
    "d.pth": (b"\x08\x0e:\x03\x12\x01gB\x02\x10\x1c", "ONNX"),
    "flax_model.msgpack": (b"\xde\x00\x10\xa1a", "Flax"),
    "e.pth": (b"\x81\xa6params\x81\xa1a\xc0", "Flax"),
    "a.gguf": (b"GGUF\3\0\0\0" + bytes(9), "GGUF"),
    "a.tflite": (b"\x1c\0\0\0TFL3" + bytes(9), "TensorFlow Lite"),
    "model.ckpt.data-00000-of-00001": (bytes(64), "TensorFlow"),
    "model.ckpt.index": (b"\0\0\1\2" * 9, "TensorFlow"),
    "saved_model.pb": (b"\x0a\x0b" * 9, "TensorFlow"),
    "a.keras": (zip_of("model.weights.h5"), "Keras"),
    "a.npz": (npz(), r"NumPy arrays (.npz)"),
    "a.npy": (b"\x93NUMPY\1\0" + bytes(9), "a NumPy array"),
    "a.xz": (b"\xfd7zXZ\0" + bytes(9), "unpack it with unxz"),
    "a.zst": (b"\x28\xb5\x2f\xfd" + bytes(9), "unpack it with unzstd"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(9), "unpack it with 7z"),
    "a.zip": (zip_of("photo.txt"), "a zip archive, and not one of torch.save"),
    "a.txt": (b"hello", "neither torch.save nor safetensors has written it"),
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_files_of_other_formats_are_named(folder, name, trust, monkeypatch):
    content, says = FILES[name]
    (folder / name).write_bytes(content)
    if trust:
        if name == "a.txt":
            pytest.skip("torch.load has its own words")
        monkeypatch.setenv(checkpoints.TRUST, "1")
    message = problem(name)
    assert message.startswith(f"{name} is damaged or not a checkpoint: it ") or (
        name == "a.txt"
    )
    assert says in message


FOLDERS = {
    # files in it, and what the folder is called
    "DeepSpeed": (
        ["zero_to_fp32.py", "latest"],
        "python zero_to_fp32.py x weights.pth",
    ),
    "its step": (["zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed"),
    "peft": (["adapter_config.json", "adapter_model.safetensors"], "a LoRA adapter"),
    "TensorFlow": (["saved_model.pb", "variables"], "TensorFlow"),
    "Flax": (["flax_model.msgpack", "config.json"], "Flax"),
    "Orbax": (["_CHECKPOINT_METADATA", "manifest.ocdbt"], "Flax"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_other_formats_are_named(folder, kind):
    names, says = FOLDERS[kind]
    (folder / "x").mkdir()
    for name in names:
        (folder / "x" / name).write_bytes(b"")
    message = problem("x")
    assert message.startswith(
        "no checkpoint at x (a folder, without model.safetensors): "
    )
    assert says in message


def test_the_ending_does_not_matter(folder):
    weights = dict(whole_model()["backbone"].state_dict())
    safetensors.torch.save_file(weights, "a.pth")
    check_loads("a.pth")
    os.replace(saved(weights, "b.pth"), "b.safetensors")
    check_loads("b.safetensors")


def test_one_of_several_files(folder):
    weights = list(whole_model()["backbone"].state_dict().items())
    name = saved(dict(weights[:20]), "model-00001-of-00002.bin")
    assert "It is one of several files: name their index (*.index.json)" in problem(
        name
    )


def as_timm(change):
    """timm's names, after a change of the tensors."""
    weights = {
        timm_name(name): tensor
        for name, tensor in whole_model()["backbone"].state_dict().items()
        if not name.startswith("norm")
    }
    return {name: w for name, w in change(weights).items() if w is not None}


def overlapping(weights):
    """timm's ``stem_type='overlap'``."""
    stem = {
        "stem.0.weight": torch.ones(4, 3, 3, 3),
        "stem.0.bias": torch.ones(4),
        "stem.1.weight": torch.ones(8, 4, 3, 3),
        "stem.1.bias": torch.ones(8),
        "stem.2.weight": torch.ones(8),
        "stem.2.bias": torch.ones(8),
    }
    return {**weights, **stem}


def rms(weights):
    """timm's ``norm_layer='rmsnorm2d'``."""
    norms = (".norm.bias", "stem.1.bias", "downsample.0.bias")
    return {name: w for name, w in weights.items() if not name.endswith(norms)}


def kernels(size, name):
    def change(weights):
        old = weights[name].shape
        return {**weights, name: torch.ones(*old[:2], size, size)}

    return change


VARIANTS = {
    "ols": (overlapping, r"another stem \(kernels of 3 x 3, .*convnext_\*_ols\)"),
    "rms": (rms, r"another norm \(RMSNorm, without bias, as timm's convnext_\*_rms\)"),
    "both": (lambda w: rms(overlapping(w)), r"another stem .* and another norm"),
    "patches": (kernels(2, "stem.0.weight"), r"another stem \(kernels of 2 x 2"),
    "depthwise": (
        kernels(5, "stages.1.blocks.0.conv_dw.weight"),
        r"other depthwise convolutions \(kernels of 5 x 5, not of 7 x 7\)",
    ),
    "downsampling": (
        kernels(3, "stages.1.downsample.1.weight"),
        r"other downsample layers \(kernels of 3 x 3",
    ),
    "no bias": (
        lambda w: {n: v for n, v in w.items() if not n.endswith("conv_dw.bias")},
        r"other depthwise convolutions \(without bias\)",
    ),
    "wide": (
        lambda w: {
            **w,
            "stages.0.blocks.0.mlp.fc1.weight": torch.ones(24, 8),
            "stages.0.blocks.0.mlp.fc1.bias": torch.ones(24),
        },
        r"other blocks \(from 8 to 24 channels, not to 32\)",
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("arch", [SMALL, "atto"])
def test_variants_that_cannot_fit(folder, variant, arch):
    """No setting is advised: none helps."""
    change, says = VARIANTS[variant]
    weights = as_timm(change)
    saved(weights)
    with pytest.raises(
        InputError,
        match=rf"a\.pth \(timm\) is of a variant .* cannot be loaded: it has {says}",
    ) as error:
        checkpoints.load_pretrained(ConvNeXt(arch), "a.pth")
    assert "arch=" not in str(error.value)
    with pytest.raises(InputError, match=says):
        convert(weights, "a.pth", "native")


def test_variants_of_timm_as_it_builds_them():
    timm = pytest.importorskip("timm")
    for name in ("convnext_atto_ols", "convnext_zepto_rms", "convnext_zepto_rms_ols"):
        if name not in timm.list_models("convnext*"):
            continue
        with torch.device("meta"):
            weights = timm.create_model(name).state_dict()
        with pytest.raises(InputError, match=r"is of a variant of ConvNeXt"):
            convert(weights, name, "native")


def test_conv_mlp_loads(folder):
    """timm's smallest models have convolutions as pointwise layers."""

    def convolutions(weights):
        return {
            n: w[:, :, None, None] if "mlp" in n and n.endswith("weight") else w
            for n, w in weights.items()
        }

    check_loads(saved(as_timm(convolutions)))
