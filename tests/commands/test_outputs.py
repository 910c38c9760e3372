"""Outputs of every command: they replace no input, and no file without --overwrite;
a full disk leaves older files as they were.
"""

import argparse
import contextlib
import errno
import json
import os
import resource
import shutil
from pathlib import Path

import cv2
import PIL.Image
import pytest
import safetensors.torch
from mmengine.visualization import vis_backend

from convnext_dense import ConvNeXt
from convnext_dense.commands import train
from convnext_dense.commands.test import whole_files
from convnext_dense.config.options import load_config
from convnext_dense.config.work_dir import check_config_file, is_dumped
from convnext_dense.errors import InputError

from ..bad_inputs.weights import save, small_config
from ..helpers.custom_data import write_label_maps
from ..helpers.running import shell
from ..helpers.runs import COCO, DET, SEG, options

READ = "is a file that this command reads"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory, shapes_root):
    """A folder with inputs of every command."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(shapes_root, folder / "shapes")
    write_label_maps(folder / "labelled")
    (folder / "labelled/classes.txt").write_text("a\nb\n")
    save(folder)
    small_config(folder)
    weights = ConvNeXt("atto").state_dict()
    names = sorted(weights)
    index = {}
    (folder / "sharded").mkdir()
    for number, half in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        tensors = {name: weights[name].contiguous() for name in half}
        safetensors.torch.save_file(tensors, folder / "sharded" / file)
        index |= dict.fromkeys(half, file)
    file = folder / "sharded/model.safetensors.index.json"
    file.write_text(json.dumps(dict(weight_map=index)))
    work_dir = folder / "run/20260101_000000/vis_data"
    work_dir.mkdir(parents=True)
    (work_dir / "scalars.json").write_text('{"loss": 1, "step": 1, "iter": 1}\n')
    (folder / "run/c.py").write_text(f"_base_ = {str(DET)!r}")
    shutil.copy(folder / "x.pth", folder / "run/epoch_1.pth")
    (folder / "base.py").write_text(f"_base_ = {str(SEG)!r}")
    (folder / "heir.py").write_text("_base_ = './base.py'")
    return folder


@pytest.fixture
def inputs(built, tmp_path, monkeypatch):
    """A copy of ``built`` as the current folder. Two names are links."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    (tmp_path / "link.pth").symlink_to("x.pth")
    (tmp_path / "photos").symlink_to("out/pictures", target_is_directory=True)
    shutil.copytree(tmp_path / "shapes/images/val", tmp_path / "out/pictures")
    return tmp_path


IMAGES, JSON = "shapes/images/val", "shapes/annotations/instances_train.json"
INDEX = "sharded/model.safetensors.index.json"
SHARD = "sharded/model-0.safetensors"
LABELLED = (
    *("inspect_data", "--train-images", "labelled/images", "--train-labels"),
    *("labelled/labels", "--classes", "labelled/classes.txt"),
)
OBJECTS = (
    "inspect_data",
    "--train-json",
    JSON,
    "--train-images",
    "shapes/images/train",
)
BIG = options("data_root=shapes")

