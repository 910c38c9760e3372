"""Only regular files are opened."""

import os
import socket

import pytest

from convnext_dense.errors import InputError
from convnext_dense.utils import files


@pytest.fixture
def make(tmp_path):
    def make(name):
        path = tmp_path / name
        if name == "pipe":
            os.mkfifo(path)
        elif name == "link":
            os.mkfifo(tmp_path / "other")
            path.symlink_to("other")
        elif name == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                os.chdir(tmp_path)  # a socket's path has at most 107 characters
                server.bind(name)
        elif name == "folder":
            path.mkdir()
        elif name == "device":
            return "/dev/zero"
        return path

    before = os.getcwd()
    yield make
    os.chdir(before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe", "is a pipe"),
        ("link", "is a pipe"),
        ("socket", "is a socket"),
        ("device", "/dev/zero is a device"),
        ("folder", "is a folder"),
        ("absent", "No such file"),
        ("nul\0l", "null"),
    ],
)
@pytest.mark.parametrize("function", [files.read_bytes, files.require_regular])
def test_only_regular_files_are_opened(make, function, name, message):
    with pytest.raises(InputError, match=message):
        function(make(name))


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "a").write_text("\ufefftext", "utf-8")
    (tmp_path / "link").symlink_to("a")
    assert files.read_text(tmp_path / "link") == "text"


def test_text_is_utf_8(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(InputError, match="a is not text in UTF-8"):
        files.read_text(tmp_path / "a")
