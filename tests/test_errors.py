"""Messages show names from files, and terminals do not obey them."""

import pytest

from convnext_dense.errors import InputError, printable
from convnext_dense.utils.text import few


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Füße 猫 🦊 a/b", "Füße 猫 🦊 a/b"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\x85c\u2028d", r"a\rb\x85c\u2028d"),
        ("right \u202e left", r"right \u202e left"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert printable(text) == shown
    assert str(InputError(f"{text}: wrong\nnext line")) == f"{shown}: wrong\nnext line"


def test_long_names_are_shortened():
    message = str(InputError("a" * 10**6 + "\nadvice"))
    assert len(message) < 3000
    assert message.endswith("aaa\nadvice")
    assert len(few(["b" * 10**6] * 5)) < 1000
