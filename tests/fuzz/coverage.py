"""Fuzzes unpickling and run lengths with atheris, which aims at branches not yet taken.

    python -m tests.fuzz.coverage pickle|runs [--minutes M] [--corpus FOLDER]

``make fuzz-coverage`` installs atheris beside the development environment and runs
both. What is found is in ``work_dirs/fuzz/crash-*``; atheris says how to run it again.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris
import numpy as np
import torch
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
from .mutations import archives, pickles  # noqa: E402
from .targets import contents, formats  # noqa: E402

WIDTH, HEIGHT = 8, 6


class Checked:
    """Calls a function with bytes; raises what the watchdog reports.

    Args:
        scratch: where the function may write.
        alters: whether the function could alter classes: to look takes 2 ms.
    """

    def __init__(self, function: Callable[[bytes], None], scratch: Path, alters: bool):
        self._function = function
        self._guard = watchdog.Watchdog([scratch])
        self._before = integrity.fingerprint() if alters else {}

    def __call__(self, data: bytes) -> None:
        self._guard.start()
        try:
            self._function(data)
        except InputError:
            pass
        finally:
            reports = self._guard.stop()
        after = integrity.fingerprint() if self._before else {}
        altered = integrity.changes(self._before, after)
        if reports or altered:
            raise AssertionError(f"{reports} {altered}")


def read_pickle(data: bytes) -> None:
    """Read ``data`` as the pickle of a checkpoint in torch's zip format."""
    members = [
        (name, data if name.endswith("data.pkl") else content)
        for name, content in checkpoint()
    ]
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(archives.zipped(members, Random(0), compress=0))
        file.flush()
        reading.read(file.name)


@functools.cache
def checkpoint() -> archives.Members:
    """The members of a checkpoint; its pickle is the input to begin with."""
    return archives.members(formats.zip_file(contents.run_checkpoint()))


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
    return [content for name, content in checkpoint() if name.endswith("data.pkl")]


def mutate_pickle(data: bytes, most: int, seed: int) -> bytes:
    """Half of the time a change of opcodes, else one of libFuzzer's."""
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
    Path("work_dirs/fuzz").mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(args.target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    function = read_pickle if args.target == "pickle" else read_runs
    for seed in seeds(args.target):
        function(seed)  # imports what is imported late
    options = [
        *(sys.argv[0], str(corpus), f"-max_total_time={int(60 * args.minutes)}"),
        *("-timeout=10", "-rss_limit_mb=4000", "-max_len=20000"),
        "-artifact_prefix=work_dirs/fuzz/",
    ]
    more = dict(custom_mutator=mutate_pickle) if args.target == "pickle" else {}
    checked = Checked(function, Path(tempfile.gettempdir()), args.target == "pickle")
    atheris.Setup(options, checked, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