# A command line, and its outputs that are inputs.
REPLACING = [
    (("convert_checkpoint", INDEX), [SHARD]),
    (("convert_checkpoint", "sharded"), [SHARD, "sharded/model.safetensors"]),
    (("convert_checkpoint", "x.pth"), ["x.pth", "./x.pth", "run/../x.pth", "link.pth"]),
    (("convert_checkpoint", "link.pth"), ["x.pth", "link.pth"]),
    (("export", SEG, "x.pth", "--backbone", "--out"), ["x.pth", "link.pth"]),
    (("export", "heir.py", INDEX, "--out"), ["base.py", "heir.py", INDEX, SHARD]),
    ((*OBJECTS, "--html"), [JSON, "shapes/images/train/000001.jpg"]),
    (("inspect_data", "--data", "shapes", "--html"), [JSON]),
    (
        (*LABELLED, "--html"),
        ["labelled/classes.txt", "labelled/images/new.jpg", "labelled/labels/new.png"],
    ),
    ((*LABELLED, "--fix"), ["labelled/labels/new", "labelled/images/new"]),
    (("inspect_data", "--data", "shapes", "--fix"), ["shapes/new"]),
    (
        ("report", "run", "--out"),
        [
            *("run/epoch_1.pth", "run/c.py", "run/new.py", "run/best_x.pth"),
            "run/20260101_000000/vis_data/scalars.json",
        ],
    ),
    (("report", "run", "--checkpoint", "link.pth", "--out"), ["x.pth", "link.pth"]),
    (("predict", "x.pth", "photos", "--out"), ["out", "./out/", "run/../out"]),
    (("predict", "x.pth", "photos/*", "--out"), ["out"]),
    (("predict", "x.pth", IMAGES, "--out"), [IMAGES, "shapes/images/../images/val"]),
    (("predict", "c.py", "x.pth", IMAGES, "link", "--out"), ["out2"]),
    (("test", DET, "x.pth", *BIG, "--show-dir"), [IMAGES, "photos/../../" + IMAGES]),
    (("test", SEG, "x.pth", *BIG, "--out"), ["shapes/labels/val", IMAGES]),
    (("complexity", "heir.py", "--json"), ["base.py", "heir.py"]),
    (("benchmark", "heir.py", "--json"), ["base.py"]),
    (("benchmark", "heir.py", "--plot"), ["heir.py"]),
    (("show_layer_decay", "heir.py", "--plot"), ["base.py"]),
]
REPLACING = [
    pytest.param(command, output, id=f"{command[0]} {output}")
    for command, outputs in REPLACING
    for output in outputs
]


def complete(command, output):
    """The arguments: convert_checkpoint has its output before --to."""
    to = ["--to", "timm"] if command[0] == "convert_checkpoint" else []
    return [*command, output, *to]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("command", "output"), REPLACING)
def test_no_output_replaces_an_input(tool, inputs, command, output, overwrite):
    if "link" in command:  # the checkpoint is where a result would be
        (inputs / "out2").mkdir()
        os.link("x.pth", "out2/predictions.json")
        (inputs / "link").symlink_to(IMAGES, target_is_directory=True)
    before = contents(inputs)
    done = tool(*complete(command, output), *["--overwrite"] * overwrite)
    assert done.code == 2, done.out + done.err
    assert any(
        words in done.err
        for words in (READ, "reads such files", "is the folder of the images")
    ), done.err
    assert done.err.count("error: ") == 1
    assert contents(inputs) == before


def test_a_new_run_does_not_replace_what_it_reads(tool, inputs):
    before = contents(inputs)
    weights = ["--cfg-options", "load_from=link.pth", "data_root=shapes"]
    os.link("x.pth", "run/epoch_7.pth")
    before = contents(inputs)
    done = tool("train", DET, "--work-dir", "run", *weights)
    assert done.code == 2
    assert f"run/epoch_7.pth {READ}" in done.err
    (inputs / "run/data").mkdir()
    shutil.copy(JSON, "run/data/train.json")
    data = ["--train-json", "run/data/train.json", "--train-images", IMAGES]
    done = tool("train", DET, "--work-dir", "run", *data)
    assert done.code == 2
    assert f"run/data/train.json {READ}" in done.err
    shutil.rmtree("run/data")
    assert contents(inputs) == before


def test_a_config_in_the_work_dir_is_kept(tool, inputs):
    """mmengine writes the run's config under the same name."""
    before = contents(inputs)
    for config in ("heir.py", inputs / "heir.py"):
        done = tool("train", config, "--work-dir", ".", *BIG)
        assert done.code == 2
        assert "would replace heir.py, which no run wrote: choose another" in done.err
    assert contents(inputs) == before
    # What a run wrote is replaced, as before.
    cfg = load_config("heir.py", work_dir="run")
    cfg.dump("run/heir.py")
    check_config_file(cfg)
    for config in (COCO, DET):
        assert is_dumped(load_config(str(config)).pretty_text)


# Command lines that write the output which is added to them.
WRITING = {
    "convert_checkpoint": (("convert_checkpoint", "x.pth"), "new.pth"),
    "export": (("export", "heir.py", "--backbone", "--out"), "new.onnx"),
    "inspect_data": ((*OBJECTS, "--html"), "new.html"),
    "report": (("report", "run", "--out"), "new.html"),
    "complexity": (("complexity", "heir.py", "--json"), "new.json"),
    "benchmark": (("benchmark", "heir.py", "--json"), "new.json"),
    "benchmark --plot": (("benchmark", "heir.py", "--plot"), "new.png"),
    "show_layer_decay": (("show_layer_decay", COCO, "--plot"), "new.png"),
    "test": (("test", DET, "x.pth", *BIG, "--out"), "new.pkl"),
}


