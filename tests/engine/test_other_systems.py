"""Systems that are not Linux, simulated: what they lack is missing in a subprocess."""

import pytest
from mmengine.config import Config

from convnext_dense.engine import machine

from ..helpers.paths import ROOT
from ..helpers.running import shell
from ..helpers.runs import SEG

# What Python's documentation lists as missing on Windows, or there and on macOS.
WITHOUT = """
import builtins, faulthandler, os, signal, sys
sys.modules["fcntl"] = None
for module, names in {
    os: ("sched_getaffinity", "O_NOFOLLOW", "O_NONBLOCK"),
    signal: ("SIGUSR1", "sigwaitinfo", "pthread_sigmask", "SIGKILL"),
    faulthandler: ("register",),
}.items():
    for name in names:
        delattr(module, name)
real_open = builtins.open
def no_proc(file, *args, **kwargs):
    if str(file).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "No such file or directory", file)
    return real_open(file, *args, **kwargs)
builtins.open = no_proc
"""
TRAIN = """
sys.argv = ["convnext-dense", "train", *sys.argv[1:]]
from convnext_dense_cli import main
main()
"""


def test_a_run_and_its_workers_where_linux_is_missing(shapes_root, tmp_path):
    done = shell(
        *("-c", WITHOUT + TRAIN, SEG, "--work-dir", tmp_path / "run"),
        *("--cfg-options", f"data_root={shapes_root}"),
        *("train_cfg.max_iters=1", "train_cfg.val_interval=1"),
        *("train_dataloader.num_workers=1", "val_dataloader.dataset.indices=2"),
        "default_hooks.checkpoint.interval=1",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/iter_1.pth").is_file()
    assert (tmp_path / "run/report.html").is_file()


@pytest.mark.parametrize(
    ("device", "wrapper", "norm"),
    [
        ("cpu", "OptimWrapper", "BN"),
        ("mps", "OptimWrapper", "BN"),
        ("cuda", "AmpOptimWrapper", "SyncBN"),
        ("npu", "AmpOptimWrapper", "SyncBN"),
    ],
)
def test_what_a_device_cannot_do_is_replaced(device, wrapper, norm, monkeypatch):
    """Mixed precision and SyncBN: mmengine and torch have neither on MPS."""
    monkeypatch.setattr(machine, "get_device", lambda: device)
    cfg = Config.fromfile(ROOT / "configs/seg/upernet_convnext_t_ade20k.py")
    machine.fit_to_machine(cfg)
    assert cfg.optim_wrapper.type == wrapper
    assert cfg.model.decode_head.norm_cfg.type == norm
