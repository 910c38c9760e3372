"""Outputs replace no input, and no other file unless the user says so."""

import os
import socket
from pathlib import Path

import pytest

from convnext_dense.errors import InputError
from convnext_dense.utils.outputs import Folder, Output, check

READ = "is a file that this command reads"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an input, and other names of it."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.json").write_text("mine")
    Path("link").symlink_to("in/a.json")
    Path("links").symlink_to("in", target_is_directory=True)
    Path("twice").symlink_to("link")
    os.link("in/a.json", "hard")
    return tmp_path


ALIASES = [
    *("in/a.json", "./in//a.json", "in/../in/a.json", "links/a.json", "links/../link"),
    *("link", "twice", "hard", "in/a.json/"),
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("name", ALIASES)
def test_an_input_by_any_name(place, name, absolute, overwrite):
    name = os.path.join(place, name) if absolute else name
    if name.endswith("/"):  # as argparse's type passes it on
        name = Path(name)
    for source in (Path("in/a.json"), Path("link"), place / "hard"):
        with pytest.raises(InputError, match=READ):
            check([Output("--out", name)], [source], overwrite)
    assert Path("in/a.json").read_text() == "mine"


def test_a_file_system_that_ignores_case(place, monkeypatch):
    """Its two names have one inode."""
    plain = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **more: plain(str(path).lower(), **more)
    )
    monkeypatch.chdir("/")
    file = Path("/tmp/convnext_dense_case.json")
    file.touch()
    try:
        with pytest.raises(InputError, match=READ):
            check([Output("--out", str(file).upper())], [file], True)
    finally:
        file.unlink()


def test_a_file_of_an_input_folder(place):
    """It is found by its inode, whatever the output is called."""
    folder = Folder(Path("links"), (".json",))
    Path("in/other").symlink_to(place / "far", target_is_directory=True)
    Path("far").mkdir()
    Path("far/b.json").touch()
    Path("far/up").symlink_to("..", target_is_directory=True)  # a circle
    for name in ("hard", "far/b.json", "in/a.json"):
        with pytest.raises(InputError, match=READ):
            check([Output("--html", name)], [folder], True)
    # A new file there, of a type that is read from there.
    for name in ("in/new.json", "links/sub/new.JSON", "far/up/in/new.json"):
        Path(name).parent.mkdir(exist_ok=True)
        with pytest.raises(InputError, match="reads such files"):
            check([Output("--html", name)], [folder], False)
    check([Output("--html", "in/new.html")], [folder], False)
    check([Output("--html", "new.json")], [folder], False)


def test_an_input_that_does_not_exist_yet(place):
    with pytest.raises(InputError, match=READ):
        check([Output("", "in/model.bin")], ["links/model.bin"], False)


def test_a_folder_to_write_into(place):
    pictures = Folder(Path("links"), (".jpg",))
    out = Output("--show-dir", pictures)
    check([out], ["in/a.json"], False)
    Path("in/a.jpg").touch()
    with pytest.raises(InputError, match=r"links/a.jpg exists already"):
        check([out], ["in/a.json"], False)
    check([out], ["in/a.json"], True)
    with pytest.raises(InputError, match=READ):
        check([out], ["in/a.jpg"], True)
    Path("in/a.jpg").unlink()
    for folder in ("in", "."):
        with pytest.raises(InputError, match=r"links is in .*reads such files"):
            check([out], [Folder(Path(folder), (".jpg", ".png"))], True)
    check([out], [Folder(Path("."), (".png",))], True)


def test_an_existing_file_is_kept_without_overwrite(place):
    Path("a.html").write_text("mine")
    with pytest.raises(InputError, match=r"^--html a\.html exists already: .*--over"):
        check([Output("--html", "a.html")], [], False)
    check([Output("--html", "a.html")], ["link"], True)
    names = ["a.html", "hard", "in/a.json", "a.html"]
    with pytest.raises(InputError, match="and 1 more exist already"):
        check([Output("--html", name) for name in names], [], False)
    check([Output("--html", "b.html"), Output("--json", None)], ["link"], False)


def test_links_and_what_is_no_file(place):
    Path("dangling").symlink_to("nowhere/x")
    os.mkfifo("pipe")
    Path("to pipe").symlink_to("pipe")
    Path("circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    says = {
        "dangling": "is a link to .*nowhere/x, which does not exist: name that file",
        "link": "is a link to .*in/a.json: name that file itself",
        "pipe": "is a pipe, a device or a socket: name a file",
        "to pipe": "is a pipe",
        "socket": "is a pipe, a device or a socket",
        "/dev/null": "is a pipe, a device or a socket",
        "/dev/full": "is a pipe, a device or a socket",
        "in": "is a folder: name a file",
        "circle": "cannot be written: ",
        "in/a.json/x": "in/a.json is a file, not a folder: choose another",
        "n" * 300: "cannot be written: File name too long",
        "nul\0l": "cannot be written: embedded null",
    }
    for name, message in says.items():
        for overwrite in (False, True):
            with pytest.raises(InputError, match=message):
                check([Output("--out", name)], [], overwrite)


def test_two_outputs_of_one_name(place):
    outputs = [Output("--json", "x.svg"), Output("--plot", "links/../x.svg")]
    with pytest.raises(InputError, match="--json and --plot both name"):
        check(outputs, [], True)


def test_a_folder_that_cannot_be_written_to():
    with pytest.raises(InputError, match="nothing can be written into /proc"):
        check([Output("--out", "/proc/x.onnx")], [], True)
