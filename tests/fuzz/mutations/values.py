"""Values that programs handle badly, and trees of values with some replaced."""

from random import Random
from typing import Any

INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 16, 31, 32, 63, 64, 127, 128, 255, 256, 257, -128, 511),
    *(999, 1000, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1),
    *(-(2**31), 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
)
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-320, 1e300, 1e308, -1e308)
NOT_NUMBERS = (float("nan"), float("inf"), float("-inf"))
_WORDS = (
    *("", " ", "0", "-1", "a", "a b", "None", "True", "nan", "1e999", ".", "..", "/"),
    *("../x", "/etc/hostname", "/dev/zero", "~", "~/x", "a/../../b", "C:\\x", "a\\b"),
    *(
        "\0",
        "a\0b",
        "\n",
        "a\nb",
        "\r",
        "\t",
        "\x1b[2J",
        "\x1b]0;x\x07",
        "\x7f",
        "\x9b",
    ),
    *("\u202e", "\u2028", "\ufeff", "é", "e\u0301", "日本", "\U0001f600", "\ud800"),
    *("\udcff.png", "%s", "%n", "{}", "{0}", "{x.y}", "$x", "$\\frac{1}{$", "`x`"),
    *("$(x)", "; x", "| x", "&", "<b>", "<script>", "'", '"', "'''", "yaml", "yml"),
    *(
        "pkl",
        "pickle",
        "json",
        "py",
        "eval",
        "lambda: 0",
        "__import__('os')",
        "file://",
    ),
    *("http://localhost:9/x", "s3://a/b", "hf://a/b", "timm://x", "torchvision://x"),
    *("open-mmlab://x", "data:,x", "-x", "--out", "*", "?", "[a]", "a" * 256),
)


def word(rng: Random) -> str:
    """A text: short and strange, or now and then long."""
    text = rng.choice(_WORDS)
    if rng.random() < 0.05:
        return (text or "a") * rng.choice((100, 5_000, 100_000))
    return text + rng.choice(_WORDS) if rng.random() < 0.1 else text


def integer(rng: Random) -> int:
    """A number at or beside a limit; now and then one of thousands of digits."""
    if rng.random() < 0.03:
        return 10 ** rng.choice((30, 400, 5_000))
    return rng.choice(INTEGERS) + rng.choice((0, 0, 0, 1, -1))


def number(rng: Random) -> float:
    """A float or an integer."""
    choices = (rng.choice(FLOATS), rng.choice(NOT_NUMBERS), integer(rng), rng.random())
    return rng.choice(choices)


def plain(rng: Random) -> Any:
    """Any value that JSON can write, if not that every reader takes it."""
    match rng.randrange(9):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2 | 3:
            return number(rng)
        case 4 | 5:
            return word(rng)
        case 6:
            return [plain(rng) for _ in range(rng.randrange(3))]
        case 7:
            return {word(rng): plain(rng) for _ in range(rng.randrange(3))}
        case _:
            return nested(rng.choice((2, 50, 300)), rng)


def nested(depth: int, rng: Random) -> Any:
    """Lists or dicts within each other."""
    value: Any = 0
    for _ in range(depth):
        value = [value] if rng.random() < 0.9 else {"a": value}
    return value


def places(tree: Any, most: int = 2000) -> list[tuple[Any, Any]]:
    """The (container, key) of each value in a tree of dicts and lists."""
    found, waiting = [], [tree]
    while waiting and len(found) < most:
        node = waiting.pop()
        if isinstance(node, dict):
            keys = list(node)
        elif isinstance(node, list):
            keys = list(range(len(node)))
        else:
            continue
        for key in keys:
            found.append((node, key))
            waiting.append(node[key])
    return found


def change(tree: Any, rng: Random, make: Any = plain) -> Any:
    """Change one value of a tree in place; returns the tree.

    Replaced, removed, doubled, exchanged with another one, under another name, or in
    a list of many.

    Args:
        make: a function of ``rng`` that makes new values.
    """
    found = places(tree)
    if not found:
        return make(rng)
    holder, key = rng.choice(found)
    match rng.randrange(10):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[word(rng)] = holder.pop(key)
        case 1 | 2 if isinstance(holder, list):
            holder.insert(key, holder[key])
        case 3:
            other, its_key = rng.choice(found)
            try:
                holder[key] = other[its_key]
            except LookupError:
                holder[key] = None
        case 4 if isinstance(holder[key], list):
            holder[key] = (holder[key] or [0]) * rng.choice((2, 100, 3000))
        case 5 if isinstance(holder[key], str):
            holder[key] = _inserted(holder[key], rng)
        case 6 if isinstance(holder[key], int | float):
            holder[key] = number(rng)
        case _:
            holder[key] = make(rng)
    return tree


def _inserted(text: str, rng: Random) -> str:
    place = rng.randrange(len(text) + 1)
    return text[:place] + word(rng) + text[place + rng.randrange(3) :]
