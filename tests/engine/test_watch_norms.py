"""Batches of one image where a batch norm needs two."""

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.utils import ManagerMixin
from torch.utils.data import BatchSampler, DataLoader

from convnext_dense.engine.watch.norms import last_batch
from convnext_dense.errors import InputError

from ..helpers import small_runs
from ..helpers.mmengine_state import forget_instances


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    forget_instances(ManagerMixin)


@pytest.fixture
def train(tmp_path, shapes_root):
    """A function that trains for two iterations with options."""

    def run(*options):
        forget_instances(ManagerMixin)
        loop = ["train_cfg.max_iters=2", "train_cfg.val_interval=9"]
        cfg = small_runs.small(
            *("iterations", tmp_path / "run", shapes_root),
            options=[*loop, *options],
        )
        return small_runs.train(cfg)

    return run


def advice(message):
    """The two ways out that a message names, as --cfg-options."""
    batches, group_norm = message.split("--cfg-options ")[1].split(", or group norm: ")
    return batches.split(), group_norm.split()


def test_a_batch_of_one(train):
    """The advice of the message works; other tests train with batches of two."""
    with pytest.raises(InputError) as caught:
        train("train_dataloader.batch_size=1")
    message = str(caught.value)
    assert "a batch has one image, and the batch norm decode_head.psp_" in message
    batches, group_norm = advice(message)
    assert batches == ["train_dataloader.batch_size=2"]
    assert train("train_dataloader.batch_size=1", *group_norm).iter == 2


def test_the_last_batch_of_an_epoch(train):
    odd = (
        "train_dataloader.sampler.type=DefaultSampler",
        "train_dataloader.dataset.indices=3",
    )
    with pytest.raises(InputError) as caught:
        train(*odd)
    message = str(caught.value)
    assert "the last batch of an epoch has one image (images: 3, a batch: 2)" in message
    batches, _ = advice(message)
    assert batches == ["train_dataloader.drop_last=True"]
    assert train(*odd, *batches).iter == 2


@pytest.mark.parametrize(
    ("images", "drop_last", "sampler", "size"),
    [
        (5, False, DefaultSampler, 1),
        (4, False, DefaultSampler, 2),
        (5, True, DefaultSampler, 2),
        (5, False, InfiniteSampler, 2),
    ],
)
def test_the_size_of_the_last_batch(images, drop_last, sampler, size):
    data = torch.utils.data.TensorDataset(torch.zeros(images))
    loader = DataLoader(
        data, 2, sampler=sampler(data, shuffle=False), drop_last=drop_last
    )
    assert last_batch(loader) == size
    grouped = BatchSampler(sampler(data, shuffle=False), 2, drop_last)
    assert last_batch(DataLoader(data, batch_sampler=grouped)) == size
