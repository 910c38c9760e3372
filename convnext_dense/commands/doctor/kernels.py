"""Check how the backbone is computed on each GPU: by which kernels, and why."""

from __future__ import annotations

from collections.abc import Iterator

from . import remedies
from .finding import ERROR, INFO, OK, WARNING, Finding

NAME = "kernels"
TITLES = {"tensor_cores": "tensor cores", "triton": "Triton", "plain": "plain PyTorch"}


def kernels() -> Iterator[Finding]:
    """Name the kernels that run on each GPU, and where compiled ones are cached."""
    import torch

    if not torch.cuda.is_available():
        yield Finding(INFO, NAME, "for GPUs only")
        return
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        message = "plain PyTorch: Triton is not installed"
        yield Finding(WARNING, NAME, message, remedies.TRITON)
        return
    from convnext_dense.commands import load_package
    from convnext_dense.errors import InputError

    load_package()
    from convnext_dense.models.fused.gpu import ways

    try:
        ways.forced()
    except InputError as error:
        yield Finding(ERROR, NAME, str(error), f"unset {ways.VARIABLE}")
        return
    models: dict[tuple, list[int]] = {}  # GPU model -> indices of its GPUs
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        models.setdefault((gpu.name, gpu.major, gpu.minor), []).append(index)
    for (name, major, minor), indices in models.items():
        count = f"{len(indices)} x " if indices[1:] else ""
        title = f"{count}{name}, compute capability {major}.{minor}"
        yield _kernels_on(indices[0], title)
        yield from _measured(indices[0])
    yield _cache()


def _kernels_on(index: int, title: str) -> Finding:
    """The kernels of a GPU for each number type, and why they are not the fastest.

    Args:
        index: the GPU's.
        title: the GPU's model.
    """
    import torch

    from convnext_dense.models.fused.gpu import report, ways

    by_type = report.ways_on(index)
    types: dict[str, list[str]] = {}
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    for work, way in by_type.items():
        types.setdefault(way.way, []).append(names[work])
    order = sorted(types, key=ways.WAYS.index)
    uses = [f"{TITLES[way]} in {' and '.join(types[way])}" for way in order]
    message = f"{', '.join(uses) if uses[1:] else TITLES[order[0]]} ({title})"

    mendable = [way.why for way in by_type.values() if way.mendable]
    plain = [way.why for way in by_type.values() if way.way == ways.PLAIN]
    if ways.forced():
        message += f": {ways.VARIABLE}={ways.forced()} is set"
        remedy = f"unset {ways.VARIABLE}, unless you are debugging these kernels"
        return Finding(WARNING, NAME, message, remedy)
    if mendable:
        remedy = (
            f"pip install 'cuda-bindings~={torch.version.cuda}'   (the version of this "
            "torch's CUDA)\nif it is installed already: update torch"
        )
        return Finding(WARNING, NAME, f"{message}: {mendable[0]}", remedy)
    if plain:
        message += f": {plain[0]}"
    return Finding(INFO if order == [ways.PLAIN] else OK, NAME, message)


def _measured(index: int) -> Iterator[Finding]:
    """The times of kernels and of plain PyTorch that earlier runs measured."""
    from convnext_dense.models.fused.gpu import report

    times = report.times(index)
    if times is None:
        return
    least, most = times.ratios
    message = (
        f"stages timed on this GPU: {times.stages}; kernels take {least:.2f} to "
        f"{most:.2f} of plain PyTorch's time"
    )
    if times.plain:
        message += f"; plain PyTorch is used for {times.plain}"
    yield Finding(INFO, NAME, message)


def _cache() -> Finding:
    """The folder that caches compiled kernels."""
    from convnext_dense.models.fused.gpu import report

    kept = report.kept()
    if kept.folder is None:
        return Finding(
            WARNING,
            NAME,
            "compiled kernels cannot be cached: the folder is not writable; each "
            "process compiles them again",
            "export CONVNEXT_DENSE_CACHE=FOLDER   (a writable one)",
        )
    return Finding(OK, NAME, f"{kept.kernels} compiled kernels in {kept.folder}")
