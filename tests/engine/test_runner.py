"""Each command checks a config once, then fits it to the machine once."""

import pytest

from convnext_dense.config import checks
from convnext_dense.config.options import load_config
from convnext_dense.engine import build, runner
from convnext_dense.errors import InputError

from ..helpers import small_runs
from ..helpers.custom_data import write_label_maps
from ..helpers.runs import SEG


@pytest.fixture
def calls(monkeypatch):
    """The names of the checks and fits that are called, in their order."""
    names = []

    def noted(module, name):
        function = getattr(module, name)

        def note_and_call(*args, **kwargs):
            names.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, note_and_call)

    noted(checks, "check")
    for module in (build, runner):
        noted(module, "fit_to_machine")
    return names


@pytest.fixture
def config(tmp_path, shapes_root):
    """The file of a config of one iteration, with layer decay."""
    cfg = small_runs.small(
        *("iterations", tmp_path / "run", shapes_root),
        options=["train_cfg.max_iters=1", "train_cfg.val_interval=1"],
    )
    cfg.optim_wrapper.constructor = "LayerDecayOptimWrapperConstructor"
    cfg.optim_wrapper.paramwise_cfg = dict(decay_rate=0.9)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.dump(tmp_path / "c.py")
    return tmp_path / "c.py"


ONCE = ["check", "fit_to_machine"]


def test_a_run_and_what_follows_it(calls, config, tool):
    for command in (
        ("train", config),
        ("test", config, "run/iter_1.pth"),
        ("report", "run"),
        ("show_layer_decay", config),
    ):
        calls.clear()
        done = tool(*command)
        assert done.code == 0, done.err
        assert calls == ONCE, done.out + done.err


def test_a_report_without_a_checkpoint(calls, config, tool, tmp_path):
    assert tool("train", config).code == 0
    for file in (tmp_path / "run").glob("*.pth"):
        file.unlink()
    calls.clear()
    assert tool("report", "run").code == 0
    assert calls == ONCE


def test_a_run_on_custom_data(calls, config, tool, tmp_path):
    write_label_maps(tmp_path / "data")
    done = tool("train", config, "--data", "data", "--epochs", "1")
    assert done.code == 0, done.err
    assert calls == ONCE


def test_a_replay(calls, config, tmp_path):
    cfg = small_runs.load_config(str(config))
    with pytest.raises(runner.InputError, match="no checkpoint"):
        runner.replay(cfg, str(tmp_path / "no.pth"))
    assert calls == ONCE


def test_custom_data_may_replace_a_type_that_is_not_registered(tmp_path):
    """Types are checked after custom data has replaced the config's data sets."""
    cfg = load_config(str(SEG), work_dir=str(tmp_path / "run"))
    cfg.train_dataloader.dataset.type = "MyDataset"
    with pytest.raises(InputError, match=r"MyDataset.* is not known"):
        runner.build_runner(cfg, "train", prepare=lambda: None)

    def replace():
        cfg.train_dataloader.dataset.type = "ShapesSegmentation"
        raise InterruptedError  # far enough

    with pytest.raises(InterruptedError):
        runner.build_runner(cfg, "train", prepare=replace)
