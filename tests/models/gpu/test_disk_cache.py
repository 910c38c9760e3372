"""The disk cache: several processes, damaged files, folders that cannot be written."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from convnext_dense.models.fused.gpu import disk_cache, nvrtc

from ...helpers.running import shell

SOURCE = 'extern "C" __global__ void fill(float* y) { y[threadIdx.x] = VALUE; }'


@pytest.fixture
def folder(monkeypatch, tmp_path):
    path = tmp_path / "cache"
    monkeypatch.setenv("CONVNEXT_DENSE_CACHE", str(path))
    return path


@pytest.fixture
def compilations(monkeypatch):
    """Replace NVRTC by a function that records its calls; the value is their list."""
    calls = []

    def compile(_, source, defines, architecture):
        calls.append((source, defines, architecture))
        return b"cubin %d" % len(calls)

    monkeypatch.setattr(nvrtc, "_nvrtc", lambda: (None, [13, 0]))
    monkeypatch.setattr(nvrtc, "_compile", compile)
    return calls


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONVNEXT_DENSE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert disk_cache.folder() == tmp_path / "home/.cache/convnext_dense"
    assert disk_cache.folder().is_dir()
    monkeypatch.setenv(
        "XDG_CACHE_HOME", "relative"
    )  # the standard ignores relative paths
    assert disk_cache.folder() == tmp_path / "home/.cache/convnext_dense"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert disk_cache.folder() == tmp_path / "xdg/convnext_dense"
    monkeypatch.setenv("CONVNEXT_DENSE_CACHE", str(tmp_path / "own"))
    assert disk_cache.folder() == tmp_path / "own"


def test_written_data_is_read(folder):
    assert disk_cache.read("a") is None
    disk_cache.write("a", b"one")
    disk_cache.write("a", b"two")
    disk_cache.write("empty", b"")
    assert disk_cache.read("a") == b"two"
    assert disk_cache.read("empty") == b""
    assert sorted(file.name for file in folder.iterdir()) == ["a", "empty"]


@pytest.mark.parametrize("damage", ["empty", "short", "changed", "longer", "foreign"])
def test_damaged_file_is_compiled_again(folder, compilations, damage):
    arguments = SOURCE, {"VALUE": 1}, "sm_90"
    assert nvrtc.compile(*arguments) == nvrtc.compile(*arguments) == b"cubin 1"
    (file,) = folder.iterdir()
    kept = file.read_bytes()
    file.write_bytes(
        dict(
            empty=b"",
            short=kept[:-1],
            changed=kept[:-1] + b"x",
            longer=kept + b"x",
            foreign=b"longer than the head of a file of the cache " * 2,
        )[damage]
    )
    assert nvrtc.compile(*arguments) == b"cubin 2"
    assert nvrtc.compile(*arguments) == b"cubin 2"  # the damaged file was replaced
    assert len(compilations) == 2


def test_the_key_of_a_kernel(folder, compilations, monkeypatch):
    variants = [
        (SOURCE, {"VALUE": 1}, "sm_90"),
        (SOURCE, {"VALUE": 2}, "sm_90"),
        (SOURCE, {"VALUE": 1}, "sm_80"),
        (SOURCE + " ", {"VALUE": 1}, "sm_90"),
    ]
    assert len({nvrtc.compile(*variant) for variant in variants}) == 4
    monkeypatch.setattr(nvrtc, "_nvrtc", lambda: (None, [13, 1]))  # its version
    nvrtc.compile(*variants[0])
    assert len(compilations) == 5


@pytest.mark.parametrize("obstacle", ["file", "below a file", "no home"])
def test_nothing_can_be_written(monkeypatch, tmp_path, compilations, obstacle):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if obstacle == "no home":
        monkeypatch.delenv("CONVNEXT_DENSE_CACHE", raising=False)

        def home():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(disk_cache.Path, "home", home)
    else:
        path = file if obstacle == "file" else file / "below"
        monkeypatch.setenv("CONVNEXT_DENSE_CACHE", str(path))
    assert disk_cache.folder() is None
    assert disk_cache.read("a") is None
    disk_cache.write("a", b"one")
    arguments = SOURCE, {"VALUE": 1}, "sm_90"
    assert [nvrtc.compile(*arguments), nvrtc.compile(*arguments)] == [
        b"cubin 1",
        b"cubin 2",
    ]


def test_full_disk(folder, compilations, monkeypatch):
    def replace(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache.os, "replace", replace)
    assert nvrtc.compile(SOURCE, {"VALUE": 1}, "sm_90") == b"cubin 1"
    assert list(folder.iterdir()) == []


def test_eight_processes_at_once(folder):
    """All write and read the same name; each reads complete data or nothing."""
    code = (
        "import runpy, sys\n"
        "cache = runpy.run_path(sys.argv[1])  # alone: importing torch takes long\n"
        "allowed = {None, *(bytes([65 + i]) * 100_000 for i in range(8))}\n"
        "for _ in range(50):\n"
        "    cache['write']('same', bytes([65 + int(sys.argv[2])]) * 100_000)\n"
        "    assert cache['read']('same') in allowed\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, disk_cache.__file__, str(i)])
        for i in range(8)
    ]
    assert [process.wait() for process in running] == [0] * 8
    assert [file.name for file in folder.iterdir()] == ["same"]
    assert len(disk_cache.read("same")) == 100_000


def test_without_bindings(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(nvrtc.Unavailable, match="Install cuda-bindings"):
        nvrtc.compile(SOURCE, {"VALUE": 1}, "sm_90")


def test_without_nvrtc(monkeypatch):
    def version():
        raise RuntimeError("Failed to dlopen libnvrtc.so.13")

    bindings = types.ModuleType("cuda.bindings")
    bindings.nvrtc = types.SimpleNamespace(nvrtcVersion=version)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    with pytest.raises(nvrtc.Unavailable, match=r"dlopen libnvrtc\.so\.13"):
        nvrtc.compile(SOURCE, {"VALUE": 1}, "sm_90")


def test_compilation(folder):
    try:
        nvrtc._nvrtc()
    except nvrtc.Unavailable as error:
        pytest.skip(str(error))
    cubin = nvrtc.compile(SOURCE, {"VALUE": 1}, "sm_90")
    assert cubin.startswith(b"\x7fELF")
    with pytest.raises(nvrtc.Unavailable, match=r"(?s)sm_90.*VALUE.* undefined"):
        nvrtc.compile(SOURCE, {}, "sm_90")
    with pytest.raises(nvrtc.Unavailable, match="gpu-architecture"):
        nvrtc.compile(SOURCE, {"VALUE": 1}, "sm_1")
    assert nvrtc.compile(SOURCE, {"VALUE": 1}, "sm_90") == cubin


def test_triton_keeps_its_kernels_where_home_cannot_be_written():
    """Triton gets a folder that is deleted with the process, without which it compiles
    nothing."""
    pytest.importorskip("triton")
    code = (
        "import os, pathlib\n"
        "from convnext_dense.models.fused.gpu import compiled\n"
        "compiled._let_triton_keep_kernels()\n"
        "folder = pathlib.Path(os.environ['TRITON_CACHE_DIR'])\n"
        "assert folder.is_dir() and os.access(folder, os.W_OK)\n"
        "print(folder)\n"
    )
    done = shell("-c", code, HOME="/proc/nowhere", TRITON_HOME="")
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.splitlines()[-1]).exists()
