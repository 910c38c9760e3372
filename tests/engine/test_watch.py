"""Losses and gradients that are not finite, and runs that cannot learn."""

import math

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.utils import ManagerMixin

from convnext_dense.engine.build import build_model
from convnext_dense.engine.exact_resume import random_states
from convnext_dense.engine.runner import replay
from convnext_dense.engine.watch import classes, hook
from convnext_dense.errors import InputError, NotFiniteError

from ..helpers import small_runs
from ..helpers.mmengine_state import forget_instances
from ..helpers.runs import SEG


class Poison(Hook):
    """Makes the images NaN at some iterations.

    Args:
        at: the iterations.
        gradient: make the gradient of this parameter NaN instead.
        more: add these losses to the model's instead.
    """

    priority = "HIGHEST"

    def __init__(self, at, gradient=None, more=None):
        self.at, self.gradient, self.more, self.now = at, gradient, more, False
        self.states = {}

    def before_train(self, runner):
        loss = runner.model.loss
        if self.more:
            runner.model.loss = lambda *args: {
                **loss(*args),
                **(self.more if self.now else {}),
            }
        if self.gradient:
            parameter = runner.model.get_parameter(self.gradient)
            parameter.register_hook(lambda g: g * math.nan if self.now else g)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.now = runner.iter + 1 in self.at
        self.states[runner.iter] = copied(runner)
        if self.now and not self.gradient and not self.more:
            data_batch["inputs"][0] = data_batch["inputs"][0] * math.nan


