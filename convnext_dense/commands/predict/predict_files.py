"""Predict many images and videos, and write the results."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log
from rich.markup import escape
from rich.progress import track

from convnext_dense.config.inputs import checkpoint_inputs, config_inputs
from convnext_dense.config.options import load_config
from convnext_dense.engine.tiling.grid import Tiling
from convnext_dense.errors import InputError, printable
from convnext_dense.utils import files, outputs
from convnext_dense.utils.image_content import TOO_LITTLE_MEMORY
from convnext_dense.utils.text import few, reason

from .. import INTERRUPTED
from .animation import Animation
from .class_filter import labels_of
from .decoding import Video
from .inputs import DRAWN, Selection, Source, find
from .predictor import OutOfMemory, Predictor, Prepared
from .recognition import Media
from .results import Results

RESULTS = (".jpg", ".mp4", ".png")  # endings of drawings and label maps

# Images wait until a batch of their shape is full. This is the most that may wait, in
# batches; then the largest incomplete batch is predicted.
WAITING = 4


class IncompleteError(InputError):
    """Some inputs were not predicted. The results of the others are written."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class Item(NamedTuple):
    """An image, or a frame of a video, that is ready for the model.

    Attributes:
        source: the file.
        frame: number of the frame from 1; None for an image.
        number: the image's id in the results.
        prepared: the pixels and the model's input.
    """

    source: Source
    frame: int | None
    number: int
    prepared: Prepared


def predict_files(
    config: str | None,
    checkpoint: str,
    inputs: Sequence[str],
    out: str | os.PathLike,
    score_thr: float = 0.3,
    batch: int = 1,
    device: str | None = None,
    options: Sequence[str] = (),
    overwrite: bool = False,
    *,
    tiling: Tiling | None = None,
    classes: Sequence[str] | None = None,
    save_crops: bool = False,
) -> None:
    """Predict all files that ``inputs`` name and write the results into ``out``.

    ``results`` lists the files written.

    Args:
        config: path of a config; None takes the config inside the checkpoint.
        checkpoint: anything that ``checkpoints.read`` takes.
        inputs: files, folders and patterns.
        out: folder for the results.
        score_thr: boxes with a lower score are not drawn.
        batch: how many images of one shape the model predicts at once. Images are
            not padded to each other's size, so predictions do not depend on it. With
            ``tiling``, how many tiles of an image.
        device: such as 'cpu' or 'cuda:1'; None takes a GPU if there is one.
        options: ``--cfg-options``.
        overwrite: whether results may replace files in ``out`` that are no inputs.
        tiling: how images are cut into tiles; None predicts them as they are.
        classes: names of the classes whose objects are kept; None keeps all.
        save_crops: whether each object above ``score_thr`` is written as an image.

    Raises:
        InputError: no input could be predicted, or a result would replace a file.
        IncompleteError: some inputs could not be predicted, or the user interrupted.
    """
    if batch < 1:
        raise InputError(f"--batch {batch}: give a number of images, at least 1")
    out = Path(os.path.abspath(out))
    if not 0 <= score_thr <= 1:  # nor is nan
        raise InputError(f"--score-thr {score_thr}: give a number from 0 to 1")
    files.check_folder(out, "--out")
    selection = find(inputs, out)
    sources = selection.sources
    _check_outputs(
        config, checkpoint, inputs, sources, out, options, overwrite, save_crops
    )
    _say_left_out(selection)
    predictor = Predictor(config, checkpoint, device, options, tiling, batch)
    if predictor.scope == "mmseg" and (classes or save_crops):
        raise InputError(
            f"{'--classes' if classes else '--save-crops'} is for the objects of a "
            "detector, and this model is a segmentor: its label maps have a class for "
            "every pixel"
        )
    meta = predictor.dataset_meta
    results = Results(
        out,
        predictor.scope,
        meta,
        score_thr,
        things=predictor.things,
        tile=tiling.side if tiling else None,
        labels=labels_of(classes, meta["classes"]) if classes else None,
        save_crops=save_crops,
    )
    work = _Work(predictor, results, 1 if tiling else batch)
    interrupted = False
    with contextlib.closing(results):
        try:
            work.images([source for source in sources if not source.is_video])
            for source in sources:
                if source.is_video:
                    work.video(source)
        except KeyboardInterrupt:
            interrupted = True
    _say_notes(work.notes)
    failures = "".join(f"\n  {path}: {why}" for path, why in work.failures)
    if interrupted:
        raise IncompleteError(
            f"interrupted; files predicted: {work.done} of {len(sources)}, in {out}"
            + (f"; files that could not be predicted:{failures}" if failures else ""),
            exit_code=INTERRUPTED,
        )
    if failures and not work.done:
        raise InputError(f"no file could be predicted:{failures}")
    if failures:
        raise IncompleteError(
            f"{len(work.failures)} of {len(sources)} files could not be predicted:"
            f"{failures}\nThe results of the others are in {out}"
        )
    print_log(f"files predicted: {work.done}, in {out}", "current")
    results.say_if_nothing_is_drawn()


def _say_left_out(selection: Selection) -> None:
    """Name the files that are in folders and patterns, and are not predicted."""
    for names, what in (
        (selection.left_out, "files that are not read as images or videos"),
        (selection.results, "drawings or crops of an earlier prediction"),
        (selection.folders, "subfolders (to take their files, write 'FOLDER/**/*')"),
    ):
        if names:
            print_log(f"left out: {what}: {len(names)} ({few(names)})", "current")


