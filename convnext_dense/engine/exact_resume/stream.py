"""The stream of training samples as a function of a seed and of a sample's place.

A run that goes on must see the images that it would have seen, augmented as they
would have been. Data-loader workers draw their augmentations from generators of
their own, whose states die with them, and how many draws there were depends on the
number of workers. So here each sample is augmented by draws that its place alone
determines: seed, epoch, and its number in the stream of all processes together.
Neither the number of workers nor that of processes matters, and to go on is to begin
at a later place.
"""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Dataset, Sampler

from .random_states import drawn_from


def _of_inner(outer, name: str):
    """What a wrapper's ``__getattr__`` finds: not Python's own, such as the methods
    by which objects are copied, or by which a batch is fetched at once."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(outer.__dict__["inner"], name)


class Place(int):
    """An index into a data set that knows which sample of the stream it is.

    Attributes:
        key: epoch, and number in the stream of all processes.
    """

    key: tuple[int, int]

    def __new__(cls, index: int, key: tuple[int, int]):
        self = super().__new__(cls, index)
        self.key = key
        return self

    def __getnewargs__(self):  # it travels to workers
        return int(self), self.key


class Placed(Sampler):
    """What a sampler yields, as ``Place``s; in all else that sampler."""

    def __init__(self, sampler: Sampler):
        self.inner = sampler

    def __iter__(self) -> Iterator[Place]:
        rank, world_size = get_dist_info()
        epoch = getattr(self.inner, "epoch", 0)
        for turn, index in enumerate(self.inner):
            yield Place(index, (epoch, turn * world_size + rank))

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name):
        return _of_inner(self, name)


class Batches(Sampler):
    """The batches of a batch sampler, the next time from batch ``first`` on."""

    def __init__(self, batch_sampler: Sampler):
        self.inner = batch_sampler
        self.first = 0

    def __iter__(self) -> Iterator[list[Place]]:
        first, self.first = self.first, 0
        for number, batch in enumerate(self.inner):
            if number >= first:
                yield batch

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name):
        return _of_inner(self, name)


class Seeded(Dataset):
    """A data set whose transforms draw what a sample's ``Place`` determines.

    In all else, reading and setting of attributes, it is the data set.
    """

    def __init__(self, dataset, seed: int):
        self.__dict__.update(inner=dataset, seed=seed)

    def __getitem__(self, place: int):
        if not isinstance(place, Place):  # somebody looks at a sample
            return self.inner[place]
        with drawn_from(self.__dict__["seed"], *place.key):
            return self.inner[int(place)]

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name):
        return _of_inner(self, name)

    def __setattr__(self, name, value):
        setattr(self.inner, name, value)


def _start_worker(init_fn, number: int) -> None:
    """Starts a data-loader worker, which only the run itself may end.

    Who stops a run may signal all of its processes at once, as Slurm and Ctrl-C do;
    the run still wants the batches that its workers hold.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_run, daemon=True).start()
    if init_fn:
        init_fn(number)


def _end_with_the_run() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def seeded(loader: DataLoader, seed: int) -> DataLoader:
    """The same data loader over ``Seeded`` samples and ``Batches``."""
    batches = loader.batch_sampler
    batches.sampler = Placed(batches.sampler)
    workers = {}
    if loader.num_workers:
        workers = dict(
            num_workers=loader.num_workers,
            timeout=loader.timeout,
            worker_init_fn=partial(_start_worker, loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
    return DataLoader(
        Seeded(loader.dataset, seed),
        batch_sampler=Batches(batches),
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        # Its own, so that starting an epoch draws nothing from the process's.
        generator=torch.Generator(),
        **workers,
    )


class Endless:
    """Batches without end, for iteration-based training.

    It takes the place of mmengine's own, which, when a run goes on, loads all the
    data seen so far again (mmengine) or may lose a worker's place
    (onedl-mmengine).

    Args:
        loader: what ``seeded`` returns.
        skipped: batches that the run has seen already.
        asked: how many of them mmengine will ask for before training goes on.
    """

    def __init__(self, loader: DataLoader, skipped: int, asked: int):
        self._loader = loader
        self._asked = asked
        self._epoch = 0
        sampler = loader.batch_sampler.sampler
        if hasattr(sampler, "epoch"):  # else one stream without end
            self._epoch, skipped = divmod(skipped, len(loader))
            sampler.set_epoch(self._epoch)
        elif hasattr(sampler.inner, "_indices_of_rank"):
            # mmengine's; its loop has drawn some already, for its own workers.
            sampler.inner.indices = sampler.inner._indices_of_rank()
        loader.batch_sampler.first = skipped
        self._iterator = None

    def skip_iter(self, count: int) -> None:
        """What onedl-mmengine calls instead of taking ``count`` batches."""
        self._asked -= count

    def __next__(self):
        if self._asked > 0:
            self._asked -= 1
            return None
        if self._iterator is None:  # workers start after the place is known
            self._iterator = iter(self._loader)
        try:
            return next(self._iterator)
        except StopIteration:
            self._epoch += 1
            self._loader.batch_sampler.sampler.set_epoch(self._epoch)
            self._iterator = iter(self._loader)
            return next(self._iterator)