def copied(runner):
    state = {**runner.model.state_dict()}
    for number, values in runner.optim_wrapper.optimizer.state_dict()["state"].items():
        state.update({f"{number}.{name}": value for name, value in values.items()})
    return {name: value.clone() for name, value in state.items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    forget_instances(ManagerMixin)


@pytest.fixture
def cfg(tmp_path, shapes_root):
    return small_runs.small(
        *("iterations", tmp_path / "run", shapes_root),
        options=["train_cfg.max_iters=5", "train_cfg.val_interval=100"],
    )


GRADIENT = "backbone.stages.0.0.pwconv1.weight"


@pytest.mark.parametrize("gradient", [None, GRADIENT])
def test_a_step_that_is_not_finite_is_skipped(cfg, tmp_path, gradient):
    poison = Poison({3}, gradient)
    small_runs.train(cfg, hooks=[poison])
    assert same(poison.states[2], poison.states[3])  # the step changed nothing
    assert not same(poison.states[1], poison.states[2])
    assert not same(poison.states[3], poison.states[4])
    log = small_runs.log(tmp_path / "run")
    assert log.count("is not finite") == 1
    message = next(line for line in log.splitlines() if "is not finite" in line)
    assert "iteration 3 is not finite: " in message
    if gradient:
        assert f"losses are finite; gradients of {GRADIENT} are not" in message
    else:
        assert "loss: loss nan" in message
    assert message.count(".jpg") == 2
    assert (tmp_path / "run/not_finite/iter_3.pth").is_file()
    final = small_runs.weights(tmp_path / "run")
    assert all(v.isfinite().all() for v in final.values() if v.is_floating_point())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_loss_alone(cfg, tmp_path, scaled, accumulated):
    """The gradients are finite: the loss depends on no parameter."""
    cfg.optim_wrapper.accumulative_counts = accumulated
    if scaled:
        cfg.optim_wrapper.update(type="ScaledOnCPU", scale=1.0)
    poison = Poison({3}, more=dict(loss_more=torch.tensor(math.inf)))
    small_runs.train(cfg, hooks=[poison])
    assert same(poison.states[2], poison.states[2 + accumulated])
    assert not same(poison.states[0], poison.states[2])
    log = small_runs.log(tmp_path / "run")
    assert log.count("is not finite") == accumulated
    assert "iteration 3 is not finite: loss: loss inf, loss_more inf (finite: " in log


def test_other_values_need_not_be_finite(cfg, tmp_path):
    poison = Poison({3}, more=dict(accuracy=torch.tensor(math.nan)))
    small_runs.train(cfg, hooks=[poison])
    assert not same(poison.states[2], poison.states[3])
    assert "not finite" not in small_runs.log(tmp_path / "run")


def test_it_ends_after_some_in_a_row(cfg, tmp_path):
    with pytest.raises(NotFiniteError, match=r"(?s)3 iterations in a row.*iteration 5"):
        small_runs.train(cfg, hooks=[Poison({1, 3, 4, 5})])
    files = sorted(p.name for p in (tmp_path / "run/not_finite").iterdir())
    assert files == ["iter_1.pth", "iter_3.pth"]  # the first of each row


def test_the_batch_is_run_again(cfg, tmp_path, capsys):
    small_runs.train(cfg, hooks=[Poison({2}), Poison({4}, GRADIENT)])
    folder = tmp_path / "run/not_finite"
    with pytest.raises(NotFiniteError) as error:
        replay(cfg, folder / "iter_2.pth")
    said = str(error.value)
    assert "iteration 2:" in said
    assert said.count(".jpg") == 2
    assert "decode.loss_ce: nan" in said
    assert "the first output that is not finite is of data_preprocessor" in said
    assert said.endswith("not finite again")
    # The hook, which is not in the file, made the gradient of the other batch NaN.
    replay(cfg, folder / "iter_4.pth")
    assert capsys.readouterr().out.endswith("everything is finite this time\n")


@pytest.mark.parametrize("loop", ["epochs", "iterations"])
def test_a_replay_is_the_step_itself(tmp_path, shapes_root, loop, capsys):
    """Images, drop path and sampled boxes are the same, and so are the losses."""
    cfg = small_runs.small(
        *(loop, tmp_path / "run", shapes_root),
        options=[
            "train_cfg.max_epochs=1" if loop == "epochs" else "train_cfg.max_iters=2"
        ],
    )
    parameter = GRADIENT if loop == "iterations" else "neck.fpn_convs.0.conv.weight"
    losses = Losses()
    small_runs.train(cfg, hooks=[Poison({2}, parameter), losses])
    capsys.readouterr()
    replay(cfg, tmp_path / "run/not_finite/iter_2.pth")
    lines = capsys.readouterr().out.splitlines()
    again = dict(line.split(": ") for line in lines if line.count(": "))
    assert len(losses.by_iteration[2]) > 2
    for name, value in losses.by_iteration[2].items():
        # The replay's forward hooks choose the written-out block, and %g rounds.
        assert float(again[name]) == pytest.approx(value, rel=1e-5)


class Losses(Hook):
    def __init__(self):
        self.by_iteration = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.by_iteration[runner.iter + 1] = {k: float(v) for k, v in outputs.items()}


def test_replay_as_a_tool(tool, cfg, tmp_path):
    cfg.optim_wrapper.optimizer.lr = 1e30
    cfg.dump(tmp_path / "c.py")
    done = tool("train", "c.py")
    assert done.code == 3
    assert "Traceback" not in done.out + done.err
    assert done.err.count("error: 3 iterations in a row were not finite") == 1
    file = next(tmp_path.glob("run/not_finite/iter_*.pth"))
    done = tool("train", "c.py", "--replay", file)
    assert done.code == 3
    assert "not finite again" in done.err
    done = tool("train", "c.py", "--replay", "nothing.pth")
    assert (done.code, done.err) == (2, "error: no checkpoint at nothing.pth\n")
    torch.save(dict(state_dict={}), tmp_path / "x.pth")
    done = tool("train", "c.py", "--replay", "x.pth")
    assert done.code == 2
    assert "x.pth holds no batch" in done.err
    done = tool("train", SEG, "--replay", file)
    assert done.code == 2
    assert "was written for another model than that of" in done.err


DAMAGED_BATCHES = {
    "no weights": (dict(state_dict=None), "another model"),
    "weights of text": (dict(state_dict={"a": "b"}), "another model"),
    "no states": (dict(random_states=None), "has random_states that are not"),
    "no batch": (dict(batch=[]), "fails with the batch in"),
    "images of text": (dict(batch=dict(inputs="a", data_samples=3)), "fails with"),
}


@pytest.mark.parametrize("damage", DAMAGED_BATCHES)
def test_a_batch_that_is_none(tmp_path, cfg, damage):
    changes, message = DAMAGED_BATCHES[damage]
    content = dict(
        batch={},
        iteration=1,
        random_states=random_states.capture(),
        state_dict=build_model(cfg, "cpu").state_dict(),
    )
    torch.save(content | changes, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        replay(cfg, tmp_path / "a.pth")


# Loss scaling


@OPTIM_WRAPPERS.register_module()
class ScaledOnCPU(AmpOptimWrapper):
    """mmengine's wrapper, which asserts a GPU, with torch's loss scaler for the CPU."""

    def __init__(self, scale, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self._scale_update_param = self.cast_dtype = None
        self.device_type = "cpu"

    optim_context = OptimWrapper.optim_context


def test_an_overflow_of_the_loss_scale_is_no_error(cfg, tmp_path):
    cfg.optim_wrapper.update(type="ScaledOnCPU", scale=2.0**127)
    cfg.train_cfg.max_iters = 8
    poison = Poison(set())
    runner = small_runs.train(cfg, hooks=[poison])
    assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**127
    weight = "decode_head.conv_seg.weight"
    states = [state[weight] for state in poison.states.values()]
    assert torch.equal(states[0], states[1])  # skipped
    assert not torch.equal(states[0], runner.model.state_dict()[weight])
    assert "not finite" not in small_runs.log(tmp_path / "run")


def test_an_overflow_at_every_loss_scale_is(cfg, monkeypatch):
    monkeypatch.setattr(hook, "OVERFLOWS", 2)
    cfg.optim_wrapper.update(type="ScaledOnCPU", scale=1.0)
    with pytest.raises(NotFiniteError, match="overflowed at every loss scale"):
        small_runs.train(cfg, hooks=[Poison(set(range(100)), GRADIENT)])


# Before the first step


def refused(cfg, message, **more):
    with pytest.raises(InputError, match=message):
        small_runs.train(cfg, **more)


def test_no_learning_rate(cfg, tmp_path):
    cfg.optim_wrapper.optimizer.lr = 0.0
    refused(cfg, "learning rate is 0 everywhere")
    assert not (tmp_path / "run").exists()


def test_a_backbone_that_the_config_does_not_freeze(cfg):
    class Freeze(Hook):
        priority = "HIGHEST"

        def before_run(self, runner):
            runner.model.backbone.requires_grad_(False)

    refused(cfg, "no parameter of the backbone would learn", hooks=[Freeze()])


def test_a_backbone_that_is_frozen_and_random(cfg):
    cfg.model.backbone.frozen_stages = 4
    cfg.model.backbone.out_indices = (0, 1, 2, 3)
    refused(cfg, "the backbone is frozen and has random weights")


def test_a_backbone_that_is_frozen_with_weights(cfg, tmp_path):
    small_runs.train(cfg)
    cfg.load_from = str(tmp_path / "run/iter_5.pth")
    cfg.model.backbone.frozen_stages = 4
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={"backbone": dict(lr_mult=0)})
    small_runs.train(cfg)
    log = small_runs.log(tmp_path / "run")
    assert "the backbone is frozen, as the config says; the heads learn" in log


def test_a_backbone_that_is_not_used(cfg):
    class Unused(Hook):
        priority = "HIGHEST"

        def before_run(self, runner):
            runner.model.backbone.register_forward_hook(
                lambda m, i, maps: tuple(x.detach() for x in maps)
            )

    refused(cfg, "the backbone is not used", hooks=[Unused()])


@pytest.mark.parametrize("loop", ["epochs", "iterations"])
def test_heads_of_other_classes(tmp_path, shapes_root, loop):
    head = dict(epochs="roi_head.mask_head", iterations="auxiliary_head")[loop]
    cfg = small_runs.small(
        *(loop, tmp_path / "run", shapes_root),
        options=[f"model.{head}.num_classes=9"],
    )
    refused(cfg, rf"{head}(\.0)? has 9 classes and the training data . \(\w+, ")


def test_heads_are_recognised_by_their_names():
    """A region proposal network has one class, and is not compared with the data."""
    model = torch.nn.Module()
    model.rpn_head, model.bbox_head = torch.nn.Module(), torch.nn.ModuleList()
    model.rpn_head.num_classes = 1
    model.bbox_head.append(torch.nn.Module())
    model.bbox_head[0].num_classes = 3
    data = torch.utils.data.Dataset()
    data.metainfo = dict(classes=("a", "b", "c"))
    assert classes.problem(model, data) is None
    data.metainfo = dict(classes=("a", "b", "c", "d"), thing_classes=("a", "b", "c"))
    assert classes.problem(model, data) is None  # panoptic data
    data.metainfo = dict(classes="abc")
    assert "is the string 'abc'" in classes.problem(model, data)
    data.metainfo = dict(classes=("a",))
    assert "bbox_head.0 has 3 classes" in classes.problem(model, data)


def test_a_config_may_have_the_hook_itself(cfg):
    cfg.custom_hooks = [dict(type="WatchHook", max_in_a_row=1)]
    with pytest.raises(NotFiniteError, match="1 iterations in a row"):
        small_runs.train(cfg, hooks=[Poison({2})])
