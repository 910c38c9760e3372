"""A checkpoint with wrong values, or of another run, ends in a message."""

import copy
import os
import re

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.utils import ManagerMixin

from convnext_dense.checkpoints.loaded_state import check_optimizers, check_type
from convnext_dense.engine.exact_resume import checked, random_states
from convnext_dense.engine.exact_resume.differences import differences
from convnext_dense.errors import InputError

from ..helpers import small_runs
from ..helpers.mmengine_state import forget_instances

STATES = random_states.capture()
PYTHON, NUMPY, TORCH = (STATES[name] for name in ("python", "numpy", "torch"))
WORDS, KEYS = PYTHON[1], NUMPY[1]


def replaced(words, index, value):
    return (*words[:index], value, *words[index:][1:])


BAD_STATES = [
    *(None, [], "x", 5, {}, dict(python=PYTHON), dict(STATES, python={})),
    *(dict(STATES, **{name: None}) for name in ("python", "numpy", "torch")),
    dict(STATES, python=(3, (1, 2), None)),
    dict(STATES, python=(3, (1,) * 10**6, None)),
    dict(STATES, python=(9, WORDS, None)),
    dict(STATES, python=(3, WORDS, "x")),
    dict(STATES, python=(3, (1.5,) * 625, None)),
    dict(STATES, python=(3, (-1,) * 625, None)),
    dict(STATES, python=(3, replaced(WORDS, 624, 10**9), None)),
    dict(STATES, python=(3, replaced(WORDS, 624, -1), None)),
    dict(STATES, python=(3, replaced(WORDS, 0, "x"), None)),
    dict(STATES, python=(3, (0,) * 624 + (624,), None)),
    dict(STATES, numpy=("PCG64", KEYS, 1, 0, 0.0)),
    dict(STATES, numpy=("MT19937", KEYS[:9], 1, 0, 0.0)),
    dict(STATES, numpy=("MT19937", KEYS, 10**9, 0, 0.0)),
    dict(STATES, numpy=("MT19937", KEYS, -5, 0, 0.0)),
    dict(STATES, numpy=("MT19937", KEYS, 1, 0, "x")),
    dict(STATES, numpy=("MT19937", KEYS.astype(float), 1, 0, 0.0)),
    dict(STATES, numpy=("MT19937", np.zeros(624, np.uint32), 1, 0, 0.0)),
    dict(STATES, torch="x"),
    dict(STATES, torch=TORCH[:9]),
    dict(STATES, torch=TORCH.float()),
    dict(STATES, torch=torch.zeros_like(TORCH)),
    dict(STATES, torch=torch.full_like(TORCH, 255)),
    dict(STATES, torch=torch.cat([TORCH[:24], torch.zeros_like(TORCH[24:])])),
    dict(STATES, cuda="x"),
    dict(STATES, cuda=torch.zeros(16)),
    dict(STATES, cuda=torch.zeros(10**6, dtype=torch.uint8)),
]


@pytest.mark.parametrize("number", range(len(BAD_STATES)))
def test_bad_random_states(number):
    before = random_states.capture()
    assert random_states.problem(BAD_STATES[number])
    after = random_states.capture()
    assert before["python"] == after["python"]
    assert (before["numpy"][1] == after["numpy"][1]).all()
    assert torch.equal(before["torch"], after["torch"])


def test_good_random_states():
    lists = dict(STATES, python=(3, list(WORDS), 0.5))
    for states in (STATES, lists, dict(STATES, cuda=torch.zeros(16).byte())):
        assert random_states.problem(states) is None


