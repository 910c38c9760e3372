"""Which distributions of the toolboxes are installed, by their metadata alone."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from importlib import metadata

from .remedies import FRESH
from .result import INFO, OK, TROUBLE, WARNING, Finding

WHAT = "toolboxes"
# Import name -> the distributions that bring it, stack by stack (and the extra of
# setup.py with which to install it).
STACKS = {
    "onedl": {
        "mmengine": ("onedl-mmengine",),
        "mmcv": ("onedl-mmcv",),
        "mmdet": ("onedl-mmdetection",),
        "mmseg": ("onedl-mmsegmentation",),
    },
    "openmmlab": {
        "mmengine": ("mmengine", "mmengine-lite"),
        "mmcv": ("mmcv-lite", "mmcv", "mmcv-full"),
        "mmdet": ("mmdet",),
        "mmseg": ("mmsegmentation",),
    },
}
TITLES = {"onedl": "maintained stack", "openmmlab": "classic stack"}
TASKS = {"mmdet": "detection", "mmseg": "segmentation"}
EXPORT = ("onnx", "onnxscript", "onnxruntime")


def is_there(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def toolboxes() -> Iterator[Finding]:
    found = {
        stack: {name: _version(name) for names in modules.values() for name in names}
        for stack, modules in STACKS.items()
    }
    versions = {
        stack: {name: version for name, version in names.items() if version}
        for stack, names in found.items()
    }
    here = [stack for stack in STACKS if versions[stack]]
    if len(here) > 1:
        yield _mixed(versions)
        return
    absent = [module for module in STACKS["onedl"] if not is_there(module)]
    broken = {"mmengine", "mmcv"}.intersection(absent) or set(TASKS) <= set(absent)
    stack = here[0] if here else "onedl"
    if broken:
        has = _listed(versions[stack]) or "none"
        yield Finding(
            TROUBLE,
            WHAT,
            f"{has}; {', '.join(absent)} cannot be imported",
            f"in a clone of convnext_dense: pip install -e '.[{stack}]'",
        )
        return
    if here:
        yield Finding(OK, WHAT, f"{TITLES[stack]}: {_listed(versions[stack])}")
    else:  # a clone of each, on PYTHONPATH
        yield Finding(INFO, WHAT, "there, but not installed by pip: no versions")
    for module in absent:
        yield Finding(
            WARNING,
            WHAT,
            f"no {module}: {TASKS[module]} cannot train",
            f"if you want it: pip install {STACKS[stack][module][0]}",
        )
    yield from _twice(stack, versions[stack])
    yield from _out_of_range(versions[stack])


def _mixed(versions: dict) -> Finding:
    everything = {**versions["onedl"], **versions["openmmlab"]}
    return Finding(
        TROUBLE,
        WHAT,
        f"both stacks in one environment: {_listed(everything)}",
        "they have the same import names, and their files lie over each other's. Take "
        "all out, then put one in:\n"
        f"pip uninstall -y {' '.join(everything)}\n"
        "pip install -e '.[onedl]'      (or '.[openmmlab]', the classic one)",
    )


def _twice(stack: str, versions: dict) -> Iterator[Finding]:
    for module, names in STACKS[stack].items():
        twice = [name for name in names if name in versions]
        if len(twice) > 1:
            yield Finding(
                WARNING,
                WHAT,
                f"{' and '.join(twice)} both bring {module}",
                "take all out, then put one in:\n"
                f"pip uninstall -y {' '.join(twice)}; pip install {twice[0]}",
            )


def _out_of_range(versions: dict) -> Iterator[Finding]:
    """Versions that setup.py's extras exclude; only an installed package has those."""
    try:
        from packaging.requirements import Requirement

        wanted = map(Requirement, metadata.requires("convnext_dense") or ())
    except (ImportError, metadata.PackageNotFoundError):
        return
    for requirement in wanted:
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        version = versions.get(name)
        if version and not requirement.specifier.contains(version, prereleases=True):
            specifier = str(requirement.specifier)
            yield Finding(
                WARNING,
                WHAT,
                f"{name} {version} is not {specifier}, which is tested",
                f"if it fails: pip install '{name}{specifier}'\nor {FRESH}",
            )


def export() -> Iterator[Finding]:
    versions = {name: _version(name) for name in EXPORT}
    absent = [name for name in EXPORT if not versions[name]]
    found = _listed({name: version for name, version in versions.items() if version})
    if absent:
        found += f"{'; ' if found else ''}to export to ONNX: pip install "
        found += " ".join(absent)
    yield Finding(INFO, "export", found)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name) or "of unknown version"
    except metadata.PackageNotFoundError:
        return None


def _listed(versions: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
