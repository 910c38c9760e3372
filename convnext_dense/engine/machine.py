"""Fits a config to the GPUs and processes that a run has."""

from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log


def fit_to_machine(cfg: Config) -> None:
    """Replace the settings of ``cfg`` that this machine cannot run.

    One process gets the whole model instead of FSDP. On a CPU and on a Mac's GPU (MPS),
    fp32 replaces mixed precision, BN replaces SyncBN, and gloo replaces NCCL: mmengine
    and torch have those for other devices only. A log line names what is replaced.
    """
    many = (cfg.get("launcher") or "none") != "none"
    if not many and "FSDP" in (cfg.get("strategy") or {}).get("type", ""):
        for key in ("runner_type", "strategy"):
            cfg.pop(key, None)
        print_log("one process: FSDP replaced by the whole model", "current")
    device = get_device()
    if device not in ("cpu", "mps"):
        return
    replaced = []
    wrapper = cfg.get("optim_wrapper", {})
    if wrapper.get("type") == "AmpOptimWrapper":
        wrapper.type = "OptimWrapper"
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)
        replaced.append("mixed precision by fp32")
    if _replace_type(cfg.model, "SyncBN", "BN"):
        replaced.append("SyncBN by BN")
    if many and fit_wrapper_to_cpu(cfg):
        replaced.append("NCCL by gloo")
    if replaced:
        where = "no GPU here" if device == "cpu" else "MPS"
        print_log(f"{where}: {', '.join(replaced)} replaced", "current")


def fit_wrapper_to_cpu(cfg: Config) -> bool:
    """Make the wrapper of ``cfg``'s model (DDP or FSDP) work without a GPU.

    Without these settings, mmengine passes the wrapper the GPU of this process's local
    rank.

    Returns:
        Whether ``cfg`` was changed.
    """
    flexible = "runner_type" in cfg  # of the FlexibleRunner
    strategy = dict(cfg.get("strategy") or dict(type="DDPStrategy"))
    if flexible:
        configured = strategy.get("model_wrapper") or {}
    else:
        configured = cfg.get("model_wrapper_cfg") or {}
    if flexible and "FSDP" in strategy["type"]:
        wrapper = dict(configured, device_id="cpu")
    else:
        defaults: dict[str, Any] = dict(
            type="MMDistributedDataParallel", broadcast_buffers=False
        )
        defaults["find_unused_parameters"] = cfg.get("find_unused_parameters", False)
        wrapper = {**defaults, **configured, "device_ids": None}
    if wrapper == configured:
        return False
    if flexible:
        cfg.strategy = dict(strategy, model_wrapper=wrapper)
    else:
        cfg.model_wrapper_cfg = wrapper
    return True


def _replace_type(node: Any, old: str, new: str) -> bool:
    """Replace each ``type`` ``old`` below ``node``; return whether there was one."""
    replaced = False
    if isinstance(node, dict):
        if node.get("type") == old:
            node["type"] = new
            replaced = True
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            replaced |= _replace_type(child, old, new)
    return replaced
