"""Finds fonts of the machine in which the names of classes are drawn.

Matplotlib's own font, DejaVu Sans, has Latin, Greek, Cyrillic, Arabic and some more.
For other characters matplotlib draws boxes and warns of each, unless it gets a list of
fonts: then it takes each character from the first font that has it
(matplotlib.org/stable/users/explain/text/fonts.html, "Font fallback").
"""

import contextlib
import functools
import logging
import operator
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator

from mmengine.logging import print_log

from convnext_dense.utils.text import few

DEFAULT = "sans-serif"

# Families with many characters, in the order in which they are tried first.
_PREFERRED = ("noto sans", "source han sans", "wenquanyi", "droid sans fallback")
# In the names of fonts of which matplotlib draws nothing, or a box for each character.
_USELESS = ("color emoji", "last resort")

# The packages of Debian and Ubuntu that have a script, by the first word of the
# characters' names in Unicode; OTHERS has nearly every other one.
_CJK = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH")
_PACKAGES = {**dict.fromkeys(_CJK, "fonts-noto-cjk"), "emoji": "fonts-symbola"}
_OTHERS = "fonts-noto-core"


def families(names: Iterable[str]) -> list[str]:
    """The font families that names need, for matplotlib's ``font.family``.

    If no font of the machine has a character, one line says so, once.

    Args:
        names: as they are drawn.
    """
    needed = {
        character
        for name in names
        if not name.isascii()
        for character in name
        if not character.isascii() and unicodedata.category(character) != "Cf"
    }
    with without_warnings():
        chosen, missing = _choose(frozenset(needed))
    if missing:
        _say(missing)
    return chosen


@contextlib.contextmanager
def drawn_with(names: Iterable[str]) -> Iterator[None]:
    """A context to draw and save matplotlib's figures in, with fonts for ``names``.

    Matplotlib's warnings of missing characters are not shown: ``families`` prints a
    line.
    """
    import matplotlib  # slow to import, here and below

    with matplotlib.rc_context({"font.family": families(names)}), without_warnings():
        yield


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """A context in which matplotlib does not warn of missing glyphs and weights."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"(?s)Glyph \d+ .*missing from")
            warnings.filterwarnings("ignore", "Matplotlib currently does not support")
            yield
    finally:
        logger.setLevel(level)


@functools.cache
def _choose(needed: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """The families for some characters, and those that no font has."""
    chosen, missing = [DEFAULT], needed - _characters(DEFAULT)
    tried: set[str] = set()
    # The second time with fonts that were installed after matplotlib listed them.
    for search in (_listed, _found_now):
        if not missing:
            break
        for family in search():
            if family in tried or not missing:
                continue
            tried.add(family)
            if missing & (characters := _characters(family)):
                chosen.append(family)
                missing -= characters
    return chosen, missing


def _listed() -> list[str]:
    """The families that matplotlib has listed, the most useful ones first."""
    from matplotlib import font_manager

    names = {entry.name for entry in font_manager.fontManager.ttflist}

    def order(name: str) -> tuple:
        places = [name.lower().startswith(start) for start in _PREFERRED]
        return not any(places), *map(operator.not_, places), name

    useful = (n for n in names if not any(u in n.lower() for u in _USELESS))
    return sorted(useful, key=order)


def _found_now() -> list[str]:
    """``_listed``, after a look at the machine's fonts.

    Matplotlib keeps its list in a file, and does not see fonts installed later.
    """
    from matplotlib import font_manager

    manager = font_manager.fontManager
    listed = {str(entry.fname) for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in listed:
            with contextlib.suppress(Exception):  # such as a damaged font
                manager.addfont(path)
    return _listed()


@functools.cache
def _characters(family: str) -> frozenset[str]:
    """The characters of the font that matplotlib takes for a family."""
    from matplotlib import font_manager

    try:
        properties = font_manager.FontProperties(family=[family])
        path = font_manager.findfont(properties, fallback_to_default=False)
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except Exception:  # such as a damaged font; FreeType raises errors of many types
        return frozenset()


def _script(character: str) -> str:
    """The script of a character, such as 'CJK' or 'THAI'."""
    if unicodedata.category(character) == "So":
        return "emoji"
    return unicodedata.name(character, "UNNAMED").split(" ")[0].split("-")[0]


@functools.cache
def _say(missing: frozenset[str]) -> None:
    """Print which characters no font has, and what to install."""
    scripts = sorted(set(map(_script, missing)))
    packages = sorted({_PACKAGES.get(script, _OTHERS) for script in scripts})
    print_log(
        f"no font of this machine has {_counted(missing)} ({few(scripts)}): pictures "
        f"show boxes for them, and other files have the names as they are. Install "
        f"fonts (Debian, Ubuntu: {' '.join(packages)}), or put a font file into "
        "~/.local/share/fonts",
        "current",
    )


def _counted(characters: Collection[str]) -> str:
    """Characters as text: 'the characters a, b'."""
    return f"the character{'s' * (len(characters) > 1)} {few(sorted(characters))}"
