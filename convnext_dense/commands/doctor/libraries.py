"""Check the compiled packages: they import, fit together and compute correctly."""

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
from .finding import ERROR, INFO, OK, WARNING, Finding

GET_STARTED = "https://pytorch.org/get-started/locally"


def torch() -> Iterator[Finding]:
    """Check that torch computes a gradient and takes arrays of this numpy."""
    import torch

    versions = [f"{torch.__version__} ({_build(torch)})"]
    if torch.version.cuda:
        cudnn = torch.backends.cudnn.version()
        versions.append(f"cuDNN {cudnn}" if cudnn else "no cuDNN")
    x = torch.ones(2, requires_grad=True)
    (x * x).sum().backward()
    yield Finding(OK, "torch", ", ".join(versions))
    with contextlib.suppress(ImportError):  # the check of numpy reports it
        import numpy

        torch.from_numpy(numpy.zeros(1))  # fails if compiled for another numpy


def _build(torch) -> str:
    """For which device torch was built."""
    if getattr(torch.version, "hip", None):
        return f"for ROCm {torch.version.hip}"
    return f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs only"


def numpy() -> Iterator[Finding]:
    """Check that numpy and the linear algebra library under it work."""
    import numpy

    numpy.linalg.inv(numpy.eye(2))
    yield Finding(OK, "numpy", numpy.__version__)


def opencv() -> Iterator[Finding]:
    """Check that opencv writes and reads a PNG."""
    import cv2
    import numpy

    image = numpy.zeros((8, 8, 3), numpy.uint8)
    written, data = cv2.imencode(".png", image)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if written else None
    if decoded is None or decoded.shape != image.shape:
        raise RuntimeError("a PNG image could not be written and read")
    yield Finding(OK, "opencv", cv2.__version__)


def gpu() -> Iterator[Finding]:
    """Check that torch finds the GPUs and that each computes correctly."""
    import torch

    with warnings.catch_warnings(record=True) as caught:  # they say why it finds none
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    driver = _nvidia_smi()
    if not usable:
        yield _no_gpu(torch, driver, [str(warning.message) for warning in caught])
        return
    models: collections.Counter[str] = collections.Counter()
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        models[
            f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, compute capability "
            f"{gpu.major}.{gpu.minor}"
        ] += 1
    gpus = "; ".join(f"{count} x {model}" for model, count in models.items())
    gpus += f", driver {driver[0].split(', ')[-1]}" if driver else ""
    for index in range(torch.cuda.device_count()):
        try:
            _compute(torch, f"cuda:{index}")
        except Exception as error:
            architectures = ", ".join(torch.cuda.get_arch_list())
            yield Finding(
                ERROR,
                "GPU",
                f"{gpus}; GPU {index} fails to compute: {remedies.describe(error)}; "
                f"torch is built for {architectures}",
                f"{remedies.remedy_of(error)}\nor train on the CPU: put "
                "CUDA_VISIBLE_DEVICES= before the command",
            )
            return
    yield Finding(OK, "GPU", gpus)


def _compute(torch, device: str) -> None:
    """Check a matrix product (cuBLAS) and a convolution (cuDNN) on a device."""
    ones = torch.ones(1, 8, 8, 8, device=device)
    product = (ones @ ones).sum().item()
    convolved = torch.nn.functional.conv2d(ones, ones).sum().item()
    if (product, convolved) != (4096, 512):
        raise RuntimeError(f"8 x 8 ones: product {product}, convolution {convolved}")


