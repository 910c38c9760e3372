"""The documentation site: its pages, what they load, and where their links lead."""

import html
import importlib.util
import inspect
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import convnext_dense
from convnext_dense import checkpoints, commands, errors, ops
from convnext_dense.datasets import shapes
from convnext_dense.engine.exact_resume.hook import ExactResumeHook
from convnext_dense.engine.watch.hook import WatchHook
from convnext_dense.models.archs import resolve_arch
from convnext_dense.optim.layer_decay import layer_of
from convnext_dense.projects.roadmap import ModernizedResNet
from convnext_dense.reports.run.hook import RunReportHook

from .helpers.paths import ROOT

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

DOCUMENTED = {
    "index": [getattr(convnext_dense, name) for name in convnext_dense.__all__],
    "models": [resolve_arch],
    "optim": [layer_of],
    "checkpoints": [getattr(checkpoints, name) for name in checkpoints.__all__],
    "hooks": [ExactResumeHook, WatchHook, RunReportHook],
    "datasets": [shapes.shapes_detection, shapes.shapes_segmentation],
    "errors": [errors.InputError, errors.NotFiniteError],
    "ops": ops.STAND_INS,
    "projects": [ModernizedResNet],
}


class Page(HTMLParser):
    """What a page links to, what it loads, its anchors and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.navigation: set[str] = set()
        self.anchors: set[str] = set()
        self.words: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
            if "md-nav__link" in values.get("class", ""):
                self.navigation.add(values["href"])
        elif tag == "link" and values.get("rel") != "canonical":
            self.loaded.add(values["href"])
        elif "src" in values:
            self.loaded.add(values["src"])

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self) -> str:
        """The text, with one space between words."""
        return " ".join(self.words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site, as ``make site`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture(scope="module")
def pages(folder):
    """The pages by their files. That of error 404 has links for a server."""
    files = set(folder.rglob("*.html")) - {folder / "404.html"}
    return {file: Page(file) for file in files}


@pytest.mark.parametrize("name", commands.names())
def test_a_command_has_its_help(name, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    title = name.replace("_", "-")
    text = (folder / "commands" / f"{title}.html").read_text(encoding="utf-8")
    code = re.search(r"<pre>.*?</pre>", text, re.DOTALL)[0]
    shown = html.unescape(re.sub("<.*?>", "", code))
    parser = commands.parser_of(name, f"convnext-dense {title}")
    assert shown.strip() == parser.format_help().strip()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_public_names_have_their_docstrings(name, folder, pages):
    text = pages[folder / "api" / f"{name}.html"].text
    for thing in DOCUMENTED[name]:
        if callable(thing):
            assert thing.__name__ in text
            title = inspect.getdoc(thing).partition("\n\n")[0]
            assert " ".join(title.replace("``", " ").split()) in text


def test_nothing_is_loaded_from_another_host(pages):
    loaded = {address for page in pages.values() for address in page.loaded}
    assert {"assets/images/favicon.png", "../site.css"} <= loaded
    assert not [address for address in loaded if "//" in address]


def test_links_lead_to_files_and_anchors(pages):
    for file, page in pages.items():
        for link in page.links | page.loaded:
            if re.match("https?:|data:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (file.parent / path).resolve() if path else file
            if target.is_dir():
                target /= "index.html"
            assert target.is_file(), (file, link)
            if anchor:
                assert anchor in pages[target].anchors, (file, link)


def test_the_navigation_has_every_page(folder, pages):
    start = pages[folder / "index.html"]
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.stem}.html" in start.navigation
    for name in ("configs/index", "CHANGELOG", "ARCHITECTURE", "CONTRIBUTING"):
        assert f"{name}.html" in start.navigation
    assert start.navigation >= {f"api/{name}.html" for name in DOCUMENTED}


def test_a_new_page_comes_into_the_navigation():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/site/hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    nav = ["README.md", {"Guide": ["docs/b.md", "docs/*.md", {"Z": "docs/c.md"}]}]
    names = ["README.md", "docs/c.md", "docs/new.md", "docs/b.md"]
    assert hooks.without_patterns(nav, names) == [
        "README.md",
        {"Guide": ["docs/b.md", "docs/new.md", {"Z": "docs/c.md"}]},
    ]


@pytest.mark.parametrize(
    "link", ["nothing.md", "nothing.png", "index.md#nothing", "#nothing", "/index.md"]
)
def test_a_broken_link_stops_the_build(link, tmp_path):
    page = tmp_path / "pages/index.md"
    page.parent.mkdir()
    config = dict(docs_dir=str(page.parent), site_dir=str(tmp_path / "site"))
    config |= dict(strict=True, nav=[page.name], hooks=[], plugins=[], extra_css=[])

    def build_page(text):
        page.write_text(text)
        build(load_config(str(ROOT / "mkdocs.yml"), **config))

    build_page("# Title\n\n[a](#title)\n")
    with pytest.raises(Abort, match="1 warnings"):
        build_page(f"# Title\n\n[a]({link})\n")
