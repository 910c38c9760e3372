"""Makes each training sample a function of the seed and of its position.

A resumed run must use the same images, with the same augmentations, as a run without
a stop. Data-loader workers draw augmentations from their own generators, whose states
are lost with the workers, and the number of draws depends on the number of workers.
So here the random numbers of a sample depend only on its position: the seed, the
epoch, and the sample's number in the stream of all processes together. The numbers of
workers and processes do not matter, and to resume is to start at a later position.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Dataset, Sampler

from .random_states import drawn_from


def _of_inner(outer: Any, name: str) -> Any:
    """An attribute of the object that ``outer`` wraps.

    Raises:
        AttributeError: the name begins with two underscores. Python and torch look such
            methods up to copy an object or to fetch a whole batch; the wrapper does not
            have them.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(outer.__dict__["inner"], name)


class Place(int):
    """An index into a data set, with the position of the sample in the stream.

    Attributes:
        key: the epoch, and the sample's number in the stream of all processes.

    >>> Place(7, (0, 3)) == 7, Place(7, (0, 3)).key
    (True, (0, 3))
    """

    key: tuple[int, int]

    def __new__(cls, index: int, key: tuple[int, int]) -> "Place":
        self = super().__new__(cls, index)
        self.key = key
        return self

    def __getnewargs__(self) -> Any:  # pickled for workers
        return int(self), self.key


class Placed(Sampler):
    """A sampler that yields the indices of another sampler as ``Place``s.

    All other attributes are those of the other sampler.
    """

    def __init__(self, sampler: Any) -> None:
        self.inner = sampler

    def __iter__(self) -> Iterator[Place]:
        rank, world_size = get_dist_info()
        epoch = getattr(self.inner, "epoch", 0)
        for turn, index in enumerate(self.inner):
            yield Place(index, (epoch, turn * world_size + rank))

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        return _of_inner(self, name)


class Batches(Sampler):
    """The batches of a batch sampler; the next iteration starts at batch ``first``.

    All other attributes are those of the batch sampler.
    """

    def __init__(self, batch_sampler: Any) -> None:
        self.inner = batch_sampler
        self.first = 0

    def __iter__(self) -> Iterator[list[Place]]:
        first, self.first = self.first, 0
        for number, batch in enumerate(self.inner):
            if number >= first:
                yield batch

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        return _of_inner(self, name)


class Seeded(Dataset):
    """A data set whose transforms draw random numbers that depend on the ``Place``.

    Reading and setting of other attributes act on the data set inside.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.__dict__.update(inner=dataset, seed=seed)

    def __getitem__(self, place: int) -> Any:
        if not isinstance(place, Place):  # not asked for by the data loader
            return self.inner[place]
        with drawn_from(self.__dict__["seed"], *place.key):
            return self.inner[int(place)]

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        return _of_inner(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)


def start_worker(init_fn: Callable | None, number: int) -> None:
    """Initialize a data-loader worker so that only the run itself can end it.

    Slurm and Ctrl-C signal all processes of a run at once, but the run still needs the
    batches that its workers hold.

    Args:
        init_fn: the loader's own ``worker_init_fn``.
        number: of the worker.
    """
    signal.set_wakeup_fd(-1)  # it is the run's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_run, daemon=True).start()
    if init_fn:
        init_fn(number)


def _end_with_the_run() -> None:
    """Wait for the parent's SIGTERM, then end this worker."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def seeded(loader: DataLoader, seed: int) -> DataLoader:
    """A copy of ``loader`` whose samples depend on ``seed`` and position alone.

    Returns:
        A loader over a ``Seeded`` data set, with ``Batches`` as its batch sampler.
    """
    batches = cast(Any, loader.batch_sampler)
    batches.sampler = Placed(batches.sampler)
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = dict(
            num_workers=loader.num_workers,
            timeout=loader.timeout,
            worker_init_fn=partial(start_worker, loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
    return DataLoader(
        Seeded(loader.dataset, seed),
        batch_sampler=Batches(batches),
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        # A generator of its own: starting an epoch must not draw from the process's.
        generator=torch.Generator(),
        **workers,
    )


class Endless:
    """An endless iterator over batches, for iteration-based training.

    It replaces mmengine's own iterator. When a run resumes, mmengine's loads all the
    data used so far again, and onedl-mmengine's may lose a worker's position.

    Args:
        loader: returned by ``seeded``.
        skipped: number of batches that the run has used already.
        requested: number of those batches that mmengine asks for before training
            continues; None is returned for each.
    """

    def __init__(self, loader: DataLoader, skipped: int, requested: int) -> None:
        self._loader = loader
        self._batches = cast(Any, loader.batch_sampler)
        self._requested = requested
        self._epoch = 0
        sampler = self._batches.sampler
        if hasattr(sampler, "epoch"):  # otherwise the sampler never ends
            self._epoch, skipped = divmod(skipped, len(loader))
        elif hasattr(sampler.inner, "_indices_of_rank"):
            # mmengine's InfiniteSampler, from which its loop has drawn indices already.
            sampler.inner.indices = sampler.inner._indices_of_rank()
        self._batches.first = skipped
        self._iterator: Iterator | None = None

    def skip_iter(self, count: int) -> None:
        """Skip ``count`` batches; onedl-mmengine calls this instead of taking them."""
        self._requested -= count

    def __next__(self) -> Any:
        if self._requested > 0:
            self._requested -= 1
            return None
        if self._iterator is None:  # workers start when the position is known
            sampler = self._batches.sampler
            if hasattr(sampler, "epoch"):  # mmengine has set the loop's, which is 0
                sampler.set_epoch(self._epoch)
            self._iterator = iter(self._loader)
        try:
            return next(self._iterator)
        except StopIteration:
            self._epoch += 1
            self._batches.sampler.set_epoch(self._epoch)
            self._iterator = iter(self._loader)
            return next(self._iterator)
