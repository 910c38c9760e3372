"""Write a network to ONNX or torch.export, and check the file by running it."""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from convnext_dense.utils import files, torch_files
from convnext_dense.utils.text import reason

from . import comparison, networks

# The formats, and the oldest PyTorch that writes them with dynamic sizes.
SUFFIXES = {".onnx": "2.7", ".pt2": "2.6"}
AXES = {0: "batch", 2: "height", 3: "width"}


def export(
    cfg: Config,
    out: str | os.PathLike,
    backbone: bool = False,
    shape: tuple[int, int] = (128, 160),
) -> None:
    """Export a whole model or its backbone, for any size from about 64 x 64 on.

    The file is checked: it is loaded and run at two sizes other than ``shape``, and
    its outputs are compared with PyTorch's. An ONNX file contains the weights; those
    above 1.5 GB are in FILE.onnx.data beside it.

    A segmentor takes ``image``, (N, 3, H, W), RGB from 0 to 255 as float32. It
    normalises the image and returns ``logits``, (N, classes, H, W). A detector takes
    the same with N = 1 and returns what ``detectors.Detector`` says: ``boxes``,
    ``scores``, ``labels`` and perhaps ``masks``. A backbone takes a normalised image,
    (N, 3, H, W), and returns its maps ``stride4``, ``stride8``, ...

    Args:
        cfg: config of either toolbox. ``load_from`` names the weights; without it
            they are random.
        out: the file to write; it ends in .onnx or .pt2.
        backbone: export the backbone alone.
        shape: height and width in pixels at which the network is traced; larger if
            the network needs it.

    Raises:
        InputError: the network cannot be exported, or the file's outputs differ from
            PyTorch's. ``out`` is then not written.
    """
    out = Path(out)
    _check_request(out, *shape)
    network = networks.build(cfg, backbone)
    batch = 2 if network.batch else 1
    height, width = (max(side, network.min_size) for side in shape)
    images = [
        network.example(1, height + 37, width + 9),
        network.example(batch, max(height // 2 + 3, network.min_size), width + 50),
    ]
    with torch.no_grad():
        try:
            expected = [network.reference(image) for image in images]
            save = _convert(network, network.example(batch, height, width), out.suffix)
        except Exception as error:  # a toolbox's model can raise anything
            first_line = reason(error).partition("\n")[0]
            raise InputError(
                f"{cfg.filename} could not be exported: {first_line}"
            ) from error
        with files.whole_with_others(out) as file:
            save(file)
            del save  # it holds a copy of the weights
            checked = _check(out, network, images, expected, _run(file, images))
    sizes = " and ".join(" x ".join(map(str, image.shape)) for image in images)
    names = ", ".join(network.outputs)
    print_log(f"{out}: image -> {names}; at {sizes} {checked}", "current")


def written(out: Path) -> list[Path]:
    """The files that ``export`` may write: ``out``, and an ONNX file's weights."""
    weights = [out.with_name(f"{out.name}.data")] if out.suffix == ".onnx" else []
    return [out, *weights]


def _check_request(out: Path, height: int, width: int) -> None:
    """Raise an InputError if this file or size cannot be exported."""
    if out.suffix not in SUFFIXES:
        raise InputError(f"--out {out}: name a file that ends in .onnx or .pt2")
    if min(height, width) < networks.MIN_SIZE:
        raise InputError(
            f"--shape {height} {width}: both sides need at least {networks.MIN_SIZE} "
            "pixels"
        )
    if torch.__version__ < SUFFIXES[out.suffix]:
        raise InputError(
            f"{out.suffix} needs PyTorch {SUFFIXES[out.suffix]} or later, and this is "
            f"{torch.__version__}: pip install --upgrade torch torchvision"
        )
    if out.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise InputError(
            "ONNX needs packages that are not installed: "
            "pip install onnx onnxscript onnxruntime"
        )


def _convert(
    network: networks.Network, image: Tensor, suffix: str
) -> Callable[[Path], None]:
    """Trace ``network`` with ``image``; return a function that writes it to a file."""
    axes = {i: name for i, name in AXES.items() if network.batch or name != "batch"}
    module = copy.deepcopy(network.module)  # the check uses the toolbox's modules
    with networks.traceable(module):
        program = torch.export.export(
            module,
            (image,),
            dynamic_shapes=(dict.fromkeys(axes, Dim.DYNAMIC),),
            strict=False,
        )
    # Each node names the source files and lines that made it: paths of this machine,
    # which do not belong into a file to give away.
    if suffix == ".pt2":
        for module in program.graph_module.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)
        metadata = {"metadata.json": json.dumps(network.metadata)}
        return partial(_save, program, metadata)
    written = torch.onnx.export(
        program,
        input_names=["image"],
        output_names=network.outputs,
        dynamic_shapes=(axes,),  # their names
        dynamo=True,
        verbose=False,
    )
    assert written is not None  # with dynamo=True
    model = written.model
    for node in chain(model.graph, *model.functions.values()):
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    model.metadata_props.update(network.metadata)
    return written.save


def _save(
    program: torch.export.ExportedProgram, metadata: dict[str, str], file: Path
) -> None:
    """Write a torch.export file."""
    with torch_files.open_to_write(file) as stream:
        torch.export.save(program, stream, extra_files=metadata)


def _run(file: Path, images: list[Tensor]) -> Iterator[Sequence[Tensor]] | None:
    """The outputs of ``file`` for each image; None if onnxruntime is not installed."""
    if file.suffix == ".pt2":
        module = torch.export.load(file).module()
        return (_sequence(module(image)) for image in images)
    if not find_spec("onnxruntime"):
        return None
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(file), providers=providers)
    outputs = (session.run(None, {"image": image.numpy()}) for image in images)
    return (list(map(torch.from_numpy, arrays)) for arrays in outputs)