MODEL = torch.nn.Linear(2, 3)
GOOD = dict(
    samples=6,
    batch=2,
    seed=0,
    sampler_seed=None,
    validated=False,
    random_states=[STATES, STATES],
    gradients={"weight": torch.zeros(3, 2)},
)
WHOLE = [-5, "x", 10**30, float("nan"), 2.5, True, torch.zeros(3), None]
BAD = [
    *(("samples", value) for value in WHOLE),
    *(("batch", value) for value in (*WHOLE, 0, 10**12)),
    *(("seed", value) for value in (*WHOLE, 10**5000)),
    *(("sampler_seed", value) for value in (*WHOLE[:-1], [1], {}, 2**70)),
    *(("validated", value) for value in ("x", None, 1)),
    *(("random_states", value) for value in ({}, None, 5, "x", [], ["x"], [None] * 9)),
    *(("gradients", value) for value in ([1], None, "x", {"nothing": torch.zeros(3)})),
    *(
        ("gradients", {"weight": value})
        for value in (
            *("x", None, torch.zeros(3), torch.zeros(2, 3)),
            *(torch.zeros(3, 2).long(), torch.zeros(3, 2).half()),
        )
    ),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_value(number):
    name, value = BAD[number]
    with pytest.raises(InputError, match="--resume: exact_resume in the checkpoint"):
        checked.state(dict(GOOD, **{name: value}), 3, MODEL)


@pytest.mark.parametrize("content", [[1], "x", {}, 5, None, dict(samples=1)])
def test_no_state(content):
    with pytest.raises(InputError, match="lacks the values"):
        checked.state(content, 3, MODEL)


def test_a_good_state():
    assert checked.state(GOOD, 3, MODEL) is GOOD
    assert checked.state(dict(GOOD, sampler_seed=3, gradients={}), 3, MODEL)


# The optimizer


def stepped(type_, **options):
    """An optimizer after a step."""
    optimizer = type_(MODEL.parameters(), lr=0.01, **options)
    for parameter in MODEL.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


OPTIMIZERS = {
    "AdamW": dict(),
    "Adam": dict(amsgrad=True),
    "SGD": dict(momentum=0.9),
    "RMSprop": dict(),
    "Adagrad": dict(),
}


@pytest.mark.parametrize("before", OPTIMIZERS)
@pytest.mark.parametrize("now", OPTIMIZERS)
def test_the_state_of_another_optimizer(before, now):
    """It either continues, or is refused before a step fails."""
    first = stepped(getattr(torch.optim, before), **OPTIMIZERS[before])
    state = copy.deepcopy(first.state_dict())
    second = getattr(torch.optim, now)(MODEL.parameters(), lr=1, **OPTIMIZERS[now])

    def load():
        wrapper = OptimWrapper(second)
        check_type(state, wrapper)
        second.load_state_dict(state)
        check_optimizers(wrapper, "x.pth")

    if before == now or (before, now) == ("Adam", "AdamW"):
        load()
        second.step()
    else:
        with pytest.raises(InputError, match="--resume"):
            load()


@pytest.mark.skipif(not hasattr(torch.optim, "Adafactor"), reason="torch is older")
def test_optimizers_that_treat_matrices_otherwise():
    """Adafactor keeps rows and columns of matrices, and the whole of vectors."""
    first = stepped(torch.optim.Adafactor)
    second = torch.optim.Adafactor(MODEL.parameters())
    wrapper, state = OptimWrapper(second), first.state_dict()
    second.load_state_dict(state)
    check_optimizers(wrapper, "x.pth")
    second.state[MODEL.weight]["row_var"] = torch.zeros(3)
    with pytest.raises(InputError, match="row_var of its optimizer's state"):
        check_optimizers(wrapper, "x.pth")


def test_several_optimizers():
    wrapper = OptimWrapperDict(
        a=OptimWrapper(stepped(torch.optim.AdamW)),
        b=OptimWrapper(stepped(torch.optim.SGD)),
    )
    check_optimizers(wrapper, "x.pth")
    state = wrapper.state_dict()
    check_type(state, wrapper)
    with pytest.raises(InputError, match="no betas, so it is not AdamW"):
        check_type(dict(a=state["b"], b=state["b"]), wrapper)


def damaged(change):
    optimizer = stepped(torch.optim.AdamW)
    for group in optimizer.param_groups:
        change(group, optimizer.state[group["params"][0]])
    return optimizer


@pytest.mark.parametrize(
    "change",
    [
        lambda group, state: group.update(lr="x"),
        lambda group, state: group.pop("betas"),
        lambda group, state: state.pop("step"),
        lambda group, state: state.update(step="x"),
        lambda group, state: state.update(exp_avg=torch.zeros(7)),
        lambda group, state: state.update(exp_avg=None),
    ],
)
def test_a_damaged_optimizer_state(change):
    def check(optimizer):
        wrapper = OptimWrapper(optimizer)
        check_optimizers(wrapper, "x.pth")

    with pytest.raises(InputError, match="--resume"):
        check(damaged(change))
    check(damaged(lambda *_: None))


# The config


def test_differences():
    before = "a = 1\nb = dict(c=[1, 2], d=dict(e='x'))\nwork_dir = 'x'\n"
    now = "a = 1\nb = dict(c=[1, 3], d=dict(e='y', f=1))\nwork_dir = 'y'\ng = 2\n"
    assert differences(before, before) == []
    assert differences(before, now) == [
        "b.c is [1, 3] and was [1, 2]",
        "b.d.e is 'y' and was 'x'",
        "b.d.f is set, and was not",
        "g is set, and was not",
    ]
    assert differences(now, before)[-1] == "g is not set"
    schedules = "s = [dict(type='A', end=1), dict(type='B')]"
    assert differences(schedules, schedules.replace("1", "2")) == [
        "s.0.end is 2 and was 1"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.abort()",
        "a = (",
        "a = " + "[" * 300,
        "a = " + "-" * 10**5 + "1",
        "a = 1" + "+1" * 10**5,
        "a\0",
        "x" * 10**7 + "y",
        "a.b = 1",
    ],
)
def test_a_config_that_is_more_than_settings(text):
    assert differences(text, "a = 1") == ["its config cannot be read"]


