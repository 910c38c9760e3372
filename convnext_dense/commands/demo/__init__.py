"""Show a trained model on a local page: drop an image or a video, see the predictions.

CONFIG may be left out if CHECKPOINT was written by a training run:
  convnext-dense demo CHECKPOINT
  convnext-dense demo CONFIG CHECKPOINT --port 8000

The page draws the predictions above a threshold that can be moved, counts the objects
or the pixels of each class, and offers the results as a zip, which holds what
convnext-dense predict writes. It is for this machine alone, unless --host says more.
Nothing is sent elsewhere. Uploads and results are removed when the page is closed, at
the latest at the end of the command. Ctrl-C ends it.

It needs gradio: pip install 'convnext-dense[demo]'
"""

import argparse

from ..arguments import add_trust_argument, apply_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the names of files and the flags."""
    parser.usage = "%(prog)s [CONFIG] CHECKPOINT [options]"
    # CONFIG and CHECKPOINT; main tells them apart.
    parser.add_argument(
        "names", nargs="+", metavar="CHECKPOINT", help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="the threshold at the beginning: boxes of at least this score are drawn "
        "(0.3)",
    )
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        help="the address that the page listens on (127.0.0.1: this machine alone); "
        "0.0.0.0 lets every machine of the network use it, without a password",
    )
    parser.add_argument(
        "--port", type=int, help="the page's port (default: the first free from 7860)"
    )
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, ... (default: a GPU if there is one, else the CPU)",
    )
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Load the model, open the page, and wait for Ctrl-C."""
    apply_trust(args)

    from convnext_dense.config import shipped
    from convnext_dense.errors import InputError

    from .server import wait_for_the_end

    config = None
    if shipped.is_config(args.names[0]):
        config = shipped.resolve(args.names.pop(0))
    if len(args.names) != 1:
        raise InputError(
            "name one checkpoint: convnext-dense demo [CONFIG] CHECKPOINT. Images are "
            "dropped on the page"
        )
    if not 0 <= args.score_thr <= 1:  # nor is nan
        raise InputError(f"--score-thr {args.score_thr}: give a number from 0 to 1")
    (checkpoint,) = args.names
    wait_for_the_end(
        config, checkpoint, args.score_thr, args.host, args.port, args.device
    )
