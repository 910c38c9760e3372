"""JSON files that would take too long, or end in a stack."""

import json
import time

import pytest

from convnext_dense.errors import InputError
from convnext_dense.utils.json_files import parse_json, read_json


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


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [1], "annotations": [], "images": [2]}',
        '{"images": [1], "im\\u0061ges": [2]}',
        '{"images": [{"images": 1}], "info": {}, "images": []}',
    ],
)
def test_lists_that_python_would_drop_are_refused(text):
    with pytest.raises(InputError, match="has 2 lists of images: join them"):
        parse_json(text, "a.json", once=("images",))
    assert parse_json(text, "a.json")


@pytest.mark.parametrize(
    "content",
    [
        {"images": ["images", {"images": 1}, {"images": 2}]},
        [{"images": 1}, {"images": 2}],
        {"info": "\\u0061", "images": []},
        {"images": ["ä \x01 😀"]},
    ],
)
def test_the_same_word_in_other_places_is_no_second_list(content):
    assert parse_json(json.dumps(content), "", once=("images",)) == content


def test_an_object_in_a_list_may_have_a_key_twice():
    """As Python reads it: only the outermost object is checked."""
    text = '[{"images": 1, "images": 2}]'
    assert parse_json(text, "", once=("images",)) == [{"images": 2}]


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_other_codes_are_named(tmp_path, code):
    file = tmp_path / "a.json"
    file.write_bytes('{"images": []}'.encode(code))
    with pytest.raises(InputError, match=r"a.json is .*save it as UTF-8"):
        read_json(file)
