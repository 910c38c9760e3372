"""Fit a config to the machine that runs it."""

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from . import launch


def fit_to_machine(cfg: Config) -> None:
    """Replace what needs many processes where there is one, and what needs a GPU
    where there is none; a line says what."""
    many = (cfg.get("launcher") or "none") != "none"
    if not many and "FSDP" in (cfg.get("strategy") or {}).get("type", ""):
        for key in ("runner_type", "strategy"):
            cfg.pop(key, None)
        print_log("one process: FSDP replaced by the whole model", "current")
    if get_device() != "cpu":
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
    if many and launch.fit_to_cpu(cfg):
        replaced.append("NCCL by gloo")
    if replaced:
        print_log(f"no GPU here: {', '.join(replaced)} replaced", "current")


def _replace_type(node, old: str, new: str) -> bool:
    """Whether a ``type`` was replaced anywhere below ``node``."""
    found = False
    if isinstance(node, dict):
        if node.get("type") == old:
            node["type"] = new
            found = True
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            found |= _replace_type(child, old, new)
    return found