def _nvidia_smi() -> list[str]:
    """A line "name, driver's version" for each GPU; none without NVIDIA's driver."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    try:
        done = subprocess.run(
            [program, "--query-gpu=name,driver_version", "--format=csv,noheader"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode(errors="replace").splitlines()


def _no_gpu(torch, driver: list[str], warned: list[str]) -> Finding:
    """Why torch finds no GPU.

    Args:
        torch: the module.
        driver: lines of ``_nvidia_smi``.
        warned: torch's warnings.
    """
    slow = "training runs on the CPU, which is fast enough for small models only"
    if not driver:
        remedy = "if this machine has a GPU, install its driver"
        if os.path.exists("/.dockerenv"):
            remedy = "if this machine has a GPU: docker run --gpus all"
        return Finding(WARNING, "GPU", f"no GPU; {slow}", remedy)
    message = f"torch cannot use the GPU ({driver[0]}); {slow}"
    if not torch.version.cuda:
        remedy = (
            "this torch is built without CUDA; install torch and torchvision for CUDA, "
            f"both in one command: {GET_STARTED}"
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        remedy = "CUDA_VISIBLE_DEVICES hides it: unset CUDA_VISIBLE_DEVICES"
    else:
        message = "; ".join([message, *warned])
        remedy = (
            "update NVIDIA's driver, or install torch and torchvision for an older "
            f"CUDA, both in one command: {GET_STARTED}"
        )
    return Finding(WARNING, "GPU", message, remedy)


def torchvision() -> Iterator[Finding]:
    """Check torchvision's compiled operators by its NMS."""
    import torchvision

    _check_nms(torchvision.ops.nms)
    yield Finding(OK, "torchvision", torchvision.__version__)


def _check_nms(nms) -> None:
    """Check that NMS keeps one of two overlapping boxes, on the CPU and the GPU."""
    import torch

    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0]])
    scores = torch.tensor([0.9, 0.8])
    for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
        kept = nms(boxes.to(device), scores.to(device), 0.5)
        if kept.tolist() != [0]:
            raise RuntimeError(f"NMS on {device} kept boxes {kept.tolist()}, not [0]")


def convnext_dense() -> Iterator[Finding]:
    """Check that this package imports and that its ConvNeXt is registered."""
    from mmengine.registry import MODELS

    import convnext_dense
    from convnext_dense.commands import load_package

    load_package()
    folder = os.path.dirname(convnext_dense.__file__)
    message = f"{convnext_dense.__version__} in {folder}"
    registered = MODELS.get("ConvNeXt")
    if registered is convnext_dense.ConvNeXt:
        yield Finding(OK, "convnext_dense", f"{message}, ConvNeXt is registered")
    else:
        yield Finding(
            ERROR,
            "convnext_dense",
            f"{message}, but type='ConvNeXt' is {registered}",
            "another package registers this name: remove it from custom_imports",
        )


def patches() -> Iterator[Finding]:
    """List the changes that the package makes to other libraries."""
    from convnext_dense.commands import load_package

    load_package()
    from convnext_dense.patches import PATCHES

    for patch in PATCHES:
        yield Finding(INFO, "patches", f"{', '.join(patch.names)}: {patch}")


def mmcv_ops() -> Iterator[Finding]:
    """Check mmcv's operators: compiled ones, or this package's stand-ins for them."""
    from convnext_dense.commands import load_package

    load_package()  # before mmcv: it installs stand-ins if no ops are compiled
    from convnext_dense import ops  # isort: skip
    from convnext_dense.patches import mmcv_ops  # isort: skip
    from mmcv.ops import nms

    _check_nms(lambda *arguments: nms(*arguments)[1])
    extension = sys.modules["mmcv._ext"].__spec__
    if extension is None or extension.origin != mmcv_ops.__file__:
        from mmcv.ops import get_compiling_cuda_version

        cuda = get_compiling_cuda_version()
        yield Finding(OK, "mmcv ops", f"compiled, CUDA: {cuda}")
        return
    functions = [op.__name__ for op in ops.STAND_INS]
    names = [re.sub("_(forward|backward).*", "", name) for name in functions]
    listed = dict.fromkeys(name for name in names if not name.startswith("get_"))
    yield Finding(
        INFO,
        "mmcv ops",
        "not compiled; this package computes with torchvision and PyTorch: "
        f"{', '.join(listed)}; there are no others (no model of mmdet 3 or mmseg 1 "
        "needs them)",
    )