@pytest.mark.parametrize("command", WRITING)
def test_existing_files_links_and_devices_are_kept(tool, inputs, command):
    words, output = WRITING[command]
    suffix = Path(output).suffix
    (inputs / f"mine{suffix}").write_text("mine")
    (inputs / f"link{suffix}").unlink(missing_ok=True)
    (inputs / f"link{suffix}").symlink_to("absent")
    os.mkfifo(inputs / f"pipe{suffix}")
    says = {
        f"mine{suffix}": "exists already: choose another place, or add --overwrite",
        f"link{suffix}": "is a link to ",
        f"pipe{suffix}": "is a pipe, a device or a socket: name a file",
    }
    for name, message in says.items():
        done = tool(*complete(words, name))
        assert done.code == 2, done.out + done.err
        assert message in done.err
        if "mine" not in name:
            assert tool(*complete(words, name), "--overwrite").code == 2
    assert (inputs / f"mine{suffix}").read_text() == "mine"
    assert not (inputs / "absent").exists()
    if command == "export":  # its weights may be beside it
        (inputs / "new.onnx.data").write_text("mine")
        done = tool(*complete(words, "new.onnx"))
        assert "new.onnx.data exists already" in done.err


def test_overwrite_replaces_a_file(tool, inputs):
    (inputs / "a.html").write_text("old")
    done = tool(*OBJECTS, "--html", "a.html", "--overwrite")
    assert done.code == 0
    assert "<!doctype html>" in (inputs / "a.html").read_text()


def test_folders_of_results(tool, inputs):
    """A folder with results of the same names; one in the run's own work dir."""
    name = sorted(os.listdir(IMAGES))[0]
    shutil.copytree("out/pictures", "old/pictures")
    done = tool("predict", "x.pth", f"{IMAGES}/{name}", "--out", "old")
    assert done.code == 2
    assert f"old/pictures/{name} exists already: " in done.err
    (inputs / "maps").mkdir()
    (inputs / "maps/1.png").touch()
    done = tool("test", SEG, "x.pth", *BIG, "--out", "maps")
    assert "maps/1.png exists already: " in done.err
    shutil.copytree(IMAGES, "w/pictures")
    for show_dir, refused in {"old/pictures": True, "w/pictures": False}.items():
        test = ("test", DET, "gone.pth", "--work-dir", "w", "--show-dir", show_dir)
        done = tool(*test, *BIG)
        assert done.code == 2
        assert ("exist already" in done.err) == refused, done.err
        assert ("no checkpoint at gone.pth" in done.err) != refused


def test_a_report_that_is_not_ours_is_kept(tool, inputs):
    (inputs / "run/report.html").write_text("<title>mine</title>")
    done = tool("report", "run")
    assert done.code == 2
    assert "run/report.html exists already: " in done.err
    assert (inputs / "run/report.html").read_text() == "<title>mine</title>"


