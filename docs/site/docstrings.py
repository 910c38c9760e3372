"""A griffe extension: Markdown shows examples and tables of docstrings as written.

Without it, ``>>>`` begins a quotation, and the lines of a table become one paragraph.

https://mkdocstrings.github.io/griffe/guide/users/extending/
"""

import re
from typing import Any

import griffe

REST = r".*(?:\n *\S.*)*"  # of the line, and the lines up to the next empty one
EXAMPLE = re.compile(rf"^( *)>>> {REST}", re.MULTILINE)
# The first line of a paragraph is a word, two spaces or more, and a text.
TABLE = re.compile(rf"(?:\A|(?<=\n\n))( *)\w+  +\w{REST}")


class Preformatted(griffe.Extension):
    """Puts fences around the examples and tables of each docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object of the package."""
        if obj.docstring:
            text = obj.docstring.value.replace("::\n", ":\n")
            text = EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", text)
            obj.docstring.value = TABLE.sub(r"\1```text\n\g<0>\n\1```", text)
