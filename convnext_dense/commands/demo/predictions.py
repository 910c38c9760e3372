"""Predicts one uploaded file at a time, and keeps its results until the next one.

The files are those that ``convnext-dense predict`` writes.
"""

import contextlib
import json
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.structures import BaseDataElement

from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import palette
from convnext_dense.utils.image_content import decode
from convnext_dense.utils.images import encode

from ..predict.decoding import Video
from ..predict.inputs import Source, find
from ..predict.predict_files import Work, reason_of
from ..predict.predictor import Predictor
from ..predict.recognition import Media
from ..predict.results import Results

MOST_FRAMES = 1000  # of a video: more would keep others waiting
LONGEST_SHOWN = 2000  # pixels of a side of the picture on the page


class Count(NamedTuple):
    """How much of a class is in a result.

    Attributes:
        name: of the class.
        color: RGB, as it is drawn.
        number: of objects; or the share of the pixels, from 0 to 1.
    """

    name: str
    color: tuple[int, int, int]
    number: float


class Outcome(NamedTuple):
    """What the page shows of a file.

    Attributes:
        picture: a JPEG with the predictions drawn; None for a video.
        video: a WebM, which browsers play; None for an image.
        counts: of each class in the result, the largest first.
        archive: a zip of the files that ``convnext-dense predict`` writes.
        note: what of the file was not read, or why nothing is drawn; or empty.
    """

    picture: Path | None
    video: Path | None
    counts: list[Count]
    archive: Path
    note: str


class Predicted(NamedTuple):
    """The prediction of an image, to draw it again with another threshold."""

    source: Source
    image: np.ndarray
    sample: BaseDataElement
    note: str


class Predictions:
    """Predicts uploaded files with one model.

    Args:
        predictor: the model.
        root: folder in which each result gets a folder of its own.
    """

    def __init__(self, predictor: Predictor, root: Path):
        self._predictor = predictor
        self._root = root
        meta = predictor.dataset_meta
        self._classes: tuple[str, ...] = meta["classes"]
        self._colors = meta["palette"] or palette(self._classes)
        self.has_scores = predictor.scope == "mmdet"

    def predict(
        self, path: Path, score_thr: float, advance: Callable[[int, int | None], None]
    ) -> tuple[Outcome, Predicted | None]:
        """Predict an image or a video.

        Args:
            path: the file.
            score_thr: boxes with a lower score are not drawn.
            advance: called with the number of a video's frames that are done, and
                of all.

        Returns:
            what to show, and of an image the prediction, for ``draw``.

        Raises:
            InputError: the file cannot be predicted.
        """
        (source,) = find([str(path)], self._root).sources
        if source.is_video:
            return self._video(source, score_thr, advance), None
        try:
            prepared, note = self._predictor.read(path, 1)
            (sample,) = self._predictor([prepared])
        except Exception as error:  # decoders, pipelines and models can raise anything
            raise InputError(f"{path.name}: {reason_of(error)}") from error
        predicted = Predicted(source, prepared.image, sample, note or "")
        return self.draw(predicted, score_thr), predicted

    def draw(self, predicted: Predicted, score_thr: float) -> Outcome:
        """Write and draw the prediction of an image.

        Raises:
            InputError: it cannot be drawn.
        """
        source, image, sample, note = predicted
        with self._folder() as out:
            results = self._results(out, score_thr)
            with contextlib.closing(results):
                results.image(source, 1, image, sample)
            return self._outcome(out, source, score_thr, note)

    def _video(self, source: Source, score_thr: float, advance: Callable) -> Outcome:
        count = None if source.media is Media.ANIMATION else _frames_of(source)
        with self._folder() as out:
            results = self._results(out, score_thr)
            results.advance = lambda frame: advance(frame, count)
            with contextlib.closing(results):
                work = Work(self._predictor, results, 1)
                work.video(source)
            for path, why in work.failures:
                raise InputError(f"{path.name}: {why}")
            return self._outcome(out, source, score_thr, "")

    def _results(self, out: Path, score_thr: float) -> "_WatchedResults":
        predictor = self._predictor
        return _WatchedResults(
            out,
            predictor.scope,
            predictor.dataset_meta,
            score_thr,
            things=predictor.things,
        )

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """A new folder for a result, which is removed if there is an error."""
        folder = Path(tempfile.mkdtemp(dir=self._root))
        try:
            yield folder / "results"
        except BaseException:
            shutil.rmtree(folder)
            raise

    def _outcome(
        self, out: Path, source: Source, score_thr: float, note: str
    ) -> Outcome:
        """What to show of the results in the folder ``out``."""
        archive = out.parent / f"{Path(source.file_name).stem}-predictions.zip"
        _zip(out, archive)
        labels = sorted((out / "labels").rglob("*.png"))
        counts = self._pixels(labels) if labels else self._objects(out, score_thr)
        shown = out / source.picture
        if source.is_video:
            video = out.parent / "shown.webm"
            _for_browsers(shown, video)
            return Outcome(None, video, counts, archive, note)
        picture = out.parent / "shown.jpg"
        _smaller(shown, picture)
        return Outcome(picture, None, counts, archive, note)

    def _objects(self, out: Path, score_thr: float) -> list[Count]:
        """The number of boxes of each class that are drawn."""
        if not (out / "predictions.json").exists():
            return []
        categories = json.loads((out / "images.json").read_text())["categories"]
        place = {category["id"]: i for i, category in enumerate(categories)}
        boxes = json.loads((out / "predictions.json").read_text())
        drawn = (box["category_id"] for box in boxes if box["score"] > score_thr)
        return [
            Count(self._classes[place[category]], self._colors[place[category]], number)
            for category, number in Counter(drawn).most_common()
        ]

    def _pixels(self, files: list[Path]) -> list[Count]:
        """The share of each class in label maps."""
        first = 1 if self._predictor.dataset_meta["reduce_zero_label"] else 0
        total: Counter[int] = Counter()
        for file in files:
            label_map = decode(file.read_bytes(), cv2.IMREAD_UNCHANGED)
            assert label_map is not None  # it was just written
            values, numbers = np.unique(label_map, return_counts=True)
            total.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        return [
            Count(
                self._classes[label - first],
                self._colors[label - first],
                number / total.total(),
            )
            for label, number in total.most_common()
        ]


