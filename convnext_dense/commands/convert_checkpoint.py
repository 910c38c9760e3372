"""Convert a ConvNeXt checkpoint to the parameter names of another library.

The names in IN are recognised, whichever library wrote it:
  tools/convert_checkpoint.py IN OUT --to timm
"""

import argparse
from pathlib import Path

from .arguments import add_trust_argument, apply_trust

TARGETS = ("native", "timm", "transformers", "torchvision", "mmpretrain")


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    apply_trust(args)

    from convnext_dense import checkpoints
    from convnext_dense.checkpoints import converting, writing
    from convnext_dense.errors import InputError

    out = Path(args.out)
    if out.suffix not in writing.SUFFIXES:
        raise InputError(f"{out}: name a file that ends in .pth or .safetensors")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.absolute().parent}")
    path = checkpoints.locate(args.source)
    if out.exists() and out.samefile(path):
        raise InputError(f"{out} is the file to read: name another one to write")
    content = checkpoints.read(path)
    done = converting.convert(content, args.source, args.to)
    meta = converting.meta_of(content) if done.whole else None
    writing.write(done.weights, out, meta)
    print(
        f"{args.source} ({done.origin}) -> {out}: {len(done.weights)} "
        f"tensors for {done.fits}"
    )
    if done.left:
        print(f"no place for: {checkpoints.groups(done.left)}")
