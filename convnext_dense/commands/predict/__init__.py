"""Predict objects or segmentation maps for images and videos.

CONFIG may be left out if CHECKPOINT was written by a training run: it contains its
config. INPUT is an image, a video, a folder of them, or a quoted pattern:
  convnext-dense predict CHECKPOINT photo.jpg clip.mp4 --out DIR
  convnext-dense predict CONFIG CHECKPOINT 'photos/**/*.jpg' --out DIR

DIR gets
  pictures/          the images and videos with the predictions drawn
  predictions.json   detection: the predictions as COCO results
  images.json        detection: the ids of the images and categories
  panoptic.json      panoptic models: the segments as COCO's panoptic results
  panoptic/          panoptic models: the segment of each pixel (PNG)
  crops/             with --save-crops: each object, in a folder for its class
  labels/            segmentation: label maps (PNG), classes as in the training data

Large images, such as aerial ones, are predicted in tiles, whose results are merged:
  convnext-dense predict CHECKPOINT field.tif --out DIR --tile 1024 --overlap 0.2

Files in DIR are replaced only with --overwrite. Nothing is removed: results of other
images stay in pictures/ and labels/, while predictions.json and images.json then list
the images of this run alone. To have the results of this run only, name a new folder.
"""

import argparse

from ..arguments import (
    add_options_argument,
    add_overwrite_argument,
    add_tile_arguments,
    add_trust_argument,
    apply_trust,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the names of files and the flags."""
    parser.usage = "%(prog)s [CONFIG] CHECKPOINT INPUT... --out DIR [options]"
    # CONFIG, CHECKPOINT and INPUTs; main tells them apart.
    parser.add_argument(
        "names", nargs="+", metavar="CHECKPOINT INPUT", help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="draw boxes of at least this score (0.3); predictions.json has all boxes",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="predict up to N images of equal size, or N tiles of an image, at once "
        "(1); the results do not depend on it",
    )
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, ... (default: a GPU if there is one, else the CPU)",
    )
    add_tile_arguments(parser)
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="detection: keep the objects of these classes alone",
    )
    parser.add_argument(
        "--save-crops",
        action="store_true",
        help="detection: write each object with a higher score than --score-thr as an "
        "image, DIR/crops/CLASS/NAME_1.jpg",
    )
    add_overwrite_argument(parser)
    add_options_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Tell CONFIG, CHECKPOINT and INPUTs apart and predict the inputs."""
    apply_trust(args)

    from convnext_dense.config import shipped
    from convnext_dense.config.trained import checkpoint_of
    from convnext_dense.engine.tiling.grid import read_flags
    from convnext_dense.errors import InputError
    from convnext_dense.utils.text import few

    from .predict_files import predict_files

    config = None
    if shipped.is_config(args.names[0]):
        config = shipped.resolve(args.names.pop(0))
    if len(args.names) < 2:
        taken = ""
        if args.classes:
            taken = (
                f"\n--classes has taken {few(args.classes)}: write it after the "
                "inputs, or another flag between them"
            )
        raise InputError(
            "name a checkpoint and at least one image, video or folder: "
            f"convnext-dense predict [CONFIG] CHECKPOINT INPUT... --out DIR{taken}"
        )
    checkpoint, *inputs = args.names
    predict_files(
        config,
        checkpoint_of(checkpoint),
        inputs,
        args.out,
        args.score_thr,
        args.batch,
        args.device,
        args.cfg_options or (),
        args.overwrite,
        tiling=read_flags(args.tile, args.overlap),
        classes=args.classes,
        save_crops=args.save_crops,
    )
