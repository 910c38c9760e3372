"""Many processes in one run: joining them, and what happens when one of them ends.

Where there are GPUs, mmengine joins them. Without one it does not know how to, and
they meet over gloo.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import (
    get_dist_info,
    init_dist,
    is_distributed,
)
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed

from convnext_dense.errors import InputError, LostProcessError

# Where each launcher tells a process its rank, how many there are, and its rank among
# those of its machine.
TOLD = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODELIST"),
    "mpi": (
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
}
_PLACE = {"pytorch": ("MASTER_ADDR", "MASTER_PORT"), "mpi": ("MASTER_ADDR",)}
_START = {
    "pytorch": "torchrun --nproc_per_node=N tools/train.py CONFIG --launcher pytorch",
    "slurm": "tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR, or srun",
    "mpi": "mpirun -n N -x MASTER_ADDR=HOST tools/train.py CONFIG --launcher mpi",
}
_PEER_ENDED = re.compile(
    r"[Cc]onnection (reset|closed|was likely closed|refused)|[Bb]roken pipe"
    r"|remote process exit|Timed out waiting"
)
_LOADER_ENDED = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited)")


@contextmanager
def joined(cfg: Config) -> Iterator[None]:
    """Be one of the processes that the launcher of ``cfg`` started, until the end.

    Raises:
        InputError: the launcher did not start this process, or they cannot meet.
        LostProcessError: another one has ended, or a data-loader worker.
    """
    launcher = cfg.get("launcher") or "none"
    _check_launcher(launcher)
    joins = launcher != "none" and not is_distributed()
    if joins:
        _join(cfg)
    try:
        yield
    except RuntimeError as error:
        lost = _lost(error)
        if lost:
            raise LostProcessError(lost) from error
        raise
    if joins:
        distributed.destroy_process_group()


def fit_to_cpu(cfg: Config) -> bool:
    """Let the wrappers of ``cfg``'s model take no GPU; return whether they would have.

    mmengine gives them the GPU of this process's number unless something is given.
    """
    flexible = "runner_type" in cfg
    strategy = dict(cfg.get("strategy") or dict(type="DDPStrategy"))
    if flexible:
        given = strategy.get("model_wrapper") or {}
    else:
        given = cfg.get("model_wrapper_cfg") or {}
    if flexible and "FSDP" in strategy["type"]:
        wrapper = dict(given, device_id="cpu")
    else:
        defaults = dict(type="MMDistributedDataParallel", broadcast_buffers=False)
        defaults["find_unused_parameters"] = cfg.get("find_unused_parameters", False)
        wrapper = {**defaults, **given, "device_ids": None}
    if wrapper == given:
        return False
    if flexible:
        cfg.strategy = dict(strategy, model_wrapper=wrapper)
    else:
        cfg.model_wrapper_cfg = wrapper
    return True


def _check_launcher(launcher: str) -> None:
    """Raise an InputError unless ``launcher`` has started this process."""
    if launcher == "none":
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1":
            raise InputError(
                f"torchrun has started {os.environ['WORLD_SIZE']} processes, and each "
                "would be a run of its own, all in one work dir: add --launcher pytorch"
            )
        return
    needed = (*TOLD[launcher], *_PLACE.get(launcher, ()))
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise InputError(
            f"--launcher {launcher}: this process was not started by it, "
            f"{', '.join(missing)} not being in the environment. Start with\n  "
            f"{_START[launcher]}\nor leave --launcher out for a single process"
        )


def _join(cfg: Config) -> None:
    env_cfg = cfg.get("env_cfg") or {}
    dist_cfg = dict(env_cfg.get("dist_cfg") or {})
    if cfg.launcher == "slurm":
        _name_place(dist_cfg)
    if get_device() != "cpu":
        # As mmengine's Runner does first; init_dist would choose another way.
        set_multi_processing(distributed=True, **(env_cfg.get("mp_cfg") or {}))
        init_dist(cfg.launcher, **dist_cfg)
        return
    told = (os.environ[name] for name in TOLD[cfg.launcher])
    os.environ.update(zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), told, strict=False))
    place = os.environ["MASTER_ADDR"], os.environ.setdefault("MASTER_PORT", "29500")
    _share_cores()
    more = {}
    if "timeout" in dist_cfg:
        more["timeout"] = timedelta(seconds=dist_cfg["timeout"])
    try:
        distributed.init_process_group("gloo", **more)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes could not meet at {':'.join(place)}: "
            f"{_first_line(error)}. Is MASTER_PORT free, and MASTER_ADDR the first "
            "one's machine?"
        ) from error


def _name_place(dist_cfg: dict) -> None:
    """Where Slurm's processes meet: on the job's first machine, at a port of the job,
    since jobs share machines."""
    job = int(os.environ.get("SLURM_JOB_ID", 0))
    port = dist_cfg.get("port") or os.environ.get("MASTER_PORT", 20000 + job % 10000)
    os.environ["MASTER_PORT"] = str(port)
    if "MASTER_ADDR" in os.environ:
        return
    command = ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        os.environ["MASTER_ADDR"] = done.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise InputError(
            f"--launcher slurm: {' '.join(command)} does not tell the machines "
            f"({error}); set MASTER_ADDR to the first one's name"
        ) from error


def _share_cores() -> None:
    """Give torch this process's share of the cores; torchrun leaves it one."""
    here = os.environ.get("LOCAL_WORLD_SIZE")  # torchrun's; others bind processes
    if here and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        known = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if known else os.cpu_count()
        torch.set_num_threads(max(cores // int(here), 1))
    # Else mmengine warns in every process that it sets them.
    for library in ("OMP", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", str(torch.get_num_threads()))


def _lost(error: RuntimeError) -> str | None:
    """What to say if ``error`` is of another process having ended."""
    rank, size = get_dist_info()
    who = f"rank {rank} of {size}: " if size > 1 else ""
    go_on = "Training goes on from the last checkpoint with --resume"
    if _LOADER_ENDED.search(str(error)):
        return (
            f"{who}a data-loader worker was ended from outside, mostly for want of "
            f"memory ({_first_line(error)}). Fewer num_workers need less. {go_on}"
        )
    if size > 1 and _PEER_ENDED.search(str(error)):
        return (
            f"{who}another process of this run has ended or does not answer, and this "
            f"one cannot go on alone ({_first_line(error)}). Why, is in the other's "
            "output; if nothing is there, it was killed, mostly for want of memory "
            f"(dmesg tells, or Slurm's sacct). {go_on}"
        )
    return None


def _first_line(error: Exception) -> str:
    """Its first sentence, without the place in somebody's source."""
    line = str(error).strip().split("\n")[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line).split(". ")[0]
