"""The values that ``--cfg-options`` takes; tests/bad_inputs has those it refuses."""

import pytest

from convnext_dense.config.cfg_options import parse
from convnext_dense.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-4", 1e-4),
        ("True", True),
        ("None", None),
        ("word", "word"),
        ("[1,2]", [1, 2]),
        ("(1,2)", (1, 2)),
        ("[(1,2),a]", [(1, 2), "a"]),
        # File names that begin with a bracket are words.
        ("(old)run", "(old)run"),
        ("[abc]*.jpg", "[abc]*.jpg"),
    ],
)
def test_values(text, value):
    assert parse([f"a.b={text}"]) == {"a.b": value}


@pytest.mark.parametrize(
    "text", ["[1,2", "(1,2", "{'a': 1}", "dict(a=1)", "[{'a': 1}]"]
)
def test_what_cannot_be_read_is_named(text):
    with pytest.raises(InputError, match=r"--cfg-options: .a\.b=.* cannot be read"):
        parse([f"a.b={text}"])
