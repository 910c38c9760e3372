"""A run that was stopped and resumed ends like a run without a stop."""

# ruff: noqa: NPY002 (NumPy's global generator is what is tested)

import multiprocessing
import pickle
import random
import signal
import subprocess
from itertools import chain

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.utils import ManagerMixin
from torch.utils.data import DataLoader, Dataset

from convnext_dense.engine.exact_resume import random_states, stream
from convnext_dense.errors import STOPPED

from ..helpers import small_runs, toy_runs
from ..helpers.mmengine_state import forget_instances
from ..helpers.running import shell


def test_kill_points():
    """One of those of ``make test-long`` on every path, each of another kind."""
    done = shell("-m", "tests.programs.kill_points", "--every", "52")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "kill points" in line]
    assert len(lines) == 5
    for line in lines:
        tried, same = [int(word) for word in line.split() if word.isdigit()][-2:]
        assert tried == same > 0


@pytest.fixture
def small(tmp_path, shapes_root):
    """Makes configs, and forgets mmengine's instances as a new process would."""

    def make(loop, name="run", options=(), workers=0):
        forget_instances(ManagerMixin)
        run = tmp_path / name
        return small_runs.small(loop, run, shapes_root, workers, options)

    return make


def forget(run, *names):
    """Remove checkpoints, as if the run had been killed before it wrote them."""
    for name in names:
        (run / name).unlink()
    (run / "last_checkpoint").unlink()


@pytest.mark.parametrize("by_epoch", [True, False])
def test_without_a_fixed_seed(tmp_path, by_epoch):
    cfg = toy_runs.config(tmp_path, by_epoch, randomness=dict(seed=None))
    toy_runs.train(cfg)
    before = small_runs.weights(tmp_path)
    last = ("epoch_4", "epoch_3") if by_epoch else ("iter_8", "iter_7", "iter_6")
    forget(tmp_path, *(f"{name}.pth" for name in last))
    toy_runs.train(cfg, resume=True)
    after = small_runs.weights(tmp_path)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert small_runs.same(value, after[name]), name


class Ask(Hook):
    """Signals this process before the iterations with these numbers."""

    def __init__(self, *at, name=signal.SIGTERM):
        self.at, self.name = at, name

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 in self.at:
            signal.raise_signal(self.name)


def test_a_stop(tmp_path):
    cfg = toy_runs.config(tmp_path, default_hooks=dict(checkpoint=dict(interval=3)))
    with pytest.raises(SystemExit) as stop:
        toy_runs.train(cfg, hooks=[Ask(5)])
    assert stop.value.code == STOPPED
    log, file = small_runs.log(tmp_path), tmp_path / "interrupted.pth"
    assert f"stopped by SIGTERM after iteration 5, which is saved in {file}. The" in log
    assert torch.load(file, weights_only=False)["meta"]["iter"] == 5


class SignalWorkers(Hook):
    """Sends SIGTERM to the workers of both loaders before iteration 5, then here.

    Slurm and ``timeout`` signal all processes of a job so. The validation's workers
    exist since the first validation, after iteration 3.
    """

    def __init__(self):
        self.signalled = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == 5:
            workers = [str(p.pid) for p in multiprocessing.active_children()]
            self.signalled = len(workers)
            # By another process: from its parent a worker takes SIGTERM as its end.
            subprocess.run(["kill", "-TERM", *workers], check=True)
            signal.raise_signal(signal.SIGTERM)


def test_a_stop_of_all_processes_of_the_job(small, tmp_path):
    """PyTorch ends a process one of whose workers has ended, at any moment."""
    hook = SignalWorkers()
    with pytest.raises(SystemExit) as stop:
        small_runs.train(small("iterations", workers=1), hooks=[hook])
    assert hook.signalled == 2
    assert stop.value.code == STOPPED
    content = torch.load(tmp_path / "run/interrupted.pth", weights_only=False)
    assert content["meta"]["iter"] == 5


