"""Runs many families in processes with limits of time and memory."""

import contextlib
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from .catalogue import Family
from .step import Result, run

MEMORY = 8 << 30  # bytes that a run may allocate on a CPU


class Job(NamedTuple):
    """A family, as shipped or with ConvNeXt."""

    family: Family
    with_convnext: bool


class _Worker:
    """A process that runs jobs, and the job that it runs now."""

    def __init__(self, device: str, share: float):
        # A forked process has the toolboxes imported. CUDA does not survive a fork.
        method = "fork" if device == "cpu" else "spawn"
        context = multiprocessing.get_context(method)
        self.pipe, pipe = context.Pipe()
        self.process = context.Process(
            target=_work, args=(pipe, device, share), daemon=True
        )
        self.process.start()
        pipe.close()
        self.job: Job | None = None
        self.since = 0.0
        self.jobs = 0

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        self.jobs += 1
        self.pipe.send(job)

    def end(self, seconds: float = 0.2) -> int | None:
        """Kill the process; returns the code with which it ends within ``seconds``."""
        self.process.join(seconds)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return code


def run_all(
    jobs: Sequence[Job], processes: int, device: str, timeout: float, limit: float
) -> Iterator[tuple[Job, Result]]:
    """The result of each job, in the order in which they end.

    Args:
        jobs: what to run, in this order.
        processes: how many run at a time.
        device: "cpu" or "cuda". A CPU process runs one job; a process that uses CUDA
            runs many, because starting CUDA takes seconds.
        timeout: seconds for a job.
        limit: seconds for all; the jobs that are left then are not run.
    """
    end = time.monotonic() + limit
    todo = list(reversed(jobs))
    workers: list[_Worker] = []
    try:
        while todo or workers:
            while todo and len(workers) < processes and time.monotonic() < end:
                workers.append(_Worker(device, 0.9 / processes))
                workers[-1].give(todo.pop())
            ready = wait([worker.pipe for worker in workers], timeout=0.2)
            now = time.monotonic()
            for worker in list(workers):
                job = worker.job
                assert job is not None
                if worker.pipe in ready:
                    try:
                        result = worker.pipe.recv()
                    except (EOFError, ConnectionError):
                        code = worker.end(5)  # CUDA takes a while to end
                        if worker.jobs > 1:  # a run before may have broken CUDA
                            workers.remove(worker)
                            todo.append(job)
                            continue
                        result = Result(False, f"the process ended: {code}")
                elif now > min(end, worker.since + timeout):
                    worker.end()
                    seconds = round(now - worker.since)
                    result = Result(False, f"not ended after {seconds} s")
                else:
                    continue
                yield job, result
                if worker.process.is_alive() and device != "cpu" and todo and now < end:
                    with contextlib.suppress(OSError):  # ended; the next turn sees it
                        worker.give(todo.pop())
                else:
                    with contextlib.suppress(OSError, ValueError):
                        worker.end()
                    workers.remove(worker)
            if not workers and now >= end:
                break
        for job in reversed(todo):
            yield job, Result(False, f"not run: {limit:.0f} s were over")
    finally:
        for worker in workers:
            worker.end()


def import_toolboxes() -> None:
    """Import what models are made of, so that a forked process has it."""
    import_module("convnext_dense")  # before the toolboxes import mmcv.ops
    for name in ("mmdet.datasets", "mmdet.models", "mmseg.models"):
        import_module(name)
    for name in ("mmpretrain.models", "transformers"):
        with contextlib.suppress(ImportError):
            import_module(name)


def _work(pipe: Connection, device: str, share: float) -> None:
    # What toolboxes print would hide the table.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    import_toolboxes()
    import torch

    torch.set_num_threads(1)
    if device == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    else:
        torch.cuda.set_per_process_memory_fraction(share)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        result = run(job.family, job.with_convnext, device)
        pipe.send(result)
        if device != "cpu":
            if not result.works and "CUDA" in result.reason:
                return  # what failed in a kernel fails in each later call
            torch.cuda.empty_cache()