@contextlib.contextmanager
def disk_of(size):
    """Let no file grow beyond ``size`` bytes: as on a full disk, writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = {
    "convert_checkpoint": (("convert_checkpoint", "x.pth"), "new.pth", 99_000),
    "safetensors": (("convert_checkpoint", "x.pth"), "new.safetensors", 99_000),
    "inspect_data": ((*OBJECTS, "--html"), "new.html", 9000),
    "show_layer_decay": (("show_layer_decay", COCO, "--plot"), "new.png", 9000),
}


@pytest.mark.parametrize("command", FULL)
def test_a_full_disk(tool, inputs, command):
    words, output, size = FULL[command]
    (inputs / output).write_text("old")
    before = contents(inputs)
    with disk_of(size):
        done = tool(*complete(words, output), "--overwrite")
    assert done.code == 2, done.out + done.err
    assert "Traceback" not in done.out + done.err
    assert f"{output} could not be written: " in done.err
    shutil.rmtree(inputs / "work_dirs", ignore_errors=True)
    assert contents(inputs) == before


def half_saved(content, file, *args, **kwargs):
    """Stands for a function that writes a file, on a full disk."""
    with open(file, "w") as stream:
        stream.write("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_folders_are_filled(tool, inputs, monkeypatch):
    before = contents(inputs)
    with disk_of(4000):
        done = tool(*OBJECTS, "--fix", "new/folder")
    assert done.code == 2, done.out + done.err
    assert "new/folder/train.json could not be written: " in done.err
    assert contents(inputs) == before
    with monkeypatch.context() as full:
        full.setattr(cv2, "imwrite", lambda *_: False)
        full.setattr(Path, "write_bytes", lambda file, data: half_saved(data, file))
        done = tool(*LABELLED, "--fix", "new")
    assert done.code == 2, done.out + done.err
    assert ".png could not be written: " in done.err
    assert contents(inputs) == before
    with disk_of(20_000):  # the pictures are larger
        done = tool("predict", "x.pth", IMAGES, "--out", "new")
    assert done.code == 2, done.out + done.err
    assert "could not be written: " in done.err
    assert not list((inputs / "new").rglob("*.jpg"))
    assert not list((inputs / "new").rglob(".*"))


@pytest.mark.parametrize(
    ("task", "flag"), [("det", "show-dir"), ("seg", "show-dir"), ("seg", "out")]
)
def test_a_full_disk_while_a_test_writes(tool, inputs, monkeypatch, task, flag):
    """Neither half a picture, nor a run that ends well without them."""
    save(inputs, task)
    small_config(inputs, task)
    (inputs / "new").mkdir()
    test = ("test", "c.py", "x.pth", *BIG, "--work-dir", "w", f"--{flag}", "new")
    monkeypatch.setattr(PIL.Image.Image, "save", half_saved)
    if task == "seg":
        monkeypatch.setattr(vis_backend.cv2, "imwrite", lambda *_: False)
    with disk_of(60_000):
        done = tool(*test)
    assert done.code == 2, done.out + done.err
    assert "Traceback" not in done.out + done.err
    assert "could not be written: " in done.err
    assert not [name for name in contents(inputs / "new") if name.endswith("g")]
    assert not list((inputs / "new").rglob(".*"))


def test_a_full_disk_while_predictions_are_written(tool, inputs, monkeypatch):
    (inputs / "new.pkl").write_text("old")
    monkeypatch.setattr(whole_files.mmengine, "dump", half_saved)
    test = ("test", "c.py", "x.pth", *BIG, "--work-dir", "w", "--overwrite", "--out")
    done = tool(*test, "new.pkl")
    assert done.code == 2, done.out + done.err
    assert "new.pkl could not be written: " in done.err
    assert (inputs / "new.pkl").read_text() == "old"


def test_an_error_of_the_disk_is_a_message(tool, monkeypatch):
    """Wherever it is raised; with where it was raised, if it says so."""

    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b.json")

    monkeypatch.setattr("convnext_dense.config.options.load_config", fails)
    done = tool("train", DET)
    assert done.code == 2
    assert "No space left on device: 'a/b.json'. Free some space" in done.err
    monkeypatch.setenv("CONVNEXT_DENSE_DEBUG", "1")
    with pytest.raises(OSError, match="No space"):
        tool("train", DET)


def test_torch_does_not_abort_where_writing_fails(tmp_path):
    code = f"""
import resource, torch
from pathlib import Path
from convnext_dense.utils.torch_files import open_to_write

program = torch.export.export(torch.nn.Linear(300, 300), (torch.ones(1, 300),))
for size in (0, 5000, 100_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        with open_to_write(Path({str(tmp_path)!r}, "a.pt2")) as file:
            torch.export.save(program, file)
    except OSError as error:
        assert error.errno == 27, error
    else:
        raise SystemExit("written")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
with open_to_write(Path({str(tmp_path)!r}, "a.pt2")) as file:
    torch.export.save(program, file)
torch.export.load({str(tmp_path / "a.pt2")!r})
"""
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_run_does_not_draw_its_splits_over_the_data(tmp_path, resume):
    """Also one that would resume, and finds nothing to resume from."""
    data = tmp_path / "run/data"
    (data / "images").mkdir(parents=True)
    (data / "train.json").write_text("{}")
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    flags = ["--train-json", data / "train.json", "--train-images", data / "images"]
    flags = [DET, *flags, "--work-dir", tmp_path / "run", *resume]
    with pytest.raises(InputError, match=r"train\.json is a file that this command"):
        train.main(parser.parse_args(list(map(str, flags))))
    assert (data / "train.json").read_text() == "{}"
