"""The machine and the versions that the figures are measured with."""

import importlib.metadata
import platform
from pathlib import Path

import torch

from convnext_dense.errors import InputError

from . import peers


def choose_device(name: str | None) -> str:
    """The device of that name; without a name, cuda if there is a GPU, else cpu.

    Raises:
        InputError: ``name`` is cuda and there is no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError("--device cuda: torch finds no GPU. Use --device cpu")
    return name or ("cuda" if has_gpu else "cpu")


def describe(device: str) -> str:
    """The device and the libraries' versions, in one line."""
    capability = torch.backends.cpu.get_cpu_capability()
    name = f"{torch.get_num_threads()} threads of {_cpu()} ({capability})"
    if device == "cuda":
        name = f"{torch.cuda.get_device_name()}, {name}"
    versions = [f"torch {torch.__version__}"]
    for library in peers.installed():
        try:
            versions.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:  # pip did not install it
            versions.append(f"{library} of unknown version")
    return f"{name}, {', '.join(versions)}"


def _cpu() -> str:
    """The CPU's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1] for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine()).strip()
