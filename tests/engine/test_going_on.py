"""Resumed runs: longer, shorter, finished, and with hooks that remember something."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from convnext_dense.errors import InputError

from ..helpers import small_runs, toy_runs


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    """mmengine asks compilers for their versions in each run's log."""
    monkeypatch.setattr(Runner, "_log_env", lambda *_: None)


@pytest.fixture
def train(tmp_path):
    """Trains or resumes a toy run; returns the Runner and its log."""

    def run(name="run", resume=False, kill_before=None, **settings):
        cfg = toy_runs.config(tmp_path / name, **settings)
        before = len(logs(tmp_path / name))
        runner = toy_runs.train(cfg, resume, kill_before)
        return runner, " ".join(logs(tmp_path / name)[before:].split())

    return run


def logs(work_dir):
    """The text of all logs; runs within a second share a file."""
    return "".join(file.read_text() for file in sorted(work_dir.glob("*/*.log")))


def rates(work_dir):
    """Logged learning rates by iteration."""
    return {k[1]: v["lr"] for k, v in small_runs.logged(work_dir).items() if k[0]}


def names(work_dir):
    return sorted(p.name for p in Path(work_dir).glob("*.pth"))


def load(file):
    return torch.load(file, weights_only=False)


# Length and schedule


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_longer_run_with_another_rate(train, tmp_path, by_epoch):
    end = {"train_cfg.max_epochs": 6} if by_epoch else {"train_cfg.max_iters": 12}
    wishes = {**end, "optim_wrapper.optimizer.lr": 0.2}
    first, _ = train(by_epoch=by_epoch)
    runner, log = train(resume=True, by_epoch=by_epoch, **wishes)
    assert runner.iter == (18 if by_epoch else 12)
    assert "optim_wrapper.optimizer.lr is 0.2 and was 0.1" in log
    assert "as if it had been used from the start: the next learning rate is " in log
    train("new", by_epoch=by_epoch, **wishes)
    resumed, expected = rates(tmp_path / "run"), rates(tmp_path / "new")
    later = range(first.iter + 1, runner.iter + 1)
    assert [resumed[n] for n in later] == [expected[n] for n in later]
    assert resumed[first.iter + 1] > 0
    # The same command again: nothing is left, and nothing is named as different.
    before = names(tmp_path / "run")
    runner, log = train(resume=True, by_epoch=by_epoch, **wishes)
    amount = "6 epochs" if by_epoch else "12 iterations"
    assert f"nothing is left to train: the run has all of its {amount}. To train" in log
    assert "another config" not in log
    assert names(tmp_path / "run") == before


def test_another_rate_after_a_kill(train, tmp_path):
    """In the middle of an epoch, twice: the same command then continues exactly."""
    wishes = dict(by_epoch=True, **{"optim_wrapper.optimizer.lr": 0.2})
    wishes["default_hooks.checkpoint.by_epoch"] = False
    train(kill_before=6, by_epoch=True, **{"default_hooks.checkpoint.by_epoch": False})
    for name in ("run", "copy"):
        if name == "copy":
            copied = tmp_path / "copy"
            copied.mkdir()
            for file in (tmp_path / "before").iterdir():
                (copied / file.name).write_bytes(file.read_bytes())
        else:
            (tmp_path / "before").mkdir()
            newest = tmp_path / "run/iter_5.pth"
            (tmp_path / "before/iter_5.pth").write_bytes(newest.read_bytes())
    train("copy", resume=True, **wishes)
    train("run", resume=True, kill_before=9, **wishes)
    _, log = train("run", resume=True, **wishes)
    assert "another config" not in log
    new = train("new", **wishes)[0]
    expected, resumed = rates(tmp_path / "new"), rates(tmp_path / "run")
    assert [resumed[n] for n in range(6, 13)] == [expected[n] for n in range(6, 13)]
    assert new.iter == 12
    a, b = (small_runs.weights(tmp_path / name) for name in ("copy", "run"))
    assert all(small_runs.same(a[key], b[key]) for key in a)


