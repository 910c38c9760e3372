"""Upload the model of a run to the Hugging Face hub.

The repository gets the weights, the config, and a page with metrics and pictures:
  convnext-dense push WORK_DIR OWNER/NAME
Afterwards hf://OWNER/NAME is a checkpoint for every command, on any machine:
  convnext-dense predict hf://OWNER/NAME photo.jpg --out DIR

OWNER/NAME gets
  model.safetensors  the weights, with the config and the classes in its header
  config.py          the config, without the paths and secrets of this machine
  README.md          the model card: metrics, classes, pictures, how to use the model
  pictures/          predictions for images of the validation split

The pictures are images of your data, and a repository is public unless --private is
given. To see the files before anybody else does, write them with --dry-run DIR.
"""

import argparse

from ..arguments import add_overwrite_argument, add_trust_argument, apply_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the work dir, the repository, what to upload and the common flags."""
    parser.add_argument("work_dir", help="work dir of the run")
    parser.add_argument(
        "repository", metavar="OWNER/NAME", help="name of the repository"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint to upload (default: the best one in the work dir, or else "
        "the last)",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="make the new repository private; without it, everybody can see it",
    )
    parser.add_argument(
        "--revision",
        metavar="BRANCH",
        help="branch to upload to, which is made if there is none (main)",
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="licence of the weights on the model card, such as apache-2.0 (none)",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=4,
        metavar="N",
        help="number of validation images with predictions on the model card (4); 0 "
        "uploads no image of your data",
    )
    parser.add_argument(
        "--dry-run",
        metavar="DIR",
        help="write the files into DIR and upload nothing",
    )
    add_overwrite_argument(parser)
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """Check the repository, write the files, and upload them."""
    apply_trust(args)

    from .push import push

    push(
        args.work_dir,
        args.repository,
        args.checkpoint,
        args.private,
        args.revision,
        args.license,
        args.pictures,
        args.dry_run,
        args.overwrite,
    )