def _sequence(output: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """The output of a module as a sequence, also if it is a single tensor."""
    return (output,) if isinstance(output, Tensor) else output


def _check(
    out: Path,
    network: networks.Network,
    images: Iterable[Tensor],
    expected: Sequence[Sequence[Tensor]],
    actual: Iterable[Sequence[Tensor]] | None,
) -> str:
    """Compare the file's outputs for each image with PyTorch's.

    Args:
        out: the file, for messages.
        network: the network, which knows how to compare.
        images: the images.
        expected: PyTorch's outputs for each image.
        actual: the file's; None if it could not be run.

    Returns:
        the result, for the log.

    Raises:
        InputError: they differ too much.
    """
    if actual is None:
        return "not checked: that takes `pip install onnxruntime`"
    actual = list(actual)
    if network.reference_like:
        expected = list(map(network.reference_like, images, actual))
    pairs = list(zip(expected, actual, strict=True))
    result = network.compare(pairs)
    if not result.close and network.compare is comparison.maps:
        result = comparison.maps(pairs, _rounding(network, images, expected))
    if not result.close:
        raise InputError(
            f"{out} was not written: it would differ from PyTorch by {result.text}"
        )
    return f"it differs from PyTorch by {result.text}"


def _rounding(
    network: networks.Network,
    images: Iterable[Tensor],
    expected: Iterable[Sequence[Tensor]],
) -> float:
    """The relative rounding error of PyTorch's maps in float32.

    The network is in float64 afterwards. The error is 0 if it cannot be computed.

    Args:
        network: the network, whose maps these are.
        images: the images.
        expected: PyTorch's maps for each image.
    """
    network.module.double()  # and the modules of ``reference``, which are the same
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        exact = [network.reference(image.double()) for image in images]
    except Exception as error:  # a toolbox's model may insist on float32
        print_log(f"the model cannot be run in float64: {reason(error)}", "current")
        return 0.0
    finally:
        torch.set_default_dtype(default)
    return comparison.relative_difference(zip(exact, expected, strict=True))