@pytest.mark.parametrize("by_epoch", [False, True])
def test_fewer_than_done(train, tmp_path, by_epoch):
    train(by_epoch=by_epoch)
    before = names(tmp_path / "run")
    end = {"train_cfg.max_epochs": 2} if by_epoch else {"train_cfg.max_iters": 5}
    amount = "4 epochs already, and this run ends at 2" if by_epoch else "8 iterations"
    with pytest.raises(InputError, match=f"the run has {amount}"):
        train(resume=True, by_epoch=by_epoch, **end)
    assert names(tmp_path / "run") == before


def test_epochs_after_iterations(train):
    train()
    with pytest.raises(InputError, match=r"trains by iterations .* by epochs"):
        train(resume=True, by_epoch=True)


def test_other_settings_without_a_rate(train):
    """Validation, gradients and accumulation are the new config's; the line says it."""
    train(kill_before=5)
    wishes = {"train_cfg.val_interval": 4, "optim_wrapper.clip_grad": dict(max_norm=1)}
    runner, log = train(resume=True, **wishes)
    assert runner.train_loop.val_interval == 4
    assert runner.optim_wrapper.clip_grad_kwargs == dict(max_norm=1)
    assert (
        "val_interval is 4 and was 2; the optimizer and the schedules continue" in log
    )


def test_the_learning_rate_would_be_0(train):
    """The schedule is shorter than the run: the advice of the message works."""
    short = {"param_scheduler.0.end": 8}
    train(**short)
    with pytest.raises(InputError, match="the learning rate is 0 from iteration 8 to"):
        train(resume=True, **short, **{"train_cfg.max_iters": 12})
    advice = {"param_scheduler.0.end": 12, "train_cfg.max_iters": 12}
    assert train(resume=True, **advice)[0].iter == 12


def test_without_averages(train, tmp_path):
    """EMAHook writes the averages as the weights: without it, they are not those."""
    averaged = dict(custom_hooks=[dict(type="ExactResumeHook"), dict(type="EMAHook")])
    averaged["custom_hooks"][1]["momentum"] = 0.5
    train("with", **averaged)
    train("without")
    train(kill_before=5, **averaged)
    _, log = train(resume=True)
    assert "this run has no EMAHook: it continues with the weights that were" in log
    resumed, expected = (
        small_runs.weights(tmp_path / name) for name in ("run", "without")
    )
    assert all(small_runs.same(resumed[key], expected[key]) for key in expected)


def test_other_data(train, tmp_path):
    """An epoch has another length: the schedule by iterations continues in epochs."""
    poly = [dict(type="PolyLR", by_epoch=True, convert_to_iter_based=True)]
    more = dict(by_epoch=True, param_scheduler=poly)
    size = {"train_dataloader.dataset.size": 8}
    train(kill_before=7, **more)
    runner, log = train(resume=True, **more, **size)
    assert "an epoch of this run has 4 steps, which is another number" in log
    train("new", **more, **size)
    assert runner.iter == 16
    resumed, expected = rates(tmp_path / "run"), rates(tmp_path / "new")
    assert [resumed[n] for n in range(9, 17)] == [expected[n] for n in range(9, 17)]


def test_without_the_loss_scaler(train, tmp_path):
    """Of a run in mixed precision, continued in full precision."""
    train(kill_before=3)
    content = load(tmp_path / "run/iter_2.pth")
    content["optimizer"]["loss_scaler"] = dict(scale=65536.0, growth_factor=2.0)
    torch.save(content, tmp_path / "run/iter_2.pth")
    assert train(resume=True)[0].iter == 8


def test_other_groups(train):
    """A group for each parameter instead of one for all."""
    train(kill_before=3)
    groups = {"optim_wrapper.paramwise_cfg": dict(bias_lr_mult=2.0)}
    with pytest.raises(InputError, match=r"does not fit this run: .*parameter group"):
        train(resume=True, **groups)


# Hooks


