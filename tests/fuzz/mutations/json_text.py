"""Writes JSON as it may be and as it may not be."""

import json
from random import Random
from typing import Any

from .values import word


def dump(tree: Any, rng: Random) -> str:
    """JSON text, with or without escapes; NaN as Python writes it."""
    try:
        return json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    except ValueError:  # an integer of more digits than Python writes
        return '{"a": ' + "9" * 5000 + "}"


def change_text(text: str, rng: Random) -> str:
    """Change the text itself: what no writer writes."""
    place = rng.randrange(len(text) + 1)
    match rng.randrange(9):
        case 0:
            depth = rng.choice((100, 1000, 100_000))
            return text[:place] + "[" * depth + text[place:]
        case 1:
            depth = rng.choice((500, 100_000))
            return '{"a":' * depth + text + "}" * depth
        case 2:
            return text[:place] + "9" * rng.choice((50, 5000, 10**6)) + text[place:]
        case 3:
            return text[:place]
        case 4:
            return text[:place] + rng.choice("{}[],:\"'\\0-.eE") + text[place:]
        case 5:
            return (
                text[:place]
                + rng.choice(
                    (
                        "\\ud800",
                        "\\u0000",
                        "NaN",
                        "Infinity",
                        "-Infinity",
                        "1e999",
                        "//x\n",
                    )
                )
                + text[place:]
            )
        case 6:
            return rng.choice(("\ufeff", " ", "\0", "[", "/*")) + text
        case 7:  # keys that stand twice
            return text.replace("{", '{"id": 1, "id": "x", ', 1)
        case _:
            return text[:place] + word(rng) + text[place:]
