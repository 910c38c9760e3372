"""Puts the data of a resumed run where the checkpoint has it."""

from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from convnext_dense.errors import InputError

from .other_batch import adapt
from .stream import Endless


def global_batch(loader: DataLoader) -> int:
    """Images a step, of all processes.

    If the batch size is not fixed, each process counts as one.
    """
    size = getattr(loader.batch_sampler, "batch_size", None)
    return get_world_size() * (size if isinstance(size, int) else 1)


def restore(runner: Runner, state: dict | None, by_epoch: bool) -> int:
    """Let the data loader begin after the samples that the run has used.

    Args:
        runner: its training data are ``stream.seeded``.
        state: of ``ExactResumeHook`` in the checkpoint; None for a new run, or for a
            checkpoint that was written without the hook.
        by_epoch: whether the run counts epochs.

    Returns:
        The samples used by all processes: in this epoch, or, without epochs, ever.

    Raises:
        InputError: an epoch of this run is too short.
    """
    loop, loader = runner.train_loop, runner.train_dataloader
    batch = global_batch(loader)
    samples = 0 if by_epoch else loop.iter * batch
    if state:
        samples = state["samples"]
        loader.dataset.__dict__["seed"] = state["seed"]
        if state["sampler_seed"] is not None:
            loader.batch_sampler.sampler.inner.seed = state["sampler_seed"]
    batches = samples // batch
    if by_epoch and batches > len(loader):
        raise InputError(
            f"--resume: the checkpoint was written after {samples} images of an epoch, "
            f"and an epoch of this run has {len(loader)} steps of {batch}: the data is "
            "not the same. Use the data with which the run began"
        )
    if not by_epoch:
        loop.fast_forward_on_resume = False
        eager = getattr(loop.dataloader_iterator, "_iterator", None)
        # mmengine's own workers have begun to load.
        if eager is not None and hasattr(eager, "_shutdown_workers"):
            eager._shutdown_workers()
        loop.dataloader_iterator = Endless(loader, batches, loop.iter)
    elif batches:
        loader.batch_sampler.first = batches
        # The loop counts from 0 the batches that the loader yields.
        run_iter = loop.run_iter
        loop.run_iter = lambda index, batch: run_iter(index + batches, batch)
    if state:
        adapt(runner, state["batch"], batch, batches)
    return samples