def _say_notes(notes: Sequence[tuple[Path, str]]) -> None:
    """Print a line for each note, with the files that have it."""
    by_note: dict[str, list[Path]] = {}
    for path, note in notes:
        by_note.setdefault(note, []).append(path)
    for note, paths in by_note.items():
        print_log(f"note: {few(path.name for path in paths)}: {note}", "current")


def _check_outputs(
    config: str | None,
    checkpoint: str,
    inputs: Sequence[str],
    sources: Sequence[Source],
    out: Path,
    options: Sequence[str],
    overwrite: bool,
    save_crops: bool,
) -> None:
    """Raise an InputError if a result would replace a file, or mix with the inputs.

    The arguments are those of ``predict_files``; ``sources`` are the files to predict.
    """
    for name in map(os.path.expanduser, inputs):
        if os.path.isdir(name) and out.exists() and os.path.samefile(name, out):
            raise InputError(
                f"--out {out} is the folder of the images: choose another folder"
            )
    read: list[Path | outputs.Folder] = [source.path for source in sources]
    read += checkpoint_inputs(checkpoint, overwrite)
    if config:
        read.append(Path(config))
    if config and overwrite:
        read += config_inputs(load_config(config, options))
    # An input among the results of an earlier run would be predicted from a drawing.
    names = (*DRAWN, "labels")
    folders = [outputs.Folder(out / name, RESULTS) for name in names]
    outputs.check([outputs.Output("--out", folder) for folder in folders], read, True)
    results: list[Path | outputs.Folder] = [
        out / name for name in ("predictions.json", "images.json", "panoptic.json")
    ]
    if save_crops:  # their names are known when the objects are
        results.append(outputs.Folder(out / "crops", RESULTS))
    for source in sources:
        results.append(out / source.picture)
        for folder in ("labels", "panoptic"):
            still = out / folder / f"{source.still(1)}.png"
            results.append(
                outputs.Folder(still.parent, RESULTS) if source.is_video else still
            )
    outputs.check([outputs.Output("--out", file) for file in results], read, overwrite)


class _Work:
    """Predicts files and writes their results.

    Attributes:
        done: the number of files predicted.
        failures: path and reason of each file that could not be predicted.
        notes: path and note of files that were not read in full.
    """

    def __init__(self, predictor: Predictor, results: Results, batch: int):
        self._predictor = predictor
        self._results = results
        self._batch = batch
        self._numbers = itertools.count(1)
        self.done = 0
        self.failures: list[tuple[Path, str]] = []
        self.notes: list[tuple[Path, str]] = []

    def images(self, sources: Sequence[Source]) -> None:
        """Predict image files, in batches."""
        for item, sample in self._predicted(self._read(sources), self._fail):
            image = item.prepared.image
            try:
                self._results.image(item.source, item.number, image, sample)
            except InputError:
                raise
            except Exception as error:  # of drawing, such as too little memory
                self._fail(item, error)
            else:
                self.done += 1

    def video(self, source: Source) -> None:
        """Predict a video frame by frame: memory does not grow with its length."""
        try:
            is_animation = source.media is Media.ANIMATION
            video = (Animation if is_animation else Video)(source.path)
            title = escape(printable(source.file_name))
            frames = track(video, title, video.count)
            items = self._frames(source, frames)
            with self._results.video(source, video.rate) as add:
                for item, sample in self._predicted(items, _stop):
                    add(item.frame, item.number, item.prepared.image, sample)
        except OutOfMemory:
            raise
        except Exception as error:
            self.failures.append((source.path, _reason(error)))
        else:
            self.done += 1
            if is_animation:
                note = "an animation is predicted as a video"
                self.notes.append((source.path, note))

    def _read(self, sources: Sequence[Source]) -> Iterator[Item]:
        for source in track(sources, "images", disable=not sources):
            number = next(self._numbers)
            try:
                prepared, note = self._predictor.read(source.path, number)
            except Exception as error:  # decoders and pipelines can raise anything
                self.failures.append((source.path, _reason(error)))
            else:
                if note:
                    self.notes.append((source.path, note))
                yield Item(source, None, number, prepared)

    def _frames(self, source: Source, frames: Iterable) -> Iterator[Item]:
        for frame, image in enumerate(frames, 1):
            number = next(self._numbers)
            prepared = self._predictor.take(image, source.path, number)
            yield Item(source, frame, number, prepared)

    def _fail(self, item: Item, error: Exception) -> None:
        self.failures.append((item.source.path, _reason(error)))

    def _predicted(
        self, items: Iterable[Item], fail: Callable, batch: int | None = None
    ) -> Iterator[tuple]:
        """Yield items with their predictions; call ``fail(item, error)`` for others."""
        for group in _batches(items, batch or self._batch):
            try:
                samples = self._predictor([item.prepared for item in group])
            except Exception as error:  # a model can raise anything
                if len(group) == 1:
                    fail(*group, error)
                    continue
                if isinstance(error, OutOfMemory):
                    raise
                samples = None
            if samples is None:  # one item fails: predict them one by one
                yield from self._predicted(group, fail, batch=1)
            else:
                yield from zip(group, samples, strict=True)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of up to ``size`` items whose inputs have the same shape."""
    waiting: dict[tuple, list[Item]] = {}
    for item in items:
        group = waiting.setdefault(tuple(item.prepared.data["inputs"].shape), [])
        group.append(item)
        if len(group) == size or sum(map(len, waiting.values())) == WAITING * size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _stop(item: Item, error: Exception) -> None:
    """Give up on a video at its first frame that fails."""
    raise InputError(f"frame {item.frame}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why a file could not be predicted, in one line."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return TOO_LITTLE_MEMORY
    return reason(error).partition("\n")[0]
