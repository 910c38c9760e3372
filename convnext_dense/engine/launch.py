"""Joins the processes of a run, and reports it when one of them ends.

mmengine joins processes that have GPUs. Without a GPU, this module joins them over
gloo, which mmengine does not do.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_dist_info, init_dist, is_distributed
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed

from convnext_dense.errors import InputError, LostProcessError

# The variables in which each launcher tells a process its rank, the number of
# processes, and its rank on its machine; Slurm's list of machines comes last.
_RANKS = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODELIST"),
    "mpi": (
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
}
# Where the processes meet.
_ADDRESS = {"pytorch": ("MASTER_ADDR", "MASTER_PORT"), "mpi": ("MASTER_ADDR",)}
_START = {
    "pytorch": "torchrun --nproc_per_node=N -m convnext_dense train CONFIG "
    "--launcher pytorch",
    "slurm": "srun ... convnext-dense train CONFIG --launcher slurm, or the clone's "
    "tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR",
    "mpi": "mpirun -n N -x MASTER_ADDR=HOST convnext-dense train CONFIG --launcher mpi",
}
_PEER_ENDED = re.compile(
    r"[Cc]onnection (reset|closed|was likely closed|refused)|[Bb]roken pipe"
    r"|remote process exit|Timed out waiting"
)
_LOADER_ENDED = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited)")


@contextmanager
def joined(cfg: Config) -> Iterator[None]:
    """Join the processes that the launcher of ``cfg`` started; leave them at the end.

    Raises:
        InputError: the launcher did not start this process, or the processes cannot
            reach each other.
        LostProcessError: another process or a data-loader worker has ended.
    """
    launcher = cfg.get("launcher") or "none"
    _check_launcher(launcher)
    joins = launcher != "none" and not is_distributed()
    if joins:
        _join(cfg)
    try:
        yield
    except RuntimeError as error:
        message = _lost_process(error)
        if message:
            raise LostProcessError(message) from error
        raise
    if joins:
        distributed.destroy_process_group()


def _check_launcher(launcher: str) -> None:
    """Raise an InputError unless ``launcher`` has started this process."""
    if launcher == "none":
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1":
            raise InputError(
                f"torchrun has started {os.environ['WORLD_SIZE']} processes, and each "
                "would make a separate run in the same work dir: add --launcher pytorch"
            )
        return
    needed = (*_RANKS[launcher], *_ADDRESS.get(launcher, ()))
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise InputError(
            f"--launcher {launcher}: this launcher did not start the process: the "
            f"environment lacks {', '.join(missing)}. Start with\n  "
            f"{_START[launcher]}\nor leave --launcher out for a single process"
        )


def _join(cfg: Config) -> None:
    """Start torch.distributed, with the GPUs' backend or with gloo."""
    env_cfg = cfg.get("env_cfg") or {}
    dist_cfg = dict(env_cfg.get("dist_cfg") or {})
    if cfg.launcher == "slurm":
        _set_slurm_address(dist_cfg)
    if get_device() != "cpu":
        # mmengine's Runner calls this first; without it, init_dist would choose
        # another start method for processes.
        set_multi_processing(distributed=True, **(env_cfg.get("mp_cfg") or {}))
        init_dist(cfg.launcher, **dist_cfg)
        return
    ranks = (os.environ[name] for name in _RANKS[cfg.launcher])
    os.environ.update(zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), ranks, strict=False))
    address = os.environ["MASTER_ADDR"], os.environ.setdefault("MASTER_PORT", "29500")
    _share_cores()
    options: dict[str, Any] = {}  # PyTorch 2.1 does not take timeout=None
    if "timeout" in dist_cfg:
        options["timeout"] = timedelta(seconds=dist_cfg["timeout"])
    try:
        distributed.init_process_group("gloo", **options)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes could not connect to {':'.join(address)}: "
            f"{_first_sentence(error)}. Set MASTER_ADDR to the machine of the first "
            "process, and MASTER_PORT to a free port of it"
        ) from error


def _set_slurm_address(dist_cfg: dict) -> None:
    """Set MASTER_ADDR to the first machine of a Slurm job, and MASTER_PORT to a port.

    The port depends on the job's number, since several jobs may share a machine.

    Raises:
        InputError: Slurm does not name the machines of the job.
    """
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
            f"--launcher slurm: {' '.join(command)} does not name the job's machines "
            f"({error}); set MASTER_ADDR to the name of the first machine"
        ) from error


def _share_cores() -> None:
    """Give torch this process's share of the cores; torchrun gives it one core."""
    # torchrun sets this variable; the other launchers bind processes to cores.
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    if processes and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        torch.set_num_threads(max(cores // int(processes), 1))
    # If they are not set, mmengine sets them and warns in every process.
    for library in ("OMP", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", str(torch.get_num_threads()))


def _lost_process(error: RuntimeError) -> str | None:
    """The message if ``error`` means that another process has ended; else None."""
    rank, size = get_dist_info()
    prefix = f"rank {rank} of {size}: " if size > 1 else ""
    resume = "Training continues from the last checkpoint with --resume"
    if _LOADER_ENDED.search(str(error)):
        return (
            f"{prefix}a data-loader worker was ended from outside "
            f"({_first_sentence(error)}). If nobody sent it a signal, memory ran out, "
            f"most likely: fewer num_workers need less. {resume}"
        )
    if size > 1 and _PEER_ENDED.search(str(error)):
        return (
            f"{prefix}another process of this run has ended or does not answer, and "
            f"this process cannot continue alone ({_first_sentence(error)}). The "
            "reason is in the other process's output. If there is none, the system "
            "killed the process, most likely because memory ran out (see dmesg, or "
            f"Slurm's sacct). {resume}"
        )
    return None


def _first_sentence(error: Exception) -> str:
    """An error's first sentence, without the place in the source that raised it."""
    line = str(error).strip().split("\n")[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line).split(". ")[0]
