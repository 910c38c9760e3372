"""The documentation: its links, the paths that it names, and its commands.

Each ```bash block runs, with small models and few steps. A comment before a block,
``<!-- not run: REASON -->``, leaves it out; readers do not see it.
"""

import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import torch

from convnext_dense import checkpoints
from convnext_dense.config import shipped

from .helpers import custom_data, formats
from .helpers.paths import ROOT
from .helpers.runs import DET, SEG, options
from .helpers.small_runs import small, train

PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    ROOT / "configs/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n\Z")
# Flags with which a training takes seconds.
QUICK = {
    "det": ["train_dataloader.batch_size=2", "train_cfg.max_epochs=1"],
    "seg": [
        *("train_dataloader.batch_size=2", "train_cfg.max_iters=1"),
        *("train_cfg.val_interval=1", "default_hooks.checkpoint.interval=1"),
    ],
}


def quickened(tool: str, args: list[str]) -> list:
    """The arguments of a tool, for a small model and a single step."""
    if tool not in ("train", "test", "export"):
        return [arg.replace("iter_400", "iter_1") for arg in args]
    config, *flags = args
    if config.startswith("work_dirs/"):  # of a model that is small already
        return args
    task = Path(shipped.resolve(config)).parent.name
    flags = [flag.replace("iter_400", "iter_1") for flag in flags]
    if {"--data", "--train-images"} & set(flags):
        flags += ["--epochs", "1"]
    if tool != "export":
        flags += options(*(QUICK[task] if tool == "train" else ()))
    return [DET if task == "det" else SEG, *flags]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_every_page_is_linked_from_the_readme():
    targets = re.findall(r"\]\(([^)\s#]+)\)", prose(ROOT / "README.md"))
    linked = {(ROOT / target).resolve() for target in targets}
    assert set(PAGES) - {ROOT / "README.md"} <= linked


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_architecture_has_every_room():
    folders = {f.parent.name for f in (ROOT / "convnext_dense").glob("*/__init__.py")}
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| (.+?) \|", text, re.MULTILINE)
    rooms = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert folders <= rooms | {"own_data"}  # which has an old import path


def named_paths(page: Path) -> list[str]:
    """Paths of this repository in the page's code; CAPITALS are placeholders."""
    text = page.read_text(encoding="utf-8")
    codes = re.findall(r"`([^`\n]+)`", prose(page))
    codes += [code for _, code in FENCE.findall(text)]
    paths = re.findall(r"(?<![\w/.:{])\w[\w.*-]*(?:/[\w.*-]+)+/?", " ".join(codes))
    folders = {
        p.name for base in (ROOT, ROOT / "convnext_dense") for p in base.iterdir()
    }
    return [
        path
        for path in paths
        if not re.search(r"[A-Z]{3}", path)
        and (path.split("/")[0] in folders or path.endswith((".py", ".md", ".sh")))
        and not path.startswith(("data/", "work_dirs/"))  # of those who run commands
    ]


# docs/errors.md names files that do not exist, on purpose.
@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "errors"], ids=page_id)
def test_paths_in_code_exist(page):
    bases = (ROOT, ROOT / "convnext_dense", page.parent)
    for path in named_paths(page):
        assert any(any(base.glob(path.rstrip("/"))) for base in bases), path


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"(?<![\w.])convnext_dense(?:\.[A-Za-z_]\w*)+", text)):
        if name == "convnext_dense.pth":  # a file
            continue
        first, *rest = name.split(".")
        value = importlib.import_module(first)
        for depth, attribute in enumerate(rest, 2):
            if not hasattr(value, attribute):
                importlib.import_module(".".join([first, *rest][:depth]))
            value = getattr(value, attribute)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_are_python(page):
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(code, str(page), "exec")


NEEDS = re.compile(r"<!-- needs: (\w+) -->\n\Z")


def python_blocks() -> list:
    """The ```python blocks of docs/python.md, with the package that each needs."""
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    return [
        pytest.param(block[2], NEEDS.findall(text[: block.start()]), id=f"{number}")
        for number, block in enumerate(FENCE.finditer(text))
        if block[1] == "python"
    ]


@pytest.mark.parametrize(("code", "needed"), python_blocks())
def test_python_blocks_run(code, needed, folder, monkeypatch):
    for package in needed:
        pytest.importorskip(package)
    monkeypatch.chdir(folder)
    exec(compile(code, "docs/python.md", "exec"), {})


class Block(NamedTuple):
    """The commands of a ```bash block."""

    page: Path
    commands: list[list[str]]


def blocks() -> list[Block]:
    """Every block of the documentation that is to be run."""
    selected = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            if block[1] == "bash" and not NOT_RUN.search(text[: block.start()]):
                lines = block[2].replace("\\\n", " ").splitlines()
                commands = [shlex.split(line, comments=True) for line in lines]
                selected.append(
                    Block(page, [command for command in commands if command])
                )
    return selected


@pytest.fixture(scope="module")
def folder(shapes_root, tmp_path_factory):
    """A folder with all that the commands name."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("configs", "tools"):
        (root / name).symlink_to(ROOT / name)
    (root / "data").mkdir()
    (root / "data/shapes").symlink_to(shapes_root)
    (root / "my_data").symlink_to(shapes_root)
    for split in ("train", "val"):
        (root / f"{split}_images").symlink_to(shapes_root / "images" / split)
        file = shapes_root / f"annotations/instances_{split}.json"
        (root / f"{split}.json").symlink_to(file)
    custom_data.write_label_maps(root)
    formats.write_yolo(root / "yolo/images", root / "yolo/labels")
    names = ", ".join(formats.CLASSES)
    formats.text(root / "yolo/data.yaml", f"train: images\nnames: [{names}]\n")
    image = custom_data.photograph(root / "photos/1.jpg")
    custom_data.photograph(root / "more/folder/2.png")
    custom_data.photograph(root / "field.tif")
    clip = cv2.VideoWriter(
        str(root / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 48)
    )
    clip.write(cv2.imread(str(image)))
    clip.release()

    run = root / "work_dirs/run"
    train(small("epochs", run, shapes_root, options=["train_cfg.max_epochs=1"]))
    shutil.copy(run / "epoch_1.pth", run / "epoch_36.pth")
    weights = checkpoints.read(run / "epoch_1.pth")["state_dict"]
    both = {f"{at}.{k}": w for at in ("student", "teacher") for k, w in weights.items()}
    torch.save(dict(state_dict=both), root / "softteacher.pth")
    return root


def block_id(block: Block) -> str:
    return f"{page_id(block.page)}: {' '.join(block.commands[0])}"


@pytest.mark.parametrize("block", blocks(), ids=block_id)
def test_commands_run(block, tool, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for program, command, *args in block.commands:
        assert program == "convnext-dense", "mark the block: <!-- not run: REASON -->"
        name = command.replace("-", "_")
        done = tool(name, *quickened(name, args))
        assert done.code == 0, done.out + done.err
