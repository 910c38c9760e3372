"""Which way the backbone is computed on each GPU, and why."""

from __future__ import annotations

from collections.abc import Iterator

from . import remedies
from .result import INFO, OK, TROUBLE, WARNING, Finding

WHAT = "kernels"
WORDS = {"tensor_cores": "tensor cores", "triton": "Triton", "plain": "plain PyTorch"}


def kernels() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding(INFO, WHAT, "for GPUs only")
        return
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        seen = "plain PyTorch: Triton is not installed"
        yield Finding(WARNING, WHAT, seen, remedies.TRITON)
        return
    from convnext_dense.commands import load_package
    from convnext_dense.errors import InputError

    load_package()
    from convnext_dense.models.fused.gpu import ways

    try:
        ways.forced()
    except InputError as error:
        yield Finding(TROUBLE, WHAT, str(error), f"unset {ways.VARIABLE}")
        return
    alike: dict[tuple, list[int]] = {}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        alike.setdefault((about.name, about.major, about.minor), []).append(index)
    for (name, major, minor), indices in alike.items():
        several = f"{len(indices)} x " if indices[1:] else ""
        gpu = f"{several}{name}, compute capability {major}.{minor}"
        yield _taken(indices[0], gpu)
        yield from _measured(indices[0])
    yield _kept()


def _taken(index: int, gpu: str) -> Finding:
    """The ways by type, the reason for the worst of them, and a remedy for that."""
    import torch

    from convnext_dense.models.fused.gpu import report, ways

    by_type = report.ways_on(index)
    types: dict[str, list[str]] = {}
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    for work, way in by_type.items():
        types.setdefault(way.way, []).append(names[work])
    order = sorted(types, key=ways.WAYS.index)
    words = [f"{WORDS[way]} in {' and '.join(types[way])}" for way in order]
    seen = f"{', '.join(words) if words[1:] else WORDS[order[0]]} ({gpu})"

    mendable = [way.why for way in by_type.values() if way.mendable]
    plain = [way.why for way in by_type.values() if way.way == ways.PLAIN]
    if ways.forced():
        seen += f": {ways.VARIABLE}={ways.forced()} is set"
        remedy = f"unset {ways.VARIABLE}, unless you look for an error in a way"
        return Finding(WARNING, WHAT, seen, remedy)
    if mendable:
        remedy = (
            f"pip install 'cuda-bindings~={torch.version.cuda}'   (of this torch's "
            "CUDA)\nif it is installed: update torch"
        )
        return Finding(WARNING, WHAT, f"{seen}: {mendable[0]}", remedy)
    if plain:
        seen += f": {plain[0]}"
    return Finding(INFO if order == [ways.PLAIN] else OK, WHAT, seen)


def _measured(index: int) -> Iterator[Finding]:
    from convnext_dense.models.fused.gpu import report

    times = report.times(index)
    if times is None:
        return
    least, most = times.ratios
    seen = (
        f"stages timed here: {times.stages}; kernels take {least:.2f} to {most:.2f} of "
        "plain PyTorch's time"
    )
    if times.plain:
        seen += f"; plain PyTorch is taken for {times.plain}"
    yield Finding(INFO, WHAT, seen)


def _kept() -> Finding:
    from convnext_dense.models.fused.gpu import report

    kept = report.kept()
    if kept.folder is None:
        return Finding(
            WARNING,
            WHAT,
            "none can be kept: the folder cannot be written; each process compiles "
            "anew",
            "export CONVNEXT_DENSE_CACHE=FOLDER   (one that can be written)",
        )
    return Finding(OK, WHAT, f"{kept.kernels} compiled ones kept in {kept.folder}")
