"""Which machine and which versions the figures are from."""

import importlib.metadata
import platform
from pathlib import Path

import torch

from convnext_dense.errors import InputError

from . import peers


def device(wanted: str | None) -> str:
    """The device to measure on: the one wanted, else a GPU where there is one.

    Raises:
        InputError: there is no such device here.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise InputError("--device cuda: torch finds no GPU here; try --device cpu")
    return wanted or ("cuda" if there else "cpu")


def about(device: str) -> str:
    """One line: the device and the versions."""
    capability = torch.backends.cpu.get_cpu_capability()
    name = f"{torch.get_num_threads()} threads of {_cpu()} ({capability})"
    if device == "cuda":
        name = f"{torch.cuda.get_device_name()}, {name}"
    versions = [f"torch {torch.__version__}"]
    for library in peers.installed():
        versions.append(f"{library} {importlib.metadata.version(library)}")
    return f"{name}, {', '.join(versions)}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1] for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine()).strip()