def test_the_best_of_another_metric(train, tmp_path):
    """Its score is not compared with that of the metric before."""
    scores = {"val_evaluator.scores": {"2": 1.0, "6": 1.2}}
    train(kill_before=5, **scores)
    other = {"default_hooks.checkpoint.save_best": "other"}
    _, log = train(resume=True, **scores, **other)
    assert "best score is of another metric than other: the search for the best" in log
    assert {"best_score_iter_2.pth", "best_other_iter_6.pth"} < set(
        names(tmp_path / "run")
    )


def early(**settings):
    hook = dict(type="EarlyStoppingHook", monitor="score", rule="greater", min_delta=1)
    return dict(custom_hooks=[dict(type="ExactResumeHook"), {**hook, **settings}])


@pytest.mark.parametrize("before", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("by_epoch", [False, True])
def test_early_stopping_is_resumed(train, tmp_path, before, by_epoch):
    """Whenever it is killed: the same end. The best checkpoints are the hard ones."""
    more = {"val_evaluator.scores": {"2": 1.0, "3": 1.0, "4": 1.5, "6": 1.2}}
    settings = dict(by_epoch=by_epoch, **early(patience=2), **more)
    whole, _ = train("whole", **settings)
    train(kill_before=before, **settings)
    runner, _ = train(resume=True, **settings)
    assert runner.iter == whole.iter < whole.max_iters
    assert not small_runs.differences(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("hook", "scores", "advice"),
    [
        (dict(patience=1), {}, ("patience", 2)),
        (dict(stopping_threshold=0.5), {"2": 0.7}, ("stopping_threshold", None)),
        (dict(patience=9), {"2": "nan"}, ("check_finite", False)),
    ],
)
def test_a_run_that_was_stopped_early(train, tmp_path, hook, scores, advice):
    """Its end is saved, also between two checkpoints; the advice lets it go on."""
    more = {"val_evaluator.scores": scores, "default_hooks.checkpoint.interval": 100}
    done = train(**early(**hook), **more)[0].iter
    assert done < 8
    assert f"iter_{done}.pth" in names(tmp_path / "run")
    before = names(tmp_path / "run")
    runner, log = train(resume=True, **early(**hook), **more)
    assert runner.iter == done
    assert f"the run was stopped early, after {done} of 8 iterations, by Early" in log
    assert "validation that is due" not in log
    option = f"custom_hooks.1.{advice[0]}"
    assert f"change what stopped it: --cfg-options {option}={advice[1]}" in log
    assert names(tmp_path / "run") == before
    runner, log = train(resume=True, **early(**hook), **more, **{option: advice[1]})
    assert runner.iter > done


def test_a_stop_by_another_hook(train):
    custom = [dict(type="ExactResumeHook"), dict(type="StopAt", iteration=3)]
    assert train(custom_hooks=custom)[0].iter == 3
    runner, log = train(resume=True, custom_hooks=custom)
    assert runner.iter == 3
    assert "stopped early, after 3 of 8 iterations. To start another run" in log


@HOOKS.register_module()
class StopAt(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, **_):
        runner.train_loop.stop_training = runner.iter + 1 == self.iteration


@HOOKS.register_module()
class Counts(Hook):
    """Counts, after checkpoints are written, what has happened."""

    priority = "LOWEST"

    def __init__(self):
        self.seen = dict(steps=0, scores=[])

    def after_train_iter(self, runner, **_):
        self.seen["steps"] += 1

    def after_val_epoch(self, runner, metrics):
        self.seen["scores"].append(metrics["score"])

    def state_dict(self):
        return self.seen

    def load_state_dict(self, state):
        self.seen = dict(state, scores=list(state["scores"]))


@HOOKS.register_module()
class CountsOnly(Hook):
    """Counts without ``state_dict``."""

    def __init__(self):
        self.steps = 0

    def after_train_iter(self, runner, **_):
        self.steps += 1


@HOOKS.register_module()
class Odd(Counts):
    def state_dict(self):
        return dict(model=torch.nn.Linear(1, 1))


def counting(*types):
    return dict(custom_hooks=[dict(type=t) for t in ("ExactResumeHook", *types)])


@pytest.mark.parametrize("before", [2, 3, 4, 7])
def test_hooks_with_a_state_dict(train, before):
    """All its counts are in each checkpoint, also in that of the best metric."""
    scores = {"val_evaluator.scores": {"4": 1.0}}
    whole, _ = train("whole", **counting("Counts", "Counts"), **scores)
    train(kill_before=before, **counting("Counts", "Counts"), **scores)
    runner, _ = train(resume=True, **counting("Counts", "Counts"), **scores)
    for run in (whole, runner):
        counts = [hook for hook in run.hooks if isinstance(hook, Counts)]
        assert [c.seen for c in counts] == [dict(steps=8, scores=[0, 1, 0, 0])] * 2


def test_hooks_that_cannot_be_saved(train, tmp_path):
    _, log = train(kill_before=5, **counting("CountsOnly", "Odd"))
    assert "will not have the state of the hook Odd: its state_dict holds more" in log
    _, log = train(resume=True, **counting("CountsOnly", "Odd"))
    assert (
        "CountsOnly has no state_dict and load_state_dict: its steps begin anew" in log
    )
    assert "the checkpoint has no state of Odd, which begins anew" in log
    assert "another config" not in log


def test_a_checkpoint_without_hooks(train, tmp_path):
    """Of an older release."""
    train(kill_before=3, **early(patience=3))
    file = tmp_path / "run/iter_2.pth"
    content = load(file)
    for key in ("hooks", "stopped", "by_epoch"):
        del content["exact_resume"][key]
    torch.save(content, file)
    _, log = train(resume=True, **early(patience=3))
    assert "the checkpoint has no state of EarlyStoppingHook, which begins anew" in log


HOSTILE = [
    *(None, 5, [1], {"EarlyStoppingHook": 5}, {5: {}}),
    *({"EarlyStoppingHook": dict(state=state)} for state in (5, {}, "x", [])),
    {"EarlyStoppingHook": dict(state=dict(wait_count=-1, best_score=0.0))},
    {"EarlyStoppingHook": dict(state=dict(wait_count=True, best_score=0.0))},
    {"EarlyStoppingHook": dict(state=dict(wait_count=10**40, best_score=0.0))},
    {"EarlyStoppingHook": dict(state=dict(wait_count=0, best_score="x"))},
    {"Counts": dict(state=dict(steps=0))},
    {"Counts": dict(state=[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]])},
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_states(train, tmp_path, number):
    settings = early()
    settings["custom_hooks"].append(dict(type="Counts"))
    train(kill_before=2, **settings)
    content = load(tmp_path / "run/iter_1.pth")
    content["exact_resume"]["hooks"] = HOSTILE[number]
    torch.save(content, tmp_path / "run/iter_1.pth")
    with pytest.raises(InputError, match="--resume: "):
        train(resume=True, **settings)


# Short runs


@pytest.mark.parametrize("length", [1, 4, 7])
def test_the_last_iteration_is_logged(train, tmp_path, length):
    _, log = train(
        **{
            "train_cfg.max_iters": length,
            "train_cfg.val_interval": 100,
            "default_hooks.logger.interval": 5,
            "default_hooks.checkpoint.interval": 100,
        }
    )
    assert max(rates(tmp_path / "run")) == length
    assert f"Iter(train) [{length}/{length}]" in log
    assert f"iter_{length}.pth" in names(tmp_path / "run")
    assert log.count("score: ") >= 1  # and it is validated


def test_a_warmup_that_is_too_long(train):
    warmup = dict(type="LinearLR", start_factor=0.1, begin=0, end=50, by_epoch=False)
    _, log = train(param_scheduler=[warmup])
    assert (
        "the warm-up of the learning rate takes 50 iterations, and the run 8: " in log
    )
    _, log = train("fits", param_scheduler=[dict(warmup, end=8)])
    assert "warm-up" not in log
