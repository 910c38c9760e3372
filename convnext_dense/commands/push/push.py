"""Write the files of a repository from a run, and upload them."""

import os
import tempfile
from pathlib import Path

from mmengine.logging import print_log

from convnext_dense.config.inputs import checkpoint_inputs
from convnext_dense.config.trained import best_or_newest
from convnext_dense.errors import InputError
from convnext_dense.utils import files, outputs
from convnext_dense.utils.outputs import Folder, Output

from . import hub, model_folder


def push(
    work_dir: str | os.PathLike,
    repository: str,
    checkpoint: str | None = None,
    private: bool = False,
    revision: str | None = None,
    license_id: str | None = None,
    pictures: int = 4,
    dry_run: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> None:
    """Upload the model of a run, all files in one commit.

    Args:
        work_dir: folder of a run, with its checkpoints and logs.
        repository: 'OWNER/NAME'.
        checkpoint: anything that ``checkpoints.read`` takes; None for the best one in
            ``work_dir``, or else the last.
        private: whether a new repository is private.
        revision: the branch; None is 'main'.
        license_id: on the model card; None for none.
        pictures: the number of validation images on the model card.
        dry_run: the folder to write the files into; then nothing is uploaded.
        overwrite: whether files of the repository, or of ``dry_run``, may be replaced.

    Raises:
        InputError: there is no such run or checkpoint; the checkpoint has no config;
            the hub refuses the repository or cannot be reached; or files would be
            replaced without ``overwrite``. Nothing is visible on the hub then.
    """
    hub.check_name(repository)
    if pictures < 0:
        raise InputError(f"--pictures {pictures}: give a number, 0 for none")
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise InputError(f"there is no folder {work_dir}: name the work dir of a run")
    chosen = checkpoint or best_or_newest(work_dir)
    if chosen is None:
        raise InputError(
            f"{work_dir} has no checkpoint of a run: name another work dir, or one "
            "file with --checkpoint"
        )
    contents = model_folder.Contents(
        work_dir, str(chosen), repository, revision, license_id, pictures
    )
    if dry_run:
        _check_folder(Path(dry_run), contents, overwrite)
        model_folder.write(contents, Path(dry_run))
        print_log(f"wrote the files of {repository} to {dry_run}", "current")
        return
    target = hub.Target(repository, revision, private, overwrite)
    target.check(model_folder.FILES)
    with tempfile.TemporaryDirectory() as folder:
        model_folder.write(contents, Path(folder))
        url = target.upload(Path(folder))
    print_log(
        f"pushed {chosen} to {url}. Its name for every command: "
        f"{hub.address(repository, revision)}",
        "current",
    )


def _check_folder(
    folder: Path, contents: model_folder.Contents, overwrite: bool
) -> None:
    """Raise an InputError if the files cannot be written into ``folder``."""
    files.check_folder(folder, "--dry-run")
    outputs.check(
        [
            *(Output("--dry-run", folder / name) for name in model_folder.FILES),
            Output("--dry-run", Folder(folder / model_folder.PICTURES, (".jpg",))),
        ],
        [
            Folder(contents.work_dir, (".pth", ".json")),
            *checkpoint_inputs(contents.checkpoint, overwrite),
        ],
        overwrite,
    )
