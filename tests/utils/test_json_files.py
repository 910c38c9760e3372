"""JSON files that would take too long, or end in a stack."""

import time

import pytest

from convnext_dense.errors import InputError
from convnext_dense.utils.json_files import parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[" + "9" * 4_000 + "]", "a number has 4000 digits: 9999"),
        ("[" + "9" * 1_000_000 + "]", "a number has 1000000 digits"),
        ("[0." + "9" * 1_000_000 + "]", "a number has 1000002 digits"),
        ("[1e" + "9" * 1_000_000 + "]", "digits"),
        ("[1,", "not JSON"),
        ("", "not JSON"),
    ],
    ids=range(8),
)
def test_what_is_refused(text, message):
    start = time.process_time()
    with pytest.raises(InputError, match=f"^a.json .*{message}"):
        parse_json(text, "a.json")
    assert time.process_time() - start < 5  # a bound, not a measurement: it took 0.01


def test_digits_in_names_are_no_numbers():
    name = "7" * 500
    assert (
        parse_json(
            f'{{"file_name": "{name}", "id": {2**70}, "area": 0.{"3" * 90}}}', ""
        )["file_name"]
        == name
    )
