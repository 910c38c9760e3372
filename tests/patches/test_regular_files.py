"""mmengine refuses pipes and devices instead of waiting for them."""

import os

import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.fileio import LocalBackend

from convnext_dense.errors import InputError
from convnext_dense.patches.regular_files import read_regular_files_only


def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, what in (("pipe.png", "a pipe"), ("zero.png", "a device")):
        file = tmp_path / name
        for read in (
            fileio.get,
            fileio.get_text,
            fileio.list_from_file,
            LocalBackend().get,
            mmcv.imread,
            lambda path: LoadImageFromFile()(dict(img_path=path)),
        ):
            with pytest.raises(InputError, match=rf"{name} is {what}"):
                read(str(file))


def test_files_are_read_as_before(tmp_path):
    file = tmp_path / "ü.txt"
    file.write_text("a\nb", encoding="utf-8")
    (tmp_path / "link.txt").symlink_to(file)
    for path in (file, str(file), tmp_path / "link.txt"):
        assert fileio.get(path) == b"a\nb"
        assert fileio.get_text(path) == "a\nb"
        assert fileio.list_from_file(path) == ["a", "b"]
    for name in ("no.txt", "broken.txt"):
        (tmp_path / "broken.txt").unlink(missing_ok=True)
        (tmp_path / "broken.txt").symlink_to("nowhere")
        with pytest.raises(FileNotFoundError):
            fileio.get(tmp_path / name)
    mmcv.imwrite(np.zeros((4, 5, 3), np.uint8), str(tmp_path / "x.png"))
    assert mmcv.imread(tmp_path / "x.png").shape == (4, 5, 3)


def test_a_second_call_changes_nothing():
    before = LocalBackend.get, LocalBackend.get_text
    read_regular_files_only()
    assert (LocalBackend.get, LocalBackend.get_text) == before
