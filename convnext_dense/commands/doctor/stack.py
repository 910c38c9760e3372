"""Check which distributions of the toolboxes are installed, by their metadata."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from importlib import metadata

from .finding import ERROR, INFO, OK, WARNING, Finding
from .remedies import FRESH

NAME = "toolboxes"
# For each stack (the name of its extra in setup.py): import name -> the distributions
# that install it.
STACKS: dict[str, dict[str, tuple[str, ...]]] = {
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


def is_installed(module: str) -> bool:
    """Whether a top-level module can be found. It is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def toolboxes() -> Iterator[Finding]:
    """Check that one complete stack is installed, in versions that are tested."""
    versions = {stack: _versions(modules) for stack, modules in STACKS.items()}
    installed = [stack for stack in STACKS if versions[stack]]
    if len(installed) > 1:
        yield _mixed(versions)
        return
    absent = [module for module in STACKS["onedl"] if not is_installed(module)]
    broken = {"mmengine", "mmcv"}.intersection(absent) or set(TASKS) <= set(absent)
    stack = installed[0] if installed else "onedl"
    if broken:
        distributions = _listed(versions[stack]) or "none installed"
        yield Finding(
            ERROR,
            NAME,
            f"{distributions}; {', '.join(absent)} cannot be imported",
            f"pip install 'convnext-dense[{stack}]'   (in a clone: pip install -e "
            f"'.[{stack}]')",
        )
        return
    if installed:
        yield Finding(OK, NAME, f"{TITLES[stack]}: {_listed(versions[stack])}")
    else:  # clones of the toolboxes on PYTHONPATH
        yield Finding(INFO, NAME, "not installed by pip, so their versions are unknown")
    for module in absent:
        yield Finding(
            WARNING,
            NAME,
            f"{module} is not installed: {TASKS[module]} cannot train",
            f"if you need it: pip install {STACKS[stack][module][0]}",
        )
    yield from _twice(stack, versions[stack])
    yield from _out_of_range(versions[stack])


def _versions(modules: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The installed distributions of a stack and their versions."""
    names = [name for names in modules.values() for name in names]
    versions = {name: _version(name) for name in names}
    return {name: version for name, version in versions.items() if version}


def _mixed(versions: dict[str, dict[str, str]]) -> Finding:
    """The error of both stacks in one environment."""
    everything = {**versions["onedl"], **versions["openmmlab"]}
    return Finding(
        ERROR,
        NAME,
        f"both stacks are installed: {_listed(everything)}",
        "they have the same import names, so one overwrote files of the other. "
        "Uninstall both, then install one:\n"
        f"pip uninstall -y {' '.join(everything)}\n"
        "pip install 'convnext-dense[onedl]'   (or [openmmlab], the classic one)",
    )


def _twice(stack: str, versions: dict[str, str]) -> Iterator[Finding]:
    """Warn of modules that two installed distributions provide."""
    for module, names in STACKS[stack].items():
        twice = [name for name in names if name in versions]
        if len(twice) > 1:
            yield Finding(
                WARNING,
                NAME,
                f"{' and '.join(twice)} both provide {module}",
                "uninstall them, then install one:\n"
                f"pip uninstall -y {' '.join(twice)}; pip install {twice[0]}",
            )


def _out_of_range(versions: dict[str, str]) -> Iterator[Finding]:
    """Warn of versions that the extras in setup.py exclude.

    Does nothing if convnext_dense is not installed: then it has no metadata.
    """
    try:
        from packaging.requirements import Requirement

        requirements = map(Requirement, metadata.requires("convnext_dense") or ())
    except (ImportError, metadata.PackageNotFoundError):
        return
    for requirement in requirements:
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        version = versions.get(name)
        if version and not requirement.specifier.contains(version, prereleases=True):
            specifier = str(requirement.specifier)
            yield Finding(
                WARNING,
                NAME,
                f"{name} {version} is not a tested version ({specifier})",
                f"if it fails: pip install '{name}{specifier}'\nor {FRESH}",
            )


def export() -> Iterator[Finding]:
    """Name the packages that convnext-dense export needs for ONNX."""
    versions = _versions({"onnx": EXPORT})
    absent = [name for name in EXPORT if name not in versions]
    message = _listed(versions)
    if absent:
        message += f"{'; ' if message else ''}to export to ONNX: pip install "
        message += " ".join(absent)
    yield Finding(INFO, "export", message)


def _version(name: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name) or "of unknown version"
    except metadata.PackageNotFoundError:
        return None


def _listed(versions: dict[str, str]) -> str:
    """Distributions and their versions, in one line."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
