"""Hooks of mkdocs: the pages that the documentation site takes from this repository.

The site has the repository's paths: ``README.md``, ``docs/runs.md``,
``configs/README.md``. So a link between two pages is the same here and in a checkout.
Generated are a page for each command, with its ``--help``, and a page for each Python
file that another page links to. Nothing here imports torch or a toolbox.

https://www.mkdocs.org/user-guide/configuration/#hooks
"""

import argparse
import fnmatch
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ("*.md", "docs/*.md", "configs/README.md")
# The path in a link to a file of this repository.
LINK = re.compile(r"(?<=\]\()(?!https?:)[^)\s#]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and what they link to; replace the patterns of the navigation."""
    paths = [path for pattern in PAGES for path in ROOT.glob(pattern)]
    for path in [*paths, *linked_files(paths)]:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py":
            file = File.generated(config, f"{name}.md", content=source_page(name))
        else:
            file = File(name, str(ROOT), config.site_dir, config.use_directory_urls)
        files.append(file)
    for name, parser in command_parsers():
        title = parser.prog.split()[-1]
        text = f"# {title}\n\n```text\n{parser.format_help()}```\n"
        files.append(File.generated(config, f"commands/{name}.md", content=text))
    names = [file.src_uri for file in files.documentation_pages()]
    config.nav = without_patterns(config.nav, names)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links to Python files to their pages."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]  # which would be this page alone
    return LINK.sub(lambda link: re.sub(r"\.py$", ".py.md", link[0]), markdown)


def linked_files(pages: list[Path]) -> set[Path]:
    """The files of this repository that pages link to, without these pages."""
    linked = {
        Path(os.path.normpath(page.parent / link))
        for page in pages
        for link in LINK.findall(page.read_text(encoding="utf-8"))
    }
    return {path for path in linked - set(pages) if path.is_file()}


def source_page(name: str) -> str:
    """A page with the code of a Python file, which the search leaves out."""
    code = (ROOT / name).read_text(encoding="utf-8")
    title = name.rpartition("/")[2]
    return (
        "---\nsearch:\n  exclude: true\n---\n"
        f"# {title}\n\n`{name}`\n\n````python\n{code}````\n"
    )


def command_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser of each command, and as ``index`` that of ``convnext-dense``.

    While the caller has one, help has 80 columns and no colours, which Python 3.14
    gives to the help of a terminal.
    """
    with (
        mock.patch.object(sys, "path", [str(ROOT), *sys.path]),
        mock.patch.object(sys, "argv", ["convnext-dense"]),
        mock.patch.dict(os.environ, COLUMNS="80", NO_COLOR="1"),
    ):
        commands = importlib.import_module("convnext_dense_cli").commands()
        yield "index", commands.whole_parser()
        for name in commands.names():
            title = name.replace("_", "-")
            yield title, commands.parser_of(name, f"convnext-dense {title}")


def without_patterns(nav: list, names: list[str]) -> list:
    """The navigation ``nav``, with pages instead of patterns such as ``docs/*.md``.

    A pattern stands for those of ``names`` that no line of ``nav`` names.
    """
    named = set(_leaves(nav))

    def replaced(entry: str | dict | list) -> list:
        if isinstance(entry, dict):
            (title, value) = next(iter(entry.items()))
            return [{title: replaced(value) if isinstance(value, list) else value}]
        if isinstance(entry, list):
            return [new for old in entry for new in replaced(old)]
        if "*" in entry:
            return sorted(set(fnmatch.filter(names, entry)) - named)
        return [entry]

    return replaced(nav)


def _leaves(nav: str | dict | list) -> Iterator[str]:
    """The paths and patterns of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(entry)
