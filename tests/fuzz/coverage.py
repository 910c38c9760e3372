"""Fuzzes unpickling and run lengths with atheris, which aims at branches not yet taken.

    python -m tests.fuzz.coverage pickle|runs [--minutes M] [--corpus FOLDER]

``make fuzz-coverage`` installs atheris beside the development environment and runs
both. What is found is in ``crash-...`` in the current folder; atheris says how to run
it again.
"""

import argparse
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from pycocotools import mask as mask_api

# Only the code under test is instrumented, not all of torch.
_UNDER_TEST = (
    *("convnext_dense.checkpoints", "convnext_dense.utils.masks", "pickle"),
    "torch._weights_only_unpickler",
)
with atheris.instrument_imports(include=list(_UNDER_TEST)):
    from convnext_dense.checkpoints import reading
    from convnext_dense.utils import masks

from convnext_dense.errors import InputError  # noqa: E402

from . import integrity, watchdog  # noqa: E402
from .mutations import pickles  # noqa: E402
from .targets import contents, formats  # noqa: E402

WIDTH, HEIGHT = 8, 6


class Checked:
    """Calls a function with bytes; raises what the watchdog reports."""

    def __init__(self, function: Callable[[bytes], None], scratch: Path):
        self._function = function
        self._guard = watchdog.Watchdog([scratch])
        self._before = integrity.fingerprint()

    def __call__(self, data: bytes) -> None:
        self._guard.start()
        try:
            self._function(data)
        except InputError:
            pass
        finally:
            reports = self._guard.stop()
        altered = integrity.changes(self._before, integrity.fingerprint())
        if reports or altered:
            raise AssertionError(f"{reports} {altered}")


def read_pickle(data: bytes) -> None:
    """Read ``data`` as the pickle of a checkpoint in torch's zip format."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("c/data.pkl", data)
        archive.writestr("c/byteorder", "little")
        archive.writestr("c/data/0", bytes(64))
        archive.writestr("c/version", "3\n")
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(stream.getvalue())
        file.flush()
        reading.read(file.name)


def read_runs(data: bytes) -> None:
    """Read ``data`` as compressed run lengths, and compare with pycocotools."""
    counts = data.decode("latin-1")
    result = masks.read_mask(dict(size=[HEIGHT, WIDTH], counts=counts), WIDTH, HEIGHT)
    if result is None:
        return
    decoded = mask_api.decode(result[1])
    if decoded.shape != (HEIGHT, WIDTH) or decoded.sum() != mask_api.area(result[1]):
        raise AssertionError(f"{counts!r} is not a mask")


def seeds(name: str) -> list[bytes]:
    """Inputs that are accepted."""
    if name == "runs":
        generator = np.random.default_rng(0)
        bitmaps = generator.integers(0, 2, (20, HEIGHT, WIDTH), np.uint8)
        return [
            mask_api.encode(np.asfortranarray(bitmap))["counts"] for bitmap in bitmaps
        ]
    tensors = {"a": torch.ones(4), "b": HistoryBuffer([1.0], [1]), "c": np.arange(3)}
    files = [formats.zip_file(c) for c in (tensors, contents.run_checkpoint())]
    return [
        content
        for file in files
        for member, content in formats.archives.members(file)
        if member.endswith("data.pkl")
    ]


def mutate_pickle(data: bytes, most: int, seed: int) -> bytes:
    """Half of the time a change of opcodes, else one of libFuzzer's."""
    from random import Random

    rng = Random(seed)
    if rng.random() < 0.5:
        return pickles.change(data, rng)[:most]
    return atheris.Mutate(data, most)


def main() -> None:
    """Run atheris, which ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage")
    parser.add_argument("target", choices=("pickle", "runs"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--corpus", default="work_dirs/fuzz-corpus")
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Path(args.corpus, args.target)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(args.target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    function = read_pickle if args.target == "pickle" else read_runs
    for seed in seeds(args.target):
        function(seed)  # imports what is imported late
    options = [
        *(sys.argv[0], str(corpus), f"-max_total_time={int(60 * args.minutes)}"),
        *("-timeout=10", "-rss_limit_mb=4000", "-max_len=20000"),
    ]
    more = dict(custom_mutator=mutate_pickle) if args.target == "pickle" else {}
    checked = Checked(function, Path(tempfile.gettempdir()))
    atheris.Setup(options, checked, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
