"""Convert a ConvNeXt checkpoint to the parameter names of another library.

The names in IN are recognised, whichever library wrote it:
  convnext-dense convert-checkpoint IN OUT --to timm

A detector's or segmentor's heads are kept where the library has a place for them. The
tool prints which model takes the weights, and which tensors were left out. If IN has
several ConvNeXts, such as a student and a teacher, --prefix chooses one.
"""

import argparse
import os
from pathlib import Path

from convnext_dense.checkpoints.origins import TARGETS

from .arguments import add_overwrite_argument, add_trust_argument, apply_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "source",
        metavar="IN",
        help="path, URL, timm://NAME or hf://OWNER/NAME, from any library",
    )
    parser.add_argument("out", metavar="OUT", help="a .pth or .safetensors file")
    parser.add_argument(
        "--to",
        choices=TARGETS,
        required=True,
        help="library whose names OUT has; native is this package's and the authors'",
    )
    parser.add_argument(
        "--prefix",
        metavar="NAME",
        help="which ConvNeXt of IN to convert, if it has several: an entry, such as "
        "params_ema, or what the names of its tensors begin with, such as teacher",
    )
    add_overwrite_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Convert ``args.source`` and write ``args.out``.

    Raises:
        InputError: the checkpoint cannot be read, the library cannot express it, or the
            file cannot be written, exists or is a file of the checkpoint.
    """
    apply_trust(args)

    from convnext_dense import checkpoints
    from convnext_dense.checkpoints import converting, writing
    from convnext_dense.config.inputs import checkpoint_inputs
    from convnext_dense.config.trained import checkpoint_of
    from convnext_dense.errors import InputError
    from convnext_dense.utils import outputs

    out, source = Path(args.out), checkpoint_of(args.source)
    if out.suffix not in writing.SUFFIXES:
        raise InputError(f"{out}: name a file that ends in .pth or .safetensors")
    if not os.path.isdir(out.absolute().parent):
        raise InputError(f"{out}: there is no folder {out.absolute().parent}")
    outputs.check(
        [outputs.Output("", out)],
        checkpoint_inputs(source, args.overwrite),
        args.overwrite,
    )
    content = checkpoints.read(checkpoints.locate(source))
    conversion = converting.convert(content, source, args.to, args.prefix)
    meta = converting.meta_of(content) if conversion.whole else None
    writing.write(conversion.weights, out, meta)
    print(
        f"{source} ({conversion.origin}) -> {out}: {len(conversion.weights)} "
        f"tensors for {conversion.fits}"
    )
    if conversion.left:
        print(f"no place for: {checkpoints.groups(conversion.left)}")