def test_the_run_restores_signal_handlers(tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    toy_runs.train(toy_runs.config(tmp_path))
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_checkpoint_of_mmengine_alone(tmp_path, by_epoch):
    """Without the hook's state the run continues, and warns that it is not exact."""
    short = dict(max_epochs=1) if by_epoch else dict(max_iters=3)
    toy_runs.train(toy_runs.config(tmp_path, by_epoch, train_cfg=short))
    file = tmp_path / ("epoch_1.pth" if by_epoch else "iter_3.pth")
    content = torch.load(file, weights_only=False)
    del content["exact_resume"]
    torch.save(content, file)
    runner = toy_runs.train(toy_runs.config(tmp_path, by_epoch), resume=True)
    end = 12 if by_epoch else 8
    assert runner.iter == end
    assert "was written without ExactResumeHook" in small_runs.log(tmp_path)
    steps = [step for trained, step in small_runs.logged(tmp_path) if trained]
    assert steps == [*range(1, end + 1)]


def rates(run):
    """Logged learning rates by iteration."""
    return {k[1]: v["lr"] for k, v in small_runs.logged(run).items() if k[0]}


@pytest.mark.parametrize("scaled", [True, False])
def test_going_on_with_another_batch(tmp_path, scaled):
    """The schedules continue where a run with the new batch size has them."""

    def with_batch(size, name="run"):
        return toy_runs.config(
            tmp_path / name,
            by_epoch=True,
            train_cfg=dict(max_epochs=3),
            train_dataloader=dict(batch_size=size),
            auto_scale_lr=dict(enable=scaled, base_batch_size=4),
            param_scheduler=[
                dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=3),
                dict(
                    type="CosineAnnealingLR",
                    by_epoch=True,
                    convert_to_iter_based=True,
                    T_max=3,
                    end=3,
                ),
            ],
        )

    toy_runs.train(with_batch(3, "three"))
    with pytest.raises(SystemExit):
        toy_runs.train(with_batch(2), hooks=[Ask(4)])
    runner = toy_runs.train(with_batch(3), resume=True)
    assert runner.iter == 6
    log = small_runs.log(tmp_path / "run")
    assert "this run uses 3 images a step instead of 2" in log
    assert "the learning rate is multiplied by 1" in log
    resumed, expected = rates(tmp_path / "run"), rates(tmp_path / "three")
    # The two images used in the second epoch fill no batch of three: it starts anew.
    for iteration in range(3, 7):
        assert resumed[iteration] == pytest.approx(expected[iteration])


# The stream


class Draws(Dataset):
    """Samples that consist of their index and their random numbers."""

    def __init__(self, size):
        self.metainfo = dict(classes=("x",))
        self.size = size
        self.setting = 1

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def loader(size=10, workers=0, sampler=DefaultSampler, seed=3, batch=2):
    data = Draws(size)
    return stream.seeded(
        DataLoader(
            data,
            batch_size=batch,
            sampler=sampler(data, shuffle=True, seed=seed),
            num_workers=workers,
            collate_fn=list,
        ),
        seed=7,
    )


def test_workers_do_not_matter():
    alone = list(loader())
    assert [list(loader(workers=n)) for n in (1, 3)] == [alone, alone]
    assert len({sample[1:] for sample in chain(*alone)}) == 10
    later = loader(workers=2)
    later.batch_sampler.first = 3
    assert list(later) == alone[3:]
    assert list(later) == alone  # only the next time
    later.batch_sampler.sampler.set_epoch(1)
    assert not {*chain(*later)} & {*chain(*alone)}


def test_processes_do_not_matter(monkeypatch):
    """Two processes use, step by step, the samples of one with twice the batch."""
    alone = [sorted(batch) for batch in loader(batch=4, size=12)]
    by_rank = []
    for rank in (0, 1):
        for module in ("mmengine.dataset.sampler", stream.__name__):
            monkeypatch.setattr(f"{module}.get_dist_info", lambda r=rank: (r, 2))
        by_rank.append(list(loader(size=12)))
    assert [sorted(a + b) for a, b in zip(*by_rank, strict=True)] == alone


def test_the_process_s_generators_do_not_change():
    before = random_states.capture()
    list(loader())
    after = random_states.capture()
    assert before["python"] == after["python"]
    assert before["numpy"][2:] == after["numpy"][2:]
    assert torch.equal(before["torch"], after["torch"])


def test_random_states_are_restored():
    def draw():
        return random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist()

    draw()
    states = pickle.loads(pickle.dumps(random_states.capture()))
    first = draw()
    draw()
    random_states.restore(states)
    assert draw() == first


def test_attributes_are_those_of_the_data_set():
    data = loader().dataset
    assert data.metainfo == dict(classes=("x",))
    data.setting = 2  # as a hook of mmdet sets its pipeline
    assert data.inner.setting == 2
    assert data[4][0] == 4
    copied = pickle.loads(pickle.dumps(data))
    place = stream.Place(2, (0, 5))
    assert copied[place] == data[pickle.loads(pickle.dumps(place))]
    with pytest.raises(AttributeError):
        _ = data.nothing


@pytest.mark.parametrize("sampler", [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize("ask", ["skip_iter", "next"])
def test_without_epochs(sampler, ask):
    """Both stacks' ways to skip batches work; a sampler that ends starts again."""
    whole = stream.Endless(loader(sampler=sampler), 0, 0)
    batches = [next(whole) for _ in range(14)]
    for done in (3, 5, 7):
        started = loader(sampler=sampler, workers=1)
        eager = iter(started.batch_sampler)  # mmengine's loop has taken indices
        next(eager)
        late = stream.Endless(started, done, done)
        eager.close()
        if ask == "skip_iter":
            late.skip_iter(done)
        else:
            assert [next(late) for _ in range(done)] == [None] * done
        assert [next(late) for _ in range(6)] == batches[done : done + 6]
