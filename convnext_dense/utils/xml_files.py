"""Reads XML as data: without entities, and in time that grows with its size."""

from xml.etree import ElementTree

from convnext_dense.errors import InputError


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
