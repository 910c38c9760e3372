"""The compiled packages: whether they import, fit together and compute."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator

from . import remedies
from .result import INFO, OK, TROUBLE, WARNING, Finding

LOCALLY = "https://pytorch.org/get-started/locally"


def torch() -> Iterator[Finding]:
    import torch

    found = [f"{torch.__version__} ({_build(torch)})"]
    if torch.version.cuda:
        cudnn = torch.backends.cudnn.version()
        found.append(f"cuDNN {cudnn}" if cudnn else "no cuDNN")
    x = torch.ones(2, requires_grad=True)
    (x * x).sum().backward()
    yield Finding(OK, "torch", ", ".join(found))
    with contextlib.suppress(ImportError):  # numpy's own check tells
        import numpy

        torch.from_numpy(numpy.zeros(1))  # fails if compiled for another numpy


def _build(torch) -> str:
    if getattr(torch.version, "hip", None):
        return f"for ROCm {torch.version.hip}"
    return f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs only"


def numpy() -> Iterator[Finding]:
    import numpy

    numpy.linalg.inv(numpy.eye(2))  # its linear algebra is a library of its own
    yield Finding(OK, "numpy", numpy.__version__)


def opencv() -> Iterator[Finding]:
    import cv2
    import numpy

    image = numpy.zeros((8, 8, 3), numpy.uint8)
    written, data = cv2.imencode(".png", image)
    if not written or cv2.imdecode(data, cv2.IMREAD_COLOR).shape != image.shape:
        raise RuntimeError("a PNG image could not be written and read")
    yield Finding(OK, "opencv", cv2.__version__)


def gpu() -> Iterator[Finding]:
    import torch

    with warnings.catch_warnings(record=True) as said:  # why there is none
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    driver = _nvidia_smi()
    if not usable:
        yield _no_gpu(torch, driver, [str(warning.message) for warning in said])
        return
    found = collections.Counter()
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found[
            f"{about.name}, {about.total_memory / 1e9:.0f} GB, compute capability "
            f"{about.major}.{about.minor}"
        ] += 1
    several = "; ".join(f"{count} x {name}" for name, count in found.items())
    several += f", driver {driver[0].split(', ')[-1]}" if driver else ""
    for index in range(torch.cuda.device_count()):
        try:
            _compute(torch, f"cuda:{index}")
        except Exception as error:
            built = ", ".join(torch.cuda.get_arch_list())
            yield Finding(
                TROUBLE,
                "GPU",
                f"{several}; GPU {index} does not compute: {remedies.describe(error)}; "
                f"torch is built for {built}",
                f"{remedies.of(error)}\nor train without it: CUDA_VISIBLE_DEVICES= "
                "before the command",
            )
            return
    yield Finding(OK, "GPU", several)


def _compute(torch, device: str) -> None:
    """A product and a convolution: each comes from a library of its own."""
    ones = torch.ones(1, 8, 8, 8, device=device)
    product = (ones @ ones).sum().item()
    convolved = torch.nn.functional.conv2d(ones, ones).sum().item()
    if (product, convolved) != (4096, 512):
        raise RuntimeError(f"8 x 8 ones: product {product}, convolution {convolved}")


def _nvidia_smi() -> list[str]:
    """A line a GPU: name, driver's version. None without NVIDIA's driver."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    try:
        listed = subprocess.run(
            [program, "--query-gpu=name,driver_version", "--format=csv,noheader"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.decode(errors="replace").splitlines()


def _no_gpu(torch, driver: list[str], said: list[str]) -> Finding:
    slow = "training takes the CPU, which is for small models only"
    if not driver:
        remedy = "if this machine has one, install its driver"
        if os.path.exists("/.dockerenv"):
            remedy = "if this machine has one: docker run --gpus all"
        return Finding(WARNING, "GPU", f"none here; {slow}", remedy)
    found = f"{driver[0]} is here, but torch cannot use it; {slow}"
    if not torch.version.cuda:
        remedy = (
            "this torch is built without CUDA; install torch and torchvision together, "
            f"for CUDA: {LOCALLY}"
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        remedy = "CUDA_VISIBLE_DEVICES hides it: unset CUDA_VISIBLE_DEVICES"
    else:
        found = "; ".join([found, *said])
        remedy = (
            "update NVIDIA's driver, or install torch and torchvision together for an "
            f"older CUDA: {LOCALLY}"
        )
    return Finding(WARNING, "GPU", found, remedy)


def torchvision() -> Iterator[Finding]:
    import torchvision

    _suppress(torchvision.ops.nms)
    yield Finding(OK, "torchvision", torchvision.__version__)


def _suppress(nms) -> None:
    """Of two boxes that overlap one is left, wherever training computes."""
    import torch

    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0]])
    scores = torch.tensor([0.9, 0.8])
    for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
        kept = nms(boxes.to(device), scores.to(device), 0.5)
        if kept.tolist() != [0]:
            raise RuntimeError(f"NMS on {device} kept boxes {kept.tolist()}, not [0]")


def convnext_dense() -> Iterator[Finding]:
    from mmengine.registry import MODELS

    import convnext_dense
    from convnext_dense.commands import load_package

    load_package()
    found = (
        f"{convnext_dense.__version__} in {os.path.dirname(convnext_dense.__file__)}"
    )
    registered = MODELS.get("ConvNeXt")
    if registered is convnext_dense.ConvNeXt:
        yield Finding(OK, "convnext_dense", f"{found}, ConvNeXt is registered")
    else:
        yield Finding(
            TROUBLE,
            "convnext_dense",
            f"{found}, but type='ConvNeXt' is {registered}",
            "something else registers that name: leave its custom_imports out",
        )


def patches() -> Iterator[Finding]:
    """A line for each change that the package makes to another library."""
    from convnext_dense.commands import load_package

    load_package()
    from convnext_dense.patches import PATCHES

    for patch in PATCHES:
        yield Finding(INFO, "patches", f"{', '.join(patch.names)}: {patch}")


def mmcv_ops() -> Iterator[Finding]:
    from convnext_dense.commands import load_package

    load_package()  # first: it has stand-ins where there are no compiled ops
    from convnext_dense.patches import mmcv_ops, stand_ins  # isort: skip
    from mmcv.ops import nms

    _suppress(lambda *arguments: nms(*arguments)[1])
    if sys.modules["mmcv._ext"].__spec__.origin != mmcv_ops.__file__:
        from mmcv.ops import get_compiling_cuda_version

        cuda = get_compiling_cuda_version()
        yield Finding(OK, "mmcv ops", f"compiled, CUDA: {cuda}")
        return
    ops = [op.__name__ for op in stand_ins.STAND_INS]
    names = [re.sub("_(forward|backward)$", "", name) for name in ops]
    listed = dict.fromkeys(name for name in names if not name.startswith("get_"))
    yield Finding(
        INFO,
        "mmcv ops",
        f"none compiled; from torchvision: {', '.join(listed)}; any other is absent "
        "(no config here needs one)",
    )
