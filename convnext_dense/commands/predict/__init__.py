"""Predict images and videos: tools/predict.py [CONFIG] CHECKPOINT INPUT... --out DIR.

Checkpoints of runs carry their config, so CONFIG may be left out. An INPUT is an
image, a video, a folder of them, or a quoted pattern such as 'photos/**/*.jpg'.
DIR gets pictures/ with what is found drawn; of detection predictions.json (COCO
results) with images.json (names and ids of images and categories); of segmentation
labels/, PNGs numbered as the label files that the model learnt from.
"""

import argparse

from ..arguments import add_options_argument, add_trust_argument, apply_trust

CONFIGS = (".py", ".json", ".yaml", ".yml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [CONFIG] CHECKPOINT INPUT... --out DIR [options]"
    parser.add_argument("names", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--out", required=True, metavar="DIR", help="for the results")
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        help="boxes of a lower score are not drawn (0.3); predictions.json has them",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        help="images of one size to predict at once (1); results do not depend on it",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; a GPU if there is one")
    add_options_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    apply_trust(args)

    from convnext_dense.errors import InputError

    from .prediction import predict

    config = args.names.pop(0) if args.names[0].endswith(CONFIGS) else None
    if len(args.names) < 2:
        raise InputError("name a checkpoint and what to predict")
    checkpoint, *inputs = args.names
    predict(
        config,
        checkpoint,
        inputs,
        args.out,
        args.score_thr,
        args.batch,
        args.device,
        args.cfg_options or (),
    )
