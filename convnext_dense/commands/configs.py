"""List the configs of this package, or copy one.

  convnext-dense configs                     all, with published numbers
  convnext-dense configs mask2former dinov3  those whose names contain these words
  convnext-dense configs --copy cascade_mask_rcnn_convnext_t_coco

The commands take a config by its name: convnext-dense train NAME.
"""

import argparse
import json
from pathlib import Path

from .arguments import add_overwrite_argument, output_file

# The columns of published numbers, from the keys of configs/paper.json.
METRICS = {
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "miou_ss": "mIoU",
    "miou_ms": "mIoU with --tta",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words, ``--copy``, ``--out`` and ``--overwrite``."""
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="list configs with all these words"
    )
    parser.add_argument(
        "--copy",
        metavar="NAME",
        help="write this config to the current folder, as one file with all settings, "
        "to edit",
    )
    parser.add_argument(
        "--out",
        type=output_file,
        metavar="FILE",
        help="where --copy writes to (default: NAME.py)",
    )
    add_overwrite_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Print the list, or copy a config."""
    from convnext_dense.config import shipped
    from convnext_dense.errors import InputError

    if args.copy:
        if args.words:
            raise InputError(f"--copy takes one config: leave out {args.words[0]}")
        _copy(args.copy, args.out, args.overwrite)
        return
    if args.out:
        raise InputError("--out is for --copy NAME")
    words = [word.lower() for word in args.words]
    names = [name for name in shipped.names() if all(word in name for word in words)]
    if not names:
        raise InputError(
            f"no config's name contains {' and '.join(args.words)}. convnext-dense "
            "configs lists the names"
        )
    published = json.loads((shipped.folder() / "paper.json").read_text())
    width = max(map(len, names))
    for name in names:
        row = published.get(Path(name).name, {})
        numbers = [f"{row[key]} {text}" for key, text in METRICS.items() if key in row]
        source = f"  ({row['source']})" if "source" in row else ""
        print(f"{name:{width}}  {', '.join(numbers)}{source}".rstrip())


def _copy(name: str, out: str | None, overwrite: bool) -> None:
    """Write the config ``name``, with what it inherits, to the file ``out``.

    Raises:
        InputError: there is no such config, or ``out`` exists or cannot be written.
    """
    from convnext_dense.commands import load_package

    load_package()
    from convnext_dense.config import options, shipped
    from convnext_dense.errors import InputError
    from convnext_dense.utils import files, outputs
    from convnext_dense.version import __version__

    source = shipped.resolve(name)
    target = Path(out or Path(source).name)
    if target.suffix != ".py":
        raise InputError(f"--out {out}: a config is Python: name a .py file")
    outputs.check([outputs.Output("--out", target)], [source], overwrite)
    cfg = options.load_config(source)
    for key in "work_dir", "launcher":  # which load_config sets
        cfg.pop(key)
    with files.whole(target) as partial:
        partial.write_text(
            f"# {Path(source).stem} of convnext_dense {__version__}, with all that it "
            f"inherits.\n{cfg.pretty_text}"
        )
    print(f"wrote {target}; train it with: convnext-dense train {target}")
