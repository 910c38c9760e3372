"""convnext-dense doctor in healthy and broken environments, and each check alone.

An environment is a venv whose packages are links to those of this environment; some are
left out or replaced.
"""

import ast
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import types
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.utils import ManagerMixin

from convnext_dense.commands.doctor import (
    all_checks,
    kernels,
    libraries,
    machine,
    remedies,
    stack,
    steps,
    subprocess_checks,
)
from convnext_dense.commands.doctor.check import Check
from convnext_dense.commands.doctor.finding import (
    ERROR,
    INFO,
    OK,
    SKIPPED,
    WARNING,
    Finding,
)
from convnext_dense.engine import runner as engine_runner
from convnext_dense.patches import mmcv_ops

from ..helpers.mmengine_state import forget_instances
from ..helpers.paths import ROOT

PACKAGES = Path(np.__file__).parents[1]
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


def look(tmp_path, packages=(), broken=None):
    """Run the doctor in a new environment and an empty folder.

    Args:
        packages: file names in this environment's site-packages to link to.
        broken: files to write into its site-packages, with their contents.

    Returns:
        the exit code, the verdict, and for each name [mark, message, remedy]; the
        second line of a name has the key "name2", and so on.
    """
    venv.create(tmp_path / "venv", symlinks=True)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    for package in packages:
        (site / package).symlink_to(PACKAGES / package)
    for file, content in (broken or {}).items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(content)
    folder = tmp_path / "empty"
    folder.mkdir()
    temporary = Path(tempfile.mkdtemp())  # the path of tmp_path is too long
    environment = {**os.environ, "TMPDIR": str(temporary)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [tmp_path / "venv/bin/python", ROOT / "tools/doctor.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.stderr == ""
    assert not list(folder.iterdir())
    temporary.rmdir()  # fails if something is left
    table, _, verdict = done.stdout.rstrip("\n").rpartition("\n\n")
    lines, name = {}, ""
    for line in table.splitlines():
        if line.startswith(" "):
            lines[name][2] += line.strip() + "\n"
            continue
        mark, name, message = line[:8].strip(), line[9:24].strip(), line[25:]
        name += str(sum(n.startswith(name) for n in lines) + 1) * (name in lines)
        lines[name] = [mark, message, ""]
    for mark, message, remedy in lines.values():
        assert bool(remedy) == (mark in (WARNING, ERROR)), (message, remedy)
    return done.returncode, verdict, lines


def all_packages(*but):
    """File names in site-packages, except those that start with one of ``but``."""
    return [
        path.name
        for path in PACKAGES.iterdir()
        if not path.name.replace("_", "-").lower().startswith(but)
        and path.name != "__pycache__"
    ]


# Replaces yapf, which formats the config of the step several times, in a second each.
UNFORMATTED = {
    "yapf/__init__.py": '__version__ = "0.40"\n',
    "yapf/yapflib/__init__.py": "",
    "yapf/yapflib/yapf_api.py": "def FormatCode(text, **more): return text, True\n",
}


def test_where_one_toolbox_is_training_can_start(tmp_path):
    packages = all_packages("mmdet", "onedl-mmdetection", "yapf")
    code, verdict, lines = look(tmp_path, packages, UNFORMATTED)
    assert (code, verdict) == (0, "Training can start: segmentation.")
    marks = {name: line[0] for name, line in lines.items()}
    for name in ("Python", "numpy", "opencv", "torch", "torchvision", "convnext_dense"):
        assert marks[name] == OK, lines[name]
    assert torch.__version__ in lines["torch"][1]
    gpu = torch.cuda.is_available()
    assert marks["GPU"] == (OK if gpu else WARNING)
    if not gpu:
        assert lines["kernels"] == [INFO, "for GPUs only", ""]
    assert marks["toolboxes2"] == WARNING
    assert "mmdet is not installed: detection cannot train" in lines["toolboxes2"][1]
    assert marks["detection"] == SKIPPED
    assert marks["segmentation"] == OK
    assert "trained a step in fp32" in lines["segmentation"][1]
    assert ("segmentation2" in lines) == gpu  # mixed precision


def test_an_empty_environment(tmp_path):
    code, verdict, lines = look(tmp_path)
    assert code == 1
    assert verdict == (
        "Training cannot start. Errors: toolboxes, numpy, torch. Repair the first, "
        "then run the doctor again."
    )
    assert lines["toolboxes"][1].startswith(
        "none installed; mmengine, mmcv, mmdet, mmseg"
    )
    assert "pip install 'convnext-dense[onedl]'" in lines["toolboxes"][2]
    assert lines["torch"][2] == "-> pip install torch torchvision\n"
    assert lines["GPU"] == [SKIPPED, "needs torch", ""]
    assert lines["detection"] == [SKIPPED, "needs numpy", ""]


def test_both_stacks_and_a_torch_that_crashes(tmp_path):
    both = {
        f"{name}-2.1.0.dist-info/METADATA": f"Name: {name}\nVersion: 2.1.0\n"
        for name in ("onedl_mmcv", "mmdet")
    }
    code, verdict, lines = look(
        tmp_path,
        all_packages("torch", "mm", "onedl"),
        {"torch/__init__.py": f"\n{CRASH}", **both},
    )
    assert code == 1
    assert "Errors: toolboxes, torch." in verdict
    mark, message, remedy = lines["toolboxes"]
    assert mark == ERROR
    assert "onedl-mmcv 2.1.0, mmdet 2.1.0" in message
    assert "pip uninstall -y onedl-mmcv mmdet\n" in remedy
    mark, message, remedy = lines["torch"]
    assert "crashed with SIGSEGV at" in message
    assert "torch/__init__.py:2" in message
    assert "make a new environment" in remedy
    assert lines["opencv"][0] == OK  # later checks run in spite of the crash
    assert lines["segmentation"] == [SKIPPED, "needs torch", ""]


def test_torchvision_of_another_torch_and_opencv_without_libgl(tmp_path):
    code, verdict, lines = look(
        tmp_path,
        all_packages("torchvision", "cv2", "opencv"),
        {
            "torchvision/__init__.py": "raise RuntimeError("
            "'operator torchvision::nms does not exist')",
            "cv2/__init__.py": "raise ImportError('libGL.so.1: cannot open shared "
            "object file: No such file or directory')",
        },
    )
    assert code == 1
    assert "Errors: opencv, torchvision." in verdict
    assert "pip install opencv-python-headless" in lines["opencv"][2]
    assert lines["torch"][0] == OK
    assert "operator torchvision::nms does not exist" in lines["torchvision"][1]
    assert "pip install --force-reinstall torch torchvision" in lines["torchvision"][2]
    assert lines["mmcv ops"] == [SKIPPED, "needs opencv", ""]


def test_detection_trains_a_step(monkeypatch, tmp_path):
    folder = types.SimpleNamespace(mkdtemp=lambda: str(tmp_path))
    monkeypatch.setattr(steps, "tempfile", folder)
    forget_instances(ManagerMixin)
    (finding, *_) = steps.detection()
    assert finding[:2] == (OK, "detection")
    assert "trained a step in fp32" in finding.message
    assert len(list(tmp_path.rglob("epoch_1.pth"))) == 1 + torch.cuda.is_available()


@pytest.mark.parametrize("amp", [False, True])
def test_a_loss_or_a_weight_that_is_not_a_number(monkeypatch, tmp_path, amp):
    loss, model = 1.0, torch.nn.Linear(2, 2)
    hub = types.SimpleNamespace(
        get_scalar=lambda name: types.SimpleNamespace(current=lambda: loss)
    )
    runner = types.SimpleNamespace(train=list, message_hub=hub, model=model)
    monkeypatch.setattr(engine_runner, "build_runner", lambda cfg, mode: runner)
    step = "segmentation", "seg/upernet_convnext_atto_shapes.py", tmp_path, amp
    assert steps._step(*step).mark == OK
    loss = float("nan")
    finding = steps._step(*step)
    assert finding.mark == (WARNING if amp else ERROR)
    assert "the loss is not a finite number" in finding.message
    loss = 1.0
    model.weight.data[0, 0] = float("inf")
    assert "a weight is not a finite number" in steps._step(*step).message


def test_compiled_ops_for_another_torch(monkeypatch, tmp_path):
    import mmcv

    extension = tmp_path / "mmcv/_ext.py"
    extension.parent.mkdir()
    extension.write_text(
        "raise ImportError(__file__ + ': undefined symbol: _ZN3c106detail14torch')"
    )
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(extension.parent)])
    for name in [
        name for name in sys.modules if name.startswith(("mmcv.ops", "mmcv._"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(mmcv, "ops", raising=False)
    (finding,) = Check("mmcv ops", libraries.mmcv_ops).findings()
    assert finding.mark == ERROR
    assert "undefined symbol" in finding.message
    assert "compiled for another torch" in finding.remedy
    assert "pip install mmcv-lite" in finding.remedy


def test_mmcv_ops_compiled_or_not(monkeypatch):
    from mmcv.ops import nms  # noqa: F401  (it imports mmcv._ext)

    if sys.modules["mmcv._ext"].__spec__.origin == mmcv_ops.__file__:
        (finding,) = libraries.mmcv_ops()
        assert finding.mark == INFO
        assert "PyTorch: nms, softnms, nms_match, nms_rotated," in finding.message
        assert "deform_conv, modulated_deform_conv, masked_im2col" in finding.message
    compiled = types.ModuleType("mmcv._ext")
    compiled.__spec__ = types.SimpleNamespace(origin="/mmcv/_ext.so")
    monkeypatch.setitem(sys.modules, "mmcv._ext", compiled)
    (finding,) = libraries.mmcv_ops()
    assert finding.mark == OK
    assert finding.message.startswith("compiled, CUDA: ")


class Gpu:
    """Replaces the functions of torch.cuda that the doctor calls: two GPUs."""

    name, total_memory, major, minor = "Card", 24e9, 8, 9
    multi_processor_count = 58

    def __init__(self, monkeypatch, usable=True):
        for attribute, value in dict(
            is_available=usable,
            device_count=2,
            get_device_properties=self,
            get_arch_list=["sm_70", "sm_80"],
        ).items():
            answer = lambda *_, value=value: value  # noqa: E731
            monkeypatch.setattr(torch.cuda, attribute, answer)
        monkeypatch.setattr(libraries, "_nvidia_smi", lambda: ["Card, 550.54"])


def test_gpu(monkeypatch):
    Gpu(monkeypatch)
    monkeypatch.setattr(libraries, "_compute", lambda torch, device: None)
    (finding,) = libraries.gpu()
    assert finding == (
        OK,
        "GPU",
        "2 x Card, 24 GB, compute capability 8.9, driver 550.54",
        "",
    )

    def fail(torch, device):
        if device == "cuda:1":
            raise RuntimeError("CUDA error: no kernel image is available for execution")

    monkeypatch.setattr(libraries, "_compute", fail)
    (finding,) = libraries.gpu()
    assert finding.mark == ERROR
    assert "GPU 1 fails to compute" in finding.message
    assert "built for sm_70, sm_80" in finding.message
    assert "not built for this GPU's compute capability" in finding.remedy
    assert "CUDA_VISIBLE_DEVICES=" in finding.remedy


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    Gpu(monkeypatch, usable=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    (finding,) = libraries.gpu()
    assert finding.mark == WARNING
    assert "torch cannot use the GPU (Card, 550.54)" in finding.message
    assert "update NVIDIA's driver" in finding.remedy
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = libraries.gpu()
    assert "unset CUDA_VISIBLE_DEVICES" in finding.remedy
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = libraries.gpu()
    assert "built without CUDA" in finding.remedy
    monkeypatch.setattr(libraries, "_nvidia_smi", list)
    (finding,) = libraries.gpu()
    assert finding.message.startswith("no GPU")


@pytest.fixture
def card(monkeypatch, tmp_path):
    """Two simulated GPUs, an empty folder for kernels, and no way forced."""
    pytest.importorskip("triton")
    from convnext_dense.models.fused.gpu import device, ways

    monkeypatch.delenv("CONVNEXT_DENSE_GPU", raising=False)
    monkeypatch.setenv("CONVNEXT_DENSE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(torch.version, "hip", None)
    cached = device.device_of, ways._file
    for function in cached:
        function.cache_clear()
    yield Gpu(monkeypatch)
    for function in cached:
        function.cache_clear()


def compiles(monkeypatch, error=None):
    """Let NVRTC compile everything, or raise ``error``."""
    from convnext_dense.models.fused.gpu import depthwise_cuda

    def compile(width, half, architecture):
        if error:
            raise error
        assert architecture == "sm_89"

    monkeypatch.setattr(depthwise_cuda, "weight_gradient", compile)


def test_the_way_on_each_gpu(card, monkeypatch, tmp_path):
    compiles(monkeypatch)
    taken, kept = kernels.kernels()
    assert taken == (
        OK,
        "kernels",
        "tensor cores in fp16 and bf16, Triton in fp32 (2 x Card, compute capability "
        "8.9)",
        "",
    )
    assert kept[:3] == (OK, "kernels", f"0 compiled kernels in {tmp_path / 'kept'}")
    (tmp_path / "kept" / "0123.cubin").touch()
    assert list(kernels.kernels())[-1].message.startswith("1 compiled kernels in")


def test_an_older_gpu(card):
    card.major, card.minor = 7, 5
    taken, _ = kernels.kernels()
    assert taken[:3] == (
        OK,
        "kernels",
        "Triton in fp32 and fp16, plain PyTorch in bf16 (2 x Card, compute capability "
        "7.5): bf16 needs compute capability 8.0",
    )


def test_a_gpu_too_old_for_kernels(card):
    card.major, card.minor = 6, 1
    taken, _ = kernels.kernels()
    assert taken == (
        INFO,
        "kernels",
        "plain PyTorch (2 x Card, compute capability 6.1): compute capability 6.1 is "
        "below 7.5",
        "",
    )


def test_cuda_kernels_that_cannot_be_compiled(card, monkeypatch):
    from convnext_dense.models.fused.gpu.nvrtc import Unavailable

    compiles(monkeypatch, Unavailable("NVRTC or its Python bindings are missing"))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    taken, _ = kernels.kernels()
    assert taken.mark == WARNING
    assert taken.message == (
        "Triton (2 x Card, compute capability 8.9): NVRTC or its Python bindings are "
        "missing"
    )
    assert "pip install 'cuda-bindings~=12.8'" in taken.remedy


@pytest.mark.parametrize(
    ("way", "summary"),
    [
        ("tensor_cores", "tensor cores in fp16 and bf16, plain PyTorch in fp32"),
        ("triton", "Triton"),
        ("plain", "plain PyTorch"),
    ],
)
def test_a_way_that_is_forced(card, monkeypatch, way, summary):
    compiles(monkeypatch)
    monkeypatch.setenv("CONVNEXT_DENSE_GPU", way)
    taken, _ = kernels.kernels()
    assert taken.mark == WARNING
    assert taken.message == (
        f"{summary} (2 x Card, compute capability 8.9): CONVNEXT_DENSE_GPU={way} is set"
    )
    assert taken.remedy.startswith("unset CONVNEXT_DENSE_GPU")


def test_a_way_that_does_not_exist(card, monkeypatch):
    monkeypatch.setenv("CONVNEXT_DENSE_GPU", "cudnn")
    (finding,) = kernels.kernels()
    assert finding.mark == ERROR
    assert "CONVNEXT_DENSE_GPU=cudnn" in finding.message
    assert finding.remedy == "unset CONVNEXT_DENSE_GPU"


def test_kernels_that_cannot_be_kept(card, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVNEXT_DENSE_CACHE", str(tmp_path / "file"))
    compiles(monkeypatch)
    _, kept = kernels.kernels()
    assert kept.mark == WARNING
    assert "cannot be cached" in kept.message
    assert "export CONVNEXT_DENSE_CACHE=" in kept.remedy


def test_times_that_were_measured(card, monkeypatch):
    from convnext_dense.models.fused.gpu import ways

    compiles(monkeypatch)
    for key, pair in {"a": [1.0, 4.0], "b": [3.0, 2.0], "c": None}.items():
        ways._remember(0, key, pair)
    _, measured, _ = kernels.kernels()
    assert measured[:3] == (
        INFO,
        "kernels",
        "stages timed on this GPU: 2; kernels take 0.25 to 1.50 of plain PyTorch's "
        "time; plain PyTorch is used for 1",
    )


def test_a_gpu_without_triton(monkeypatch):
    Gpu(monkeypatch)
    monkeypatch.setitem(sys.modules, "triton", None)
    (finding,) = kernels.kernels()
    assert finding.mark == WARNING
    assert finding.message == "plain PyTorch: Triton is not installed"
    assert "triton" in finding.remedy


def test_computing_is_checked():
    libraries._compute(torch, "cpu")
    libraries._check_nms(lambda boxes, scores, threshold: torch.tensor([0]))
    with pytest.raises(RuntimeError, match=r"kept boxes \[0, 1\], not \[0\]"):
        libraries._check_nms(lambda boxes, scores, threshold: torch.tensor([0, 1]))


def test_torch_compiled_for_another_numpy(monkeypatch):
    def fail(array):
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr(torch, "from_numpy", fail)
    fine, finding = Check("torch", libraries.torch).findings()
    assert (fine.mark, finding.mark) == (OK, ERROR)
    assert "pip install 'numpy<2'" in finding.remedy


# Messages as these libraries print them.
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("/s/torchvision/_C.so: undefined symbol: _ZN3c10", "of different builds"),
        ("nms_forward miss in module _ext", "for another torch"),
        ("nms_impl: implementation for device cuda:0 not found.", "without CUDA"),
        (
            "MMCV==2.2.0 is used but incompatible. Please install",
            "this version of mmcv",
        ),
        ("numpy.dtype size changed, may indicate binary", "'numpy<2'"),
        ("A module that was compiled using NumPy 1.x cannot be run", "'numpy<2'"),
        ("libgthread-2.0.so.0: cannot open shared object file", "headless"),
        ("/lib/libstdc++.so.6: version `GLIBCXX_3.4.29' not found", "libstdcxx-ng"),
        ("/lib/libc.so.6: version `GLIBC_2.34' not found", "newer system"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "nvidia-smi"),
        ("DefaultCPUAllocator: can't allocate memory", "end other programs"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error", "--shm-size"),
        ("[Errno 28] No space left on device", "free space"),
        ("[Errno 24] Too many open files", "ulimit -n"),
        ("triton/_C/libtriton.so: undefined symbol: _ZN4llvm", "install triton"),
        ("libcudart.so.11.0: cannot open shared object file", "LD_LIBRARY_PATH"),
        ("something new", "open an issue"),
    ],
)
def test_remedies(error, remedy):
    assert remedy in remedies.remedy_of(RuntimeError(error))
    assert remedy in remedies.remedy_of(f"noise\n{error}\nnoise")


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("ftfy", "pip install ftfy"),
        ("cv2", "pip install opencv-python-headless"),
        ("mmcv", remedies.FRESH),
    ],
)
def test_remedy_of_a_missing_module(module, remedy):
    error = ModuleNotFoundError(f"No module named '{module}'", name=module)
    assert remedies.remedy_of(error) == remedy
    inner = ModuleNotFoundError("No module named 'scipy.x'", name="scipy.x")
    assert remedies.remedy_of(inner).startswith("scipy is incomplete")


def test_the_first_cause_is_described_with_its_place():
    def fail():
        try:
            import nothing_of_that_name  # noqa: F401
        except ImportError as error:
            raise RuntimeError("a toolbox failed") from error

    with pytest.raises(RuntimeError) as raised:
        fail()
    assert remedies.remedy_of(raised.value) == "pip install nothing_of_that_name"
    description = remedies.describe(raised.value)
    assert description.startswith(
        "RuntimeError: a toolbox failed, because of ModuleNotFound"
    )
    assert "test_doctor.py:" in description


def installed(monkeypatch, folder, distributions, modules, requires=()):
    """The findings of stack.toolboxes if only these were installed.

    Args:
        distributions: name -> version.
        modules: those that can be imported.
        requires: requirements of convnext_dense.
    """
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    for name, version in {**distributions, "convnext_dense": "1"}.items():
        about = folder / f"{name.replace('-', '_')}-{version}.dist-info/METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if name == "convnext_dense":
            about.write_text(about.read_text() + needs)
    monkeypatch.setattr(stack, "is_installed", lambda module: module in modules)
    monkeypatch.setattr(sys, "path", [str(folder)])
    findings = list(stack.toolboxes())
    monkeypatch.undo()
    return findings


MODULES = ("mmengine", "mmcv", "mmdet", "mmseg")
CLASSIC = {
    "mmengine": "0.10.7",
    "mmcv-lite": "2.1.0",
    "mmdet": "3.3.0",
    "mmsegmentation": "1.2.2",
}


def test_the_classic_stack(monkeypatch, tmp_path):
    (finding,) = installed(monkeypatch, tmp_path, CLASSIC, MODULES)
    assert finding.mark == OK
    assert finding.message == (
        "classic stack: mmengine 0.10.7, mmcv-lite 2.1.0, mmdet 3.3.0, "
        "mmsegmentation 1.2.2"
    )


def test_toolboxes_from_folders(monkeypatch, tmp_path):
    (finding,) = installed(monkeypatch, tmp_path, {}, MODULES)
    assert finding.mark == INFO


def test_no_mmcv_and_no_toolbox(monkeypatch, tmp_path):
    (finding,) = installed(monkeypatch, tmp_path, {"mmdet": "3.3.0"}, ("mmengine",))
    assert finding.mark == ERROR
    assert "mmcv, mmdet, mmseg cannot be imported" in finding.message
    assert ".[openmmlab]" in finding.remedy


def test_a_version_outside_the_range_and_mmcv_twice(monkeypatch, tmp_path):
    pytest.importorskip("packaging")
    has = {**CLASSIC, "mmcv": "2.0.0", "mmdet": "2.28.2"}
    fine, twice, old = installed(
        monkeypatch,
        tmp_path,
        has,
        MODULES,
        [
            'mmdet<4,>=3.3; extra == "openmmlab"',
            'mmcv-lite<2.2,>=2.0.1; extra == "openmmlab"',
        ],
    )
    assert (fine.mark, twice.mark, old.mark) == (OK, WARNING, WARNING)
    assert "mmcv-lite and mmcv both provide mmcv" in twice.message
    assert old.message == "mmdet 2.28.2 is not a tested version (<4,>=3.3)"
    assert "pip install 'mmdet<4,>=3.3'" in old.remedy


def usage(free):
    return lambda path: types.SimpleNamespace(total=100e9, free=free)


def test_disk(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", usage(5.1e9))
    assert {finding.mark for finding in machine.disk()} == {OK}
    monkeypatch.setattr(shutil, "disk_usage", usage(4.9e9))
    finding, *_ = machine.disk()
    assert finding.mark == WARNING
    assert "--work-dir" in finding.remedy
    (tmp_path / "work_dirs").mkdir()
    finding, *_ = machine.disk()
    assert finding.message.endswith("work_dirs")
    assert not list((tmp_path / "work_dirs").iterdir())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    finding, *_ = machine.disk()
    assert finding.mark == ERROR
    assert "No space left on device" in finding.message
    monkeypatch.setattr(tempfile, "gettempdir", full)
    _, finding = machine.disk()
    assert finding[:2] == (ERROR, "temporary")


def test_too_long_a_path_for_sockets(monkeypatch, tmp_path):
    long = tmp_path / ("long" * 15)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    findings = [finding for finding in machine.disk() if finding.name == "temporary"]
    assert findings[0].mark == ERROR
    assert "TMPDIR=/tmp" in findings[0].remedy
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert ERROR not in {finding.mark for finding in machine.disk()}


def test_shared_memory_of_docker(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", usage(64e6))
    for finding in machine.shared_memory():  # none but on Linux
        assert finding.mark == WARNING
        assert "--shm-size" in finding.remedy


@pytest.mark.parametrize(
    ("limit", "mark"), [(256, WARNING), (1024, OK), (resource.RLIM_INFINITY, OK)]
)
def test_open_files(monkeypatch, limit, mark):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (limit, limit))
    (finding,) = machine.open_files()
    assert finding.mark == mark


@pytest.mark.parametrize(
    ("version", "mark"),
    [((3, 9, 18), ERROR), ((3, 10, 0), OK), ((3, 13, 5), OK), ((3, 14, 0), WARNING)],
)
def test_python(monkeypatch, version, mark):
    monkeypatch.setattr(sys, "version_info", version)
    (finding,) = machine.python()
    assert finding.mark == mark
    assert bool(finding.remedy) == (mark != OK)


def test_memory_of_a_container(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8000000 kB\n",
        "/sys/fs/cgroup/memory.max": "3000000000\n",
        "/sys/fs/cgroup/memory.current": "1000000000\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self: files[str(self)])
    (finding,) = machine.memory()
    assert finding[:3] == (WARNING, "memory", "2.0 GB free")
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    (finding,) = machine.memory()
    assert finding[:3] == (OK, "memory", "8.2 GB free")


def run_code(code, *names, **environment):
    command = [sys.executable, "-c", f"PREFIX = {subprocess_checks.PREFIX!r}\n{code}"]
    return list(subprocess_checks.run(command, names, None))


def say(*words):
    return f"print(PREFIX + {json.dumps(json.dumps(words))}, flush=True)\n"


def test_a_process_that_ends_early_is_an_error():
    fine = [OK, "torch", "2", ""]
    output = say("torch") + say("torch", *fine) + say("GPU")
    first, last = run_code(
        f"{output}print('noise')\nraise SystemExit(0)", "torch", "GPU"
    )
    assert first == ("torch", Finding(*fine))
    assert last[0] == "GPU"
    assert last[1].mark == ERROR
    assert last[1].message == "crashed with exit code 0; its last output: noise"
    ((name, finding),) = run_code("import sys; sys.exit('no Python here')", "torch")
    assert (name, finding.mark) == ("torch", ERROR)
    assert "no Python here" in finding.message
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    ((_, finding),) = run_code(kill, "torch")
    assert "SIGKILL" in finding.message
    assert "memory is full" in finding.remedy


def test_a_process_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(subprocess_checks, "SECONDS", 0.5)
    hangs = "print('waiting', flush=True); import time; time.sleep(60)"
    ((name, finding),) = run_code(say("GPU") + hangs, "GPU")
    assert (name, finding.mark) == ("GPU", ERROR)
    assert "its last output: waiting" in finding.message
    assert "run this again" in finding.remedy
    ((_, finding),) = run_code(hangs.replace("waiting", "AF_UNIX path too long"), "GPU")
    assert finding.message.startswith("no result within 0.5 s")
    assert "TMPDIR" in finding.remedy


def test_bytes_of_other_encodings_do_no_harm():
    binary = (
        "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.stdout.flush()\n"
    )
    assert run_code(binary + say(subprocess_checks.END), "torch") == []


def examine(monkeypatch, capsys, marks):
    """Run the doctor with checks that find these marks, and OK for all others."""
    asked = []

    def run(command, names, folder):
        asked.append(names)
        for name in names:
            mark = marks.get(name, OK)
            yield name, Finding(mark, name, "message", "remedy" if mark != OK else "")
            if mark == ERROR:
                return

    monkeypatch.setattr(subprocess_checks, "run", run)
    check_disk = lambda: [Finding(marks.get("disk", OK), "disk", "message")]  # noqa: E731
    monkeypatch.setattr(all_checks, "STANDARD_LIBRARY", [Check("disk", check_disk)])
    healthy = all_checks.run_all([])
    *table, verdict = capsys.readouterr().out.splitlines()
    return healthy, verdict, table, asked


def test_verdicts(monkeypatch, capsys):
    can, cannot = "Training can start: ", "Training cannot start. Errors: "
    healthy, verdict, _, asked = examine(monkeypatch, capsys, {"GPU": WARNING})
    assert (healthy, verdict) == (True, can + "detection and segmentation.")
    assert len(asked) == 1  # torch is imported once
    healthy, verdict, _, asked = examine(monkeypatch, capsys, {"detection": ERROR})
    assert (healthy, verdict) == (
        True,
        can + "segmentation. But detection fails: see its line.",
    )
    assert asked[1] == ["segmentation"]
    marks = {"detection": ERROR, "segmentation": ERROR}
    healthy, verdict, *_ = examine(monkeypatch, capsys, marks)
    assert not healthy
    assert verdict.startswith(cannot + "detection, segmentation.")
    healthy, verdict, *_ = examine(monkeypatch, capsys, {"disk": ERROR})
    assert (healthy, verdict) == (False, cannot + "disk.")
    healthy, verdict, table, asked = examine(monkeypatch, capsys, {"torch": ERROR})
    assert (healthy, verdict) == (False, cannot + "torch.")
    assert len(asked) == 1  # nothing is left to look at
    skipped = [line.split()[1] for line in table if line.startswith(SKIPPED)]
    assert skipped[0] == "GPU"
    assert skipped[-2:] == ["detection", "segmentation"]


def test_what_a_missing_module_skips():
    check = Check("x", list, ("a",), ("no_such_module",))
    assert check.obstacle({}) == "no_such_module is not installed"
    assert check.obstacle({"a": {OK, ERROR}}) == "needs a"
    assert check.obstacle({"a": {SKIPPED}}) == "needs a"
    assert not stack.is_installed("torch.no_such.module")


def test_the_doctor_itself_needs_little():
    """It compiles in an old Python and imports only the standard library at the top."""
    files = sorted((ROOT / "convnext_dense/commands/doctor").glob("*.py"))
    assert len(files) > 5
    scripts = ("tools/doctor.py", "tools/_command.py", "convnext_dense_cli.py")
    for file in [*files, *(ROOT / script for script in scripts)]:
        tree = ast.parse(file.read_text(), feature_version=(3, 8))
        for node in tree.body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                starts = ("_command", "convnext_dense_cli", "convnext_dense_startup")
                assert top in {*sys.stdlib_module_names, *starts}, file
