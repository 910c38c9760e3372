"""A run that is resumed with another number of processes gives the same weights."""

import signal

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from convnext_dense.config.options import load_config
from convnext_dense.errors import STOPPED

from ..helpers import small_runs
from ..helpers.in_processes import pair

STILL = [  # without random numbers of a process, and norms over its images
    "model.backbone.drop_path_rate=0.",
    "model.decode_head.dropout_ratio=0.",
    "model.auxiliary_head.dropout_ratio=0.",
]


def written(folder, data, batch, hooks=()):
    """Write the config of a run by iterations to a file; return the file."""
    cfg = small_runs.small(
        *("iterations", folder / "run", data),
        options=[f"train_dataloader.batch_size={batch}", *STILL],
    )
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.norm_cfg = dict(type="GN", num_groups=4)
    cfg.custom_imports.imports.append("tests.engine.test_other_processes")
    cfg.custom_hooks = [dict(type=hook) for hook in hooks]
    file = folder / f"batch_{batch}_{len(hooks)}.py"
    cfg.dump(file)
    return file


@HOOKS.register_module(force=True)
class AskOne(Hook):
    """Sends SIGTERM to the second process, in iteration 2."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1 and runner.iter + 1 == 2:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, shapes_root):
    """The folder of a run of one process with four images a step."""
    folder = tmp_path_factory.mktemp("one")
    cfg = load_config(str(written(folder, shapes_root, 4)))
    small_runs.train(cfg)
    return folder


def test_two_one_two(tmp_path, shapes_root, reference, tool):
    """Two processes stop, one continues, then two: the weights are those of one."""
    two = written(tmp_path, shapes_root, 2)
    stopped = written(tmp_path, shapes_root, 2, ["AskOne"])
    said = pair([["train", stopped]], tmp_path, code=STOPPED)
    assert "stopped by a signal to another process after iteration 2, " in said[0]
    assert "stopping: this iteration is finished" in said[1]
    states = torch.load(tmp_path / "run/interrupted.pth", weights_only=False)
    assert len(states["exact_resume"]["random_states"]) == 2
    assert states["exact_resume"]["samples"] == 8

    # The warm-up of the reference, which is longer than this.
    until = ["--cfg-options", "train_cfg.max_iters=6", "param_scheduler.0.end=25"]
    alone = written(tmp_path, shapes_root, 4)
    done = tool("train", alone, "--resume", *until)
    assert done.code == 0, done.err
    said = pair([["train", two, "--resume"]], tmp_path)
    assert "resumed epoch: 0, iter: 6" in said[0]

    weights = small_runs.weights(tmp_path / "run")
    expected = small_runs.weights(reference / "run")
    assert weights.keys() == expected.keys()
    for name in expected:
        if not name[0].isdigit():
            torch.testing.assert_close(
                weights[name], expected[name], rtol=1e-3, atol=1e-5
            )