class _WatchedResults(Results):
    """Results that report each frame of a video.

    Attributes:
        advance: called with the number of each frame that is written, from 1.
    """

    advance: Callable[[int], None]

    @contextlib.contextmanager
    def video(self, source: Source, rate: float) -> Iterator[Callable]:
        """As ``Results.video``."""
        with super().video(source, rate) as add:

            def add_and_report(frame, *more):
                if frame > MOST_FRAMES:
                    raise InputError(_too_many("more"))
                add(frame, *more)
                self.advance(frame)

            yield add_and_report


def _frames_of(source: Source) -> int | None:
    """The number of frames that a video states.

    Raises:
        InputError: they are too many, or it cannot be opened.
    """
    try:
        count = Video(source.path).count
    except InputError as error:
        raise InputError(f"{source.path.name}: {error}") from error
    if count and count > MOST_FRAMES:
        raise InputError(f"{source.path.name}: {_too_many(f'{count:,}')}")
    return count


def _too_many(count: str) -> str:
    return (
        f"it has {count} frames, and this page takes videos of up to {MOST_FRAMES:,}: "
        "run convnext-dense predict"
    )


def _zip(folder: Path, archive: Path) -> None:
    """Write a zip of all files below a folder."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                content.write(file, file.relative_to(folder))


def _smaller(picture: Path, shown: Path) -> None:
    """Write a picture no larger than a page needs it."""
    image = decode(picture.read_bytes(), cv2.IMREAD_COLOR)
    assert image is not None  # it was just written
    scale = LONGEST_SHOWN / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(
            image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
    shown.write_bytes(encode(".jpg", image))


def _for_browsers(video: Path, shown: Path) -> None:
    """Write a video as WebM: browsers do not play the mp4 that OpenCV writes.

    Raises:
        InputError: this OpenCV cannot write it.
    """
    frames = Video(video)
    writer = None
    for frame in frames:
        height, width = frame.shape[:2]
        scale = min(1.0, LONGEST_SHOWN / max(height, width))
        # VP8 takes even sizes.
        size = (max(2, round(width * scale) & ~1), max(2, round(height * scale) & ~1))
        if writer is None:
            codec = cv2.VideoWriter.fourcc(*"VP80")
            writer = cv2.VideoWriter(
                str(shown), cv2.CAP_FFMPEG, codec, frames.rate, size
            )
        writer.write(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    if writer is None or not writer.isOpened():
        raise InputError(
            "this OpenCV writes no WebM, so the page cannot show a video: pip install "
            "opencv-python-headless, or run convnext-dense predict"
        )
    writer.release()