# Runs


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, shapes_root):
    """The work dir of a run of three iterations."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    forget_instances(ManagerMixin)
    options = ["train_cfg.max_iters=3"]
    small_runs.train(
        small_runs.small("iterations", folder, shapes_root, options=options)
    )
    return folder


@pytest.fixture
def resume(stopped, shapes_root, tmp_path):
    """Resumes a copy of ``stopped`` for one iteration, with changes."""

    def run(change=lambda cfg: None, damage=lambda checkpoint: None):
        work_dir = tmp_path / "run"
        work_dir.mkdir()
        content = torch.load(stopped / "iter_3.pth", weights_only=False)
        damage(content)
        torch.save(content, work_dir / "iter_3.pth")
        forget_instances(ManagerMixin)
        options = ["train_cfg.max_iters=4"]
        cfg = small_runs.small("iterations", work_dir, shapes_root, options=options)
        change(cfg)
        runner = small_runs.train(cfg, resume=True)
        assert runner.iter == 4
        return re.sub(r"\s+", " ", small_runs.log(work_dir))

    return run


def test_the_log_names_the_settings_that_differ(resume):
    def change(cfg):
        cfg.optim_wrapper.optimizer.lr = 0.5
        cfg.train_dataloader.batch_size = 3
        cfg.randomness = dict(seed=7)

    log = resume(change)
    for setting in (
        "optim_wrapper.optimizer.lr is 0.5 and was ",
        "train_dataloader.batch_size is 3 and was 2",
        "randomness.seed is 7 and was 0",
        "train_cfg.max_iters is 4 and was 3",
        "the next learning rate is 0.06688 and was 0.0004013",
    ):
        assert setting in log


def test_another_optimizer_ends_in_a_message(resume):
    def change(cfg):
        cfg.optim_wrapper.optimizer = dict(type="SGD", lr=0.1, momentum=0.9)

    with pytest.raises(InputError, match=r"so it is not SGD\. Use the config"):
        resume(change)


def test_a_crafted_state_ends_in_a_message(resume, tmp_path):
    def damage(checkpoint):
        checkpoint["exact_resume"]["samples"] = -5

    with pytest.raises(InputError, match="counts -5 used images"):
        resume(damage=damage)
    assert os.listdir(tmp_path / "run") == ["iter_3.pth"]
