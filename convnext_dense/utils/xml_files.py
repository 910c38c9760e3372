"""Reads XML as data: without entities, and in time that grows with its size."""

import os
import re
from xml.etree import ElementTree

from convnext_dense.errors import InputError

from .files import read_bytes

_DECLARED = re.compile(rb"""<\?xml[^>]{,100}?encoding=["']([\w.-]{1,40})["']""")


def read_xml(path: str | os.PathLike) -> ElementTree.Element:
    """The outermost element of an XML file.

    Raises:
        InputError: as ``files.read_bytes`` and ``parse_xml``, or the file is neither in
            UTF-8 nor in the encoding that it declares.
    """
    content, source = read_bytes(path), os.fspath(path)
    declared = _DECLARED.match(content)
    for encoding in ("utf-8-sig", declared[1].decode() if declared else "utf-8"):
        try:
            return parse_xml(content.decode(encoding), source)
        except (UnicodeError, LookupError):  # LookupError: no such encoding
            continue
    raise InputError(f"{source} is not text in UTF-8: save it as UTF-8")


def parse_xml(text: str, source: str) -> ElementTree.Element:
    """The outermost element of XML text.

    A document type can define entities, with which a few lines stand for gigabytes or
    for other files. No annotation tool writes one, so it is refused. The text is what
    is parsed, whatever encoding it declares, so that none is hidden in another one.

    Args:
        source: where the text is from, for messages.

    Raises:
        InputError: it is not XML, or has a document type.

    >>> parse_xml("<a><b>1</b></a>", "a.xml").findtext("b")
    '1'
    """
    if "<!DOCTYPE" in text:
        raise InputError(
            f"{source} has a document type (<!DOCTYPE ...>), which annotations do not "
            "need: remove it"
        )
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{source} is not XML: {error}") from error
