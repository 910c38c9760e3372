"""Predict many images and videos, and write the results."""

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log
from rich.progress import track

from convnext_dense.errors import InputError
from convnext_dense.utils import files

from .decoding import Video
from .inputs import Source, find
from .predictor import OutOfMemory, Predictor, Prepared
from .results import Results

WAITING = 4  # batches of images of several shapes that wait for more of theirs


class IncompleteError(InputError):
    """Not all was predicted; what was is written."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class Item(NamedTuple):
    """An image, or a frame of a video (from 1), with its id in the results."""

    source: Source
    frame: int | None
    number: int
    prepared: Prepared


def predict(
    config: str | None,
    checkpoint: str,
    inputs: Sequence[str],
    out: str | os.PathLike,
    score_thr: float = 0.3,
    batch: int = 1,
    device: str | None = None,
    options: Sequence[str] = (),
) -> None:
    """Predict what ``inputs`` name; ``results`` says what there is in ``out`` then.

    Args:
        config: None takes the one that the checkpoint carries.
        checkpoint: whatever ``checkpoints.read`` takes.
        inputs: files, folders and patterns.
        score_thr: boxes of a lower score are not drawn.
        batch: how many images of one shape the model is given at once. Images are
            not padded to each other's size, so it does not change what is predicted.
        device: such as 'cpu' or 'cuda:1'; None takes a GPU where there is one.
        options: ``--cfg-options``.

    Raises:
        InputError: nothing was predicted.
        IncompleteError: some inputs could not be predicted, or it was interrupted.
    """
    if batch < 1:
        raise InputError(f"--batch {batch}: at least one image at a time")
    out = Path(os.path.abspath(out))
    if math.isnan(score_thr):
        raise InputError("--score-thr nan: give a number from 0 to 1")
    files.check_folder(out, "--out")
    found = find(inputs, out)
    predictor = Predictor(config, checkpoint, device, options)
    results = Results(out, predictor.scope, predictor.dataset_meta, score_thr)
    work = _Work(predictor, results, batch)
    interrupted = False
    with contextlib.closing(results):
        try:
            work.images([source for source in found if not source.is_video])
            for source in found:
                if source.is_video:
                    work.video(source)
        except KeyboardInterrupt:
            interrupted = True
    told = "".join(f"\n  {path}: {reason}" for path, reason in work.failures)
    if interrupted:
        raise IncompleteError(
            f"interrupted; files predicted: {work.done} of {len(found)}, in {out}"
            + (f"; could not be:{told}" if told else ""),
            exit_code=130,  # as shells have it
        )
    if told and not work.done:
        raise InputError(f"no file could be predicted:{told}")
    if told:
        raise IncompleteError(
            f"{len(work.failures)} of {len(found)} files could not be predicted:{told}"
            f"\nThe others are in {out}"
        )
    print_log(f"files predicted: {work.done}, in {out}", "current")


class _Work:
    """Takes files through model and results.

    Attributes:
        done: how many files.
        failures: of the other files, path and reason.
    """

    def __init__(self, predictor: Predictor, results: Results, batch: int):
        self._predictor = predictor
        self._results = results
        self._batch = batch
        self._numbers = itertools.count(1)
        self.done = 0
        self.failures: list[tuple[Path, str]] = []

    def images(self, found: Sequence[Source]) -> None:
        for item, sample in self._predicted(self._read(found), self._fail):
            image = item.prepared.image
            self._results.image(item.source, item.number, image, sample)
            self.done += 1

    def video(self, source: Source) -> None:
        """Frame after frame: memory does not grow with the length."""
        try:
            video = Video(source.path)
            frames = track(video, source.file_name, video.count)
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

    def _read(self, found: Sequence[Source]) -> Iterator[Item]:
        for source in track(found, "images", disable=not found):
            number = next(self._numbers)
            try:
                prepared = self._predictor.read(source.path, number)
            except Exception as error:  # whatever decoders and pipelines can raise
                self.failures.append((source.path, _reason(error)))
            else:
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
        """Items with their predictions; ``fail(item, error)`` gets those without."""
        for group in _batches(items, batch or self._batch):
            try:
                samples = self._predictor([item.prepared for item in group])
            except Exception as error:  # whatever a model can raise
                if len(group) == 1:
                    fail(*group, error)
                    continue
                if isinstance(error, OutOfMemory):
                    raise
                samples = None
            if samples is None:  # one of them is to blame
                yield from self._predicted(group, fail, batch=1)
            else:
                yield from zip(group, samples, strict=True)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to ``size`` items whose inputs have one shape."""
    waiting: dict[tuple, list[Item]] = {}
    for item in items:
        group = waiting.setdefault(tuple(item.prepared.data["inputs"].shape), [])
        group.append(item)
        if len(group) == size or sum(map(len, waiting.values())) == WAITING * size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _stop(item: Item, error: Exception) -> None:
    raise InputError(f"frame {item.frame}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    first_line, *_ = str(error).strip().split("\n")
    return f"{type(error).__name__}: {first_line}"
