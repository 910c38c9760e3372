"""The rooms of the package: arrows go down only, and each import's target exists.

ARCHITECTURE.md draws them.
"""

import ast
import re
from pathlib import Path

import pytest

from .helpers.paths import ROOT

PACKAGE = "convnext_dense"
# From the lowest on: a room imports rooms before it. Rooms of one row do not know of
# each other.
ROWS = (
    ("errors", "version"),
    ("utils",),
    ("models", "optim", "ops"),
    ("checkpoints",),
    ("patches",),
    ("config", "reports"),
    ("datasets",),
    ("engine",),
    ("projects",),
    ("commands", "__main__"),
    ("inference",),
)
HEIGHT = {room: height for height, row in enumerate(ROWS) for room in row}
# Kept for configs and checkpoints of before the rooms; each has one import.
OLD = {"block", "imagenet_s", "own_data", "own_data.label_folder", "datasets.coco_o"}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {name_of(file): file for file in sorted((ROOT / PACKAGE).rglob("*.py"))}


def imports_of(name: str) -> set[str]:
    """The modules of the package that the module ``name`` imports, also later on."""
    file = FILES[name]
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    targets = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                targets.add(full if full in FILES else source)
    return {t for t in targets if t.partition(".")[0] == PACKAGE} - {name}


IMPORTS = {name: imports_of(name) for name in FILES}


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", FILES)
def test_arrows_go_down(name):
    short = name.removeprefix(f"{PACKAGE}.")
    if name == PACKAGE or short in OLD:
        return
    assert room_of(name) in HEIGHT, f"{name} is in no room"
    for target in IMPORTS[name]:
        assert target in FILES, f"{name} imports {target}"
        if target == PACKAGE and room_of(name) == "commands":
            continue  # the doctor looks at the package itself
        assert target != PACKAGE
        if room_of(target) != room_of(name):
            assert HEIGHT[room_of(target)] < HEIGHT[room_of(name)], (name, target)


def test_no_circles():
    done, path = set(), []

    def visit(name):
        if name in path:
            raise AssertionError(" -> ".join([*path[path.index(name) :], name]))
        if name not in done:
            path.append(name)
            for target in IMPORTS[name] - {PACKAGE}:
                visit(target)
            done.add(path.pop())

    for name in FILES:
        visit(name)


def uses(modules: set[str], *rooms: str) -> list[tuple[str, str]]:
    """(module of ours, what it imports) for ``modules``, outside ``rooms``."""
    pairs = []
    for name, file in FILES.items():
        if room_of(name) in rooms:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported = [node.module]
            else:
                continue
            pairs += [(name, m) for m in imported if m.partition(".")[0] in modules]
    return pairs


def test_only_commands_parse_arguments():
    # Training scripts store their arguments beside the weights.
    unpickling = f"{PACKAGE}.checkpoints.unpickling."
    assert not [
        (name, module)
        for name, module in uses({"argparse"}, "commands")
        if not name.startswith(unpickling)
    ]


def test_models_know_no_toolbox():
    rooms = {room for row in ROWS for room in row} - {"models"}
    assert not uses({"mmdet", "mmseg", "mmcv"}, "", *rooms, "own_data")


def test_what_one_stack_leaves_out_uses_no_toolbox():
    """``make test-openmmlab`` leaves these out, since ``make test`` runs them."""
    (listed,) = re.findall(
        r"^NO_TOOLBOX = ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.M
    )
    names = [
        prefix + name
        for prefix, files in re.findall(r"addprefix (\S+),([^)]*)", listed)
        for name in files.split()
    ]
    assert len(names) == 11
    for name in names:
        text = (ROOT / name).read_text()
        assert not re.search(r"mmengine|mmcv|mmdet|mmseg|_runs\b|\btool\b", text), name
