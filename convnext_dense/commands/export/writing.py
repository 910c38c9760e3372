"""Write a network to ONNX or torch.export, and check the file by running it."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor
from torch.export import Dim

from convnext_dense.errors import InputError
from convnext_dense.utils import files

from . import networks

# What can be written, by which PyTorch at least: earlier ones stop at sizes that are
# not numbers.
SUFFIXES = {".onnx": (2, 7), ".pt2": (2, 6)}
# The smallest side: below it the deepest map has one row, for which PyTorch traces
# another program.
MIN_SIZE = 64
TOLERANCE = 1e-4  # of the largest value
AXES = {0: "batch", 2: "height", 3: "width"}


def export(
    cfg: Config,
    out: str | os.PathLike,
    backbone: bool = False,
    shape: tuple[int, int] = (128, 160),
) -> None:
    """Write a segmentor or a backbone, with any batch, height and width from 64 on.

    The file is loaded again and run at two sizes other than ``shape``. An ONNX file
    has its weights inside, or, above 1.5 GB, in FILE.onnx.data beside it.

    A segmentor takes ``image``, (N, 3, H, W), RGB from 0 to 255 as float32,
    normalises it, and gives ``logits``, (N, classes, H, W). A backbone takes a
    normalised image, (N, 3, H, W), and gives its maps, ``stride4``, ``stride8``, ...

    Args:
        cfg: of either toolbox; ``load_from`` names the weights, which are random
            without it.
        out: ends in .onnx or .pt2.
        backbone: only the backbone; of a detector nothing else can be exported.
        shape: height and width at which it is traced.

    Raises:
        InputError: what is asked for cannot be had, or the file does not do what
            PyTorch does; there is no new file then.
    """
    out, (height, width) = Path(out), shape
    _check_request(out, height, width)
    network = networks.build(cfg, backbone)
    images = [
        network.example(1, height + 37, width + 9),
        network.example(2, max(height // 2 + 3, MIN_SIZE), width + 50),
    ]
    with torch.no_grad():
        try:
            expected = [network.reference(image) for image in images]
            save = _convert(network, network.example(2, height, width), out.suffix)
        except Exception as error:  # whatever a toolbox's model can do to them
            raise InputError(
                f"{cfg.filename} could not be exported: {type(error).__name__}: "
                f"{str(error).strip().partition(chr(10))[0]}"
            ) from error
        with files.whole_with_others(out) as file:
            save(file)
            del save  # large models: what it holds is not needed twice
            checked = _check(out, _run(file, images), expected)
    sizes = " and ".join(" x ".join(map(str, image.shape)) for image in images)
    names = ", ".join(network.outputs)
    print_log(f"{out}: image -> {names}; at {sizes} {checked}", "current")


def _check_request(out: Path, height: int, width: int) -> None:
    if out.suffix not in SUFFIXES:
        raise InputError(f"--out {out}: name a file that ends in .onnx or .pt2")
    if min(height, width) < MIN_SIZE:
        raise InputError(
            f"--shape {height} {width}: both sides need at least {MIN_SIZE} pixels"
        )
    if torch.__version__ < SUFFIXES[out.suffix]:
        oldest = ".".join(map(str, SUFFIXES[out.suffix]))
        raise InputError(
            f"{out.suffix} needs PyTorch {oldest} or later, and this is "
            f"{torch.__version__}: pip install --upgrade torch torchvision"
        )
    if out.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise InputError(
            "ONNX needs packages that are not installed here: "
            "pip install onnx onnxscript onnxruntime"
        )


def _convert(
    network: networks.Network, image: Tensor, suffix: str
) -> Callable[[Path], None]:
    """Trace ``network`` at ``image``; what writes that to a file."""
    with networks.traceable(network.module):
        program = torch.export.export(
            network.module,
            (image,),
            dynamic_shapes=(dict.fromkeys(AXES, Dim.DYNAMIC),),
            strict=False,
        )
    # Nodes know in which lines of which files of this machine they were made: that
    # is nobody else's business.
    if suffix == ".pt2":
        for module in program.graph_module.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)
        metadata = {"metadata.json": json.dumps(network.metadata)}
        return partial(torch.export.save, program, extra_files=metadata)
    written = torch.onnx.export(
        program,
        input_names=["image"],
        output_names=network.outputs,
        dynamic_shapes=(AXES,),  # their names
        dynamo=True,
        verbose=False,
    )
    model = written.model
    for node in chain(model.graph, *model.functions.values()):
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    model.metadata_props.update(network.metadata)
    return written.save


def _run(file: Path, images: list[Tensor]) -> Iterator[Sequence[Tensor]] | None:
    """What ``file`` makes of each image; None if there is nothing to run it with."""
    if file.suffix == ".pt2":
        module = torch.export.load(file).module()
        return (_sequence(module(image)) for image in images)
    if not find_spec("onnxruntime"):
        return None
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(file), providers=providers)
    answers = (session.run(None, {"image": image.numpy()}) for image in images)
    return (list(map(torch.from_numpy, answer)) for answer in answers)


def _sequence(output: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (output,) if isinstance(output, Tensor) else output


def _check(out: Path, actual, expected) -> str:
    """How far what the file gives is from what PyTorch gives, in words.

    Raises:
        InputError: too far.
    """
    if actual is None:
        return "not checked: that takes `pip install onnxruntime`"
    differences = [
        (e - a).abs().max() / e.abs().max()
        for es, actuals in zip(expected, actual, strict=True)
        for e, a in zip(es, actuals, strict=True)
    ]
    largest = torch.stack(differences).max().item()  # NaN, if one is
    if not largest <= TOLERANCE:
        raise InputError(
            f"{out} was not written: it would differ from PyTorch by {largest:.1e} of "
            f"the largest value, and {TOLERANCE:.0e} is allowed"
        )
    return f"it differs from PyTorch by {largest:.1e} of the largest value"
