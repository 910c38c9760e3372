"""``convnext-dense``: its commands, mistakes, completion, configs by name."""

import re
import subprocess
import sys

import pytest
from mmengine.config import Config

from convnext_dense import commands
from convnext_dense.config import shipped
from convnext_dense.config.options import load_config
from convnext_dense.errors import InputError
from convnext_dense.version import __version__

from ..helpers.paths import ROOT
from ..helpers.running import shell


def call(monkeypatch, capfd, *args):
    """The exit code, standard output and standard error of ``convnext-dense ARGS``."""
    monkeypatch.setattr(sys, "argv", ["convnext-dense", *args])
    with pytest.raises(SystemExit) as end:
        commands.main()
    return (end.value.code or 0, *capfd.readouterr())


def test_help_lists_every_command(monkeypatch, capfd):
    code, out, _ = call(monkeypatch, capfd, "--help")
    assert code == 0
    for name in commands.names():
        assert f"\n    {name.replace('_', '-')}" in out


def test_the_version(monkeypatch, capfd):
    assert call(monkeypatch, capfd, "--version")[1] == f"convnext-dense {__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "usage: convnext-dense"),
        (("traim",), "there is no command traim. Did you mean train?"),
        (("inspect-date",), "Did you mean inspect-data?"),
        (("\x1b[31m",), r"there is no command \x1b[31m."),
        (("--verbose",), "unrecognized arguments: --verbose"),
        (("--print-completion", "fish"), "invalid choice: 'fish'"),
    ],
)
def test_mistakes(args, message, monkeypatch, capfd):
    code, _, err = call(monkeypatch, capfd, *args)
    assert code == 2
    assert message in err


def test_a_name_may_have_underscores(monkeypatch, capfd):
    for name in "show-layer-decay", "show_layer_decay":
        code, out, _ = call(monkeypatch, capfd, name, "--help")
        assert code == 0
        assert out.startswith(f"usage: convnext-dense {name} ")


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "tcsh"])
def test_completion_scripts_know_the_commands(shell_name, monkeypatch, capfd):
    pytest.importorskip("shtab")
    code, out, _ = call(monkeypatch, capfd, "--print-completion", shell_name)
    assert code == 0
    assert "inspect-data" in out


def test_bash_completes_commands_and_configs(monkeypatch, capfd, tmp_path):
    pytest.importorskip("shtab")
    _, script, _ = call(monkeypatch, capfd, "--print-completion", "bash")
    words = 'COMP_WORDS=(convnext-dense {0} "$1"); COMP_CWORD={1}'
    ask = '_shtab_convnext_dense convnext-dense "$1"; printf "%s\\n" "${COMPREPLY[@]}"'

    def completed(before, word):
        code = "\n".join([script, words.format(before, len(before.split()) + 1), ask])
        done = subprocess.run(
            ["bash", "-c", code, "bash", word],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        return done.stdout.split()

    assert completed("", "ins") == ["inspect-data"]
    (tmp_path / "mask2former_mine.py").touch()
    assert set(completed("train", "mask2former")) == {
        *(n.partition("/")[2] for n in shipped.names() if "mask2former" in n),
        "mask2former_mine.py",
    }


def test_python_m_needs_no_torch_for_help():
    done = shell("-X", "importtime", "-m", "convnext_dense", "configs", "dinov3")
    assert done.returncode == 0, done.stderr
    assert "linear_convnext_b_dinov3_ade20k" in done.stdout
    assert re.search(r"\| +argparse$", done.stderr, re.MULTILINE)
    assert not re.search(r"\| +(torch|mmengine)$", done.stderr, re.MULTILINE)


# ------------------------------------------------------------------- configs by name


@pytest.mark.parametrize(
    "name",
    [
        "mask_rcnn_convnext_t_coco",
        "mask_rcnn_convnext_t_coco.py",
        "det/mask_rcnn_convnext_t_coco",
        "configs/det/mask_rcnn_convnext_t_coco.py",
    ],
)
def test_a_config_by_name(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(name)
    assert cfg.filename == str(ROOT / "configs/det/mask_rcnn_convnext_t_coco.py")
    assert cfg.work_dir == "work_dirs/mask_rcnn_convnext_t_coco"


def test_a_file_comes_before_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask_rcnn_convnext_t_coco.py").write_text("model = dict(type='mine')")
    assert load_config("mask_rcnn_convnext_t_coco.py").model.type == "mine"
    (tmp_path / "mask_rcnn_convnext_t_coco").mkdir()  # a work dir
    assert not shipped.is_config("mask_rcnn_convnext_t_coco")


def test_a_name_with_a_typing_mistake():
    with pytest.raises(InputError, match="Did you mean mask_rcnn_convnext_t_coco"):
        shipped.resolve("mask_rcn_convnext_t_coco")


def test_every_config_has_a_name_of_its_own():
    bare = [name.partition("/")[2] for name in shipped.names()]
    files = {*ROOT.glob("configs/det/*.py"), *ROOT.glob("configs/seg/*.py")}
    assert len(set(bare)) == len(bare) == len(files)


def test_configs_are_listed_with_published_numbers(tool):
    done = tool("configs", "cascade", "_t_")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "det/cascade_mask_rcnn_convnext_t_coco",
        "det/cascade_mask_rcnn_convnext_t_dinov3_coco",
    ]
    assert lines[0].endswith("50.4 box AP, 43.7 mask AP")
    assert tool("configs", "swin").code == 2


def test_a_copied_config_is_whole(tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = "upernet_convnext_b_in22k_ade20k_640"
    done = tool("configs", "--copy", name)
    assert done.code == 0, done.err
    original = Config.fromfile(shipped.resolve(f"seg/{name}"))
    copied = Config.fromfile(tmp_path / f"{name}.py")
    assert copied.to_dict() == original.to_dict()
    done = tool("configs", "--copy", name)
    assert done.code == 2
    assert "--overwrite" in done.err
    done = tool("configs", "--copy", name, "--out", "mine.py", "b_in22k")
    assert "leave out b_in22k" in done.err
    assert tool("configs", "--out", "mine.py").code == 2
    assert not (tmp_path / "mine.py").exists()


def test_names_may_stand_after_flags(monkeypatch, capfd, tmp_path):
    args = "x.pth", "--out", str(tmp_path), "none.jpg"
    code, _, err = call(monkeypatch, capfd, "predict", *args)
    assert (code, err) == (2, "error: no file, folder or pattern matches none.jpg\n")
    code, _, err = call(monkeypatch, capfd, "predict", "--out", "out")
    assert (code, err.count("CHECKPOINT INPUT\n")) == (2, 1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "a.yaml"], "--out a.yaml: a config is Python: name a .py file"),
        (["--out", "no/a.py"], "there is no folder"),
    ],
)
def test_where_a_copied_config_cannot_be(args, message, tool, tmp_path):
    done = tool("configs", "--copy", "mask_rcnn_convnext_t_coco", *args)
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())
