"""Masks of a hostile COCO file take little time, and never reach pycocotools."""

import math
import random
import time
from contextlib import contextmanager

import numpy as np
import pytest
from pycocotools import mask as mask_api

from convnext_dense.utils.masks import MERGED, finite, read_mask, to_rle

WIDTH, HEIGHT = 64, 48
PIXELS = WIDTH * HEIGHT


@contextmanager
def seconds(most):
    """A bound for code that takes a hundredth of it."""
    start = time.process_time()
    yield
    assert time.process_time() - start < most


def runs(counts, size=(HEIGHT, WIDTH)):
    return dict(size=list(size), counts=counts)


def letters(number, padding=0):
    """A number of compressed run lengths, with more groups than it needs."""
    text = ""
    while True:
        group, number = number & 31, number >> 5
        whole = number == (-1 if group & 16 else 0)
        if whole and not padding:
            return text + chr(48 + group)
        padding -= whole
        text += chr(48 + group + 32)


ZIGZAG = [x for i in range(100_000) for x in ((0, 0) if i % 2 else (WIDTH, HEIGHT))]
REFUSED = {
    "a number of 10^6 groups": runs("P" * 10**6),
    "10^6 numbers of three groups": runs("PP0" * 10**6),
    "10^7 empty runs": runs("0" * 10**7),
    "10^6 empty runs in a list": runs([0] * 10**6),
    "more runs than pixels": runs([0] * PIXELS + [PIXELS, 0]),
    "more compressed runs than pixels": runs(letters(PIXELS) + "0" * (PIXELS + 1)),
    "a number of seven groups": runs(letters(PIXELS, 4)),
    "a null character": runs("\0"),
    "half a character": runs("\udcff"),
    "letters that are not ASCII": runs("é"),
    "a sum that wraps in 32 bits": runs([2**32, PIXELS]),
    "a sum that wraps in 64 bits": runs([2**63, 2**63, PIXELS]),
    "a number beyond floats": runs([10**400, PIXELS]),
    "a negative run": runs([-1, PIXELS + 1]),
    "runs of lists": runs([[1], PIXELS - 1]),
    "runs in a dict": runs({"0": PIXELS}),
    "a size whose product wraps": runs([0], (2**32, 2**32)),
    "a negative size": runs([PIXELS], (-HEIGHT, -WIDTH)),
    "a size of words": runs([PIXELS], ("48", "64")),
    "a size of lists": runs([PIXELS], ([48], [64])),
    "a size of true": runs([PIXELS], (True, True)),
    "a size that is a number": dict(size=PIXELS, counts=[PIXELS]),
    "an outline of 10^5 diagonals": [ZIGZAG],
    "10^4 outlines of ten diagonals": [ZIGZAG[:22]] * 10**4,
    "a polygon of infinity": [[1, 2, 3, 4, 5, math.inf]],
    "a polygon of 1e308": [[1, 2, 3, 4, 5, 1e308]],
    "a polygon beyond floats": [[1, 2, 3, 4, 5, 10**400]],
    "a polygon of digits in a word": [[1, 2, 30, 4, 5, 60], "123456"],
    "a polygon that is a dict": [[1, 2, 30, 4, 5, 60], {}],
    "a number": 5,
    "True": True,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, monkeypatch):
    for name in ("frPyObjects", "merge", "decode", "area", "toBbox"):
        monkeypatch.setattr(mask_api, name, lambda *_: pytest.fail("reached"))
    with seconds(5):
        assert read_mask(REFUSED[case], WIDTH, HEIGHT) is None


def test_a_number_of_six_groups_is_the_longest():
    """pycocotools would shift the seventh out of its 32 bits."""
    assert read_mask(runs(letters(PIXELS, 3)), WIDTH, HEIGHT)


def test_a_polygon_of_two_points_is_not_taken_for_a_box():
    for mask in ([1, 2, 30, 20], [[1, 2, 30, 20]] * 5):
        written, rle = read_mask(mask, WIDTH, HEIGHT)
        assert (written, mask_api.area(rle)) == ([], 0)


def test_many_polygons_are_merged_a_few_at_a_time(monkeypatch):
    """All at once would take quadratic time."""
    corners = np.random.default_rng(0).uniform(0, 0.98, (50_000, 2)) * (640, 480)
    polygons = [[x, y, x + 3, y, x, y + 3] for x, y in corners.tolist()]
    few = polygons[:100]
    assert to_rle(few, 480, 640) == mask_api.merge(mask_api.frPyObjects(few, 480, 640))
    merge, merged = mask_api.merge, []
    monkeypatch.setattr(
        mask_api, "merge", lambda masks: merged.append(len(masks)) or merge(masks)
    )
    with seconds(20):
        written, rle = read_mask(polygons[:40_000], 640, 480)
    assert max(merged) == MERGED
    assert len(merged) < 40_000 / MERGED * 1.1
    # mmdet would merge them one after another.
    assert written == dict(size=[480, 640], counts=rle["counts"].decode())
    assert read_mask(few, 640, 480)[0] == few


def test_the_longest_outline():
    """A comb with a tooth for each row passes about as many pixels as the image has."""
    comb = [number for row in range(HEIGHT) for number in (0, row, WIDTH, row)]
    assert read_mask([comb], WIDTH, HEIGHT)
    assert read_mask([comb] * 5, WIDTH, HEIGHT) is None


def test_what_is_accepted_decodes_to_what_was_checked():
    rng = random.Random(0)
    accepted = 0
    for _ in range(3000):
        height, width = rng.randint(1, 20), rng.randint(1, 20)
        cuts = sorted(rng.randint(0, height * width) for _ in range(rng.randint(1, 9)))
        lengths = np.diff([0, *cuts, height * width]).tolist()
        if rng.random() < 0.2:
            change = rng.choice([1, -1, 2**29, 2**31, 2**32, -(2**32)])
            lengths[rng.randrange(len(lengths))] += change
        text = "".join(
            letters(n - (lengths[i - 2] if i > 2 else 0), rng.choice([0, 0, 1, 3]))
            for i, n in enumerate(lengths)
        )
        mask = read_mask(runs(text, (height, width)), width, height)
        if mask is None:
            continue
        accepted += 1
        values = np.repeat(np.arange(len(lengths)) % 2, lengths)
        bitmap = values.reshape(height, width, order="F")
        assert (mask_api.decode(mask[1]) == bitmap).all()
    assert accepted > 1000


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ([1, 2.5, "3"], [1, 2.5, 3]),
        ("123", None),
        ({"1": 2}, None),
        ([10**400], None),
        ([math.nan], None),
        (["9" * 10**6], None),
        ([None], None),
        ([[]], None),
    ],
)
def test_finite(values, numbers):
    assert finite(values) == numbers
