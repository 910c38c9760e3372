"""Two processes over gloo compute the results of one; if one ends, the run ends."""

import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from mmengine.hooks import Hook

from convnext_dense.config.options import load_config
from convnext_dense.engine.launch import _share_cores, joined
from convnext_dense.engine.machine import fit_to_machine, fit_wrapper_to_cpu
from convnext_dense.engine.runner import run
from convnext_dense.errors import LostProcessError

from ..helpers import custom_data, small_runs
from ..helpers.in_processes import free_port, pair
from ..helpers.paths import ROOT
from ..helpers.runs import DET, NO_WORKERS, SEG

LARGEST = 1e-5  # of the relative differences between gradients

# Nothing depends on the other images of a batch or on random numbers: no batch norm, no
# dropout, no drop path, no flip.
SEGMENTATION = """
_base_ = {base!r}
custom_imports = dict(imports=['convnext_dense', 'tests.helpers.in_processes'])
norm = dict(_delete_=True, type='GN', num_groups=8)
model = dict(
    decode_head=dict(norm_cfg=norm, dropout_ratio=0),
    auxiliary_head=dict(norm_cfg=norm, dropout_ratio=0))
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
custom_hooks = [dict(type='Gradients', file='gradients')]
"""

# The same for detection. In addition, the divisor of each loss must not depend on which
# images share a batch. In the recipes it does, with one process as with many: losses
# are divided by the number of samples in the batch. So here every anchor and every
# proposal is either positive or negative, and all of them are sampled: each image has
# the same number. The mask head is left out: its loss is a mean over positives alone.
# The box heads have few ReLUs, since rounding moves one input in ten million across the
# kink.
DETECTION = """
_base_ = {base!r}
custom_imports = dict(imports=[
    'convnext_dense', 'tests.helpers.in_processes', 'tests.helpers.near_truth'])

def matched(iou):
    return dict(
        type='MaxIoUAssigner', pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou,
        match_low_quality=False, ignore_iof_thr=-1)

taken = dict(
    type='RandomSampler', num=10**6, pos_fraction=0.5, neg_pos_ub=-1,
    add_gt_as_proposals=False)
model = dict(
    type='NearTruth',
    neck=dict(norm_cfg=None),
    roi_head=dict(
        mask_roi_extractor=None,
        mask_head=None,
        bbox_head=[
            dict(
                type='ConvFCBBoxHead', num_shared_fcs=1, fc_out_channels=128,
                in_channels=64,
                roi_feat_size=7, num_classes=5,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder', target_means=[0.] * 4,
                    target_stds=[0.1, 0.1, 0.2, 0.2]),
                reg_class_agnostic=True,
                reg_decoded_bbox=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False),
                loss_bbox=dict(type='GIoULoss', loss_weight=6.0))
            for _ in range(3)
        ]),
    train_cfg=dict(
        rpn=dict(assigner=matched(0.5), sampler=taken),
        rpn_proposal=dict(nms_pre=300, max_per_img=50, nms=dict(iou_threshold=0.9)),
        rcnn=[
            dict(assigner=matched(0.1), sampler=taken, pos_weight=-1, debug=False)
            for _ in range(3)
        ]))
train_cfg = dict(max_epochs=1, val_begin=9)
train_dataloader = dict(dataset=dict(indices=4))
custom_hooks = [dict(type='Gradients', file='gradients')]
"""


def write_config(folder, text, base):
    """Write a config of the text above, without RandomFlip."""
    file = folder / f"{base.stem}.py"
    file.write_text(text.format(base=str(base)))
    pipeline = load_config(str(base)).train_dataloader.dataset.pipeline
    steps = [dict(step) for step in pipeline if step.type != "RandomFlip"]
    assert len(steps) == len(pipeline) - 1
    with file.open("a") as end:
        end.write(f"train_pipeline = {steps}\n")
        end.write("train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n")
    return file


def test_an_infinite_loss_of_one_process_stops_the_step_of_both(shapes_root, tmp_path):
    cfg = small_runs.small("iterations", tmp_path / "run", shapes_root)
    cfg.custom_imports.imports.append("tests.helpers.in_processes")
    cfg.custom_hooks = [dict(type="InfiniteLoss")]
    cfg.train_cfg.update(max_iters=3, val_interval=9)
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=9)
    cfg.dump(tmp_path / "c.py")
    first, second = pair([["train", tmp_path / "c.py"]], tmp_path)
    assert "losses are finite; a loss or gradient of another process, or of" in first
    assert "iteration 2 is not finite: loss: loss inf, loss_more inf" in second
    contents = (
        torch.load(tmp_path / f"run/iter_{number}.pth", weights_only=False)
        for number in (1, 2, 3)
    )
    weights = [content["state_dict"] for content in contents]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[1][n], weights[2][n]) for n in weights[0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shapes_root):
    """Train and test with both toolboxes in two processes.

    Returns:
        The folder, and the outputs of rank 0 and rank 1.
    """
    folder = tmp_path_factory.mktemp("two")
    options = ["--cfg-options", *NO_WORKERS, f"data_root={shapes_root}"]
    halves = [*options, "train_dataloader.batch_size=2"]
    seg = write_config(folder, SEGMENTATION, SEG)
    det = write_config(folder, DETECTION, DET)

    def gradients(task):
        return f"custom_hooks.0.file={folder / task}.two"

    tools = [
        ["train", seg, "--work-dir", "page", *halves, gradients("seg")],
        ["train", det, "--work-dir", "det", *halves, gradients("det")],
        ["test", seg, "page/iter_2.pth", "--work-dir", "seg", *options],
        ["test", det, "det/epoch_1.pth", "--work-dir", "det", *options],
    ]
    tools[3][3:3] = ["--out", "det.two.pkl"]
    said = pair(tools, folder)
    return folder, said


@pytest.mark.parametrize("task", ["seg", "det"])
def test_two_processes_have_the_gradients_of_one(runs, tool, shapes_root, task):
    folder, _ = runs
    base = dict(seg=SEG, det=DET)[task]
    done = tool(
        *("train", folder / f"{base.stem}.py", "--cfg-options", *NO_WORKERS),
        f"data_root={shapes_root}",
        f"custom_hooks.0.file={folder / task}.one",
        *("train_cfg.max_iters=1" if task == "seg" else "train_cfg.max_epochs=1",),
        *("val_cfg=None", "val_dataloader=None", "val_evaluator=None"),
    )
    assert done.code == 0

    def load(name):
        return torch.load(folder / f"{task}.{name}")

    # The processes take the first four images in turn.
    images = load("one.images")
    assert load("two.images") == images[::2]
    assert load("two.1.images") == images[1::2]
    assert len(set(images)) == 4

    alone, first, second = load("one"), load("two"), load("two.1")
    assert list(alone) == list(first) == list(second)
    differences = {}
    for name, gradient in alone.items():
        assert torch.equal(first[name], second[name])
        size = gradient.norm()
        assert size > 0, name
        differences[name] = float((first[name] - gradient).norm() / size)
    worst = max(differences, key=differences.get)
    print(f"{task}: {differences[worst]:.1e} at most, {worst}")
    assert differences[worst] < LARGEST, worst


@pytest.mark.parametrize(
    ("task", "checkpoint", "names"),
    [
        ("seg", "page/iter_2.pth", ["aAcc", "mIoU", "mAcc"]),
        ("det", "det/epoch_1.pth", ["coco/bbox_mAP", "coco/segm_mAP"]),
    ],
)
def test_two_processes_measure_what_one_does(
    runs, tool, shapes_root, task, checkpoint, names
):
    """With three images, two processes test one image twice, which counts once."""
    folder, (said, _) = runs
    base = dict(seg=SEG, det=DET)[task]
    out = ["--out", folder / "det.one.pkl"] if task == "det" else []
    done = tool(
        *("test", folder / f"{base.stem}.py", folder / checkpoint, *out),
        *("--work-dir", "run", "--cfg-options", *NO_WORKERS),
        f"data_root={shapes_root}",
    )
    assert done.code == 0
    by_two = said.split("train is over")[2].split("test is over")[task == "det"]
    for name in names:
        (alone,), (together,) = (
            re.findall(rf" {name}: (\S+)", text) for text in (done.out, by_two)
        )
        assert alone == together
        assert 0 < float(alone) < (1 if task == "det" else 100)
    if task == "det":
        alone, together = (
            pickle.loads((folder / f"det.{name}.pkl").read_bytes())
            for name in ("one", "two")
        )
        assert len(alone) == len(together) == 3
        assert [p["img_id"] for p in alone] == [p["img_id"] for p in together]


def test_the_page_of_a_run_of_two_processes(runs, tool, shapes_root):
    """One process that makes the page again from the same weights shows the same."""
    folder, _ = runs

    def shown(page):
        text = page[page.index("<h2>Classes</h2>") : page.index("<h2>Environment</h2>")]
        return re.findall(
            r"<table>.*?</table>|<figcaption>.*?<|image/jpeg;base64,[^\"]*", text, re.S
        )

    page = folder / "page/report.html"
    by_two = page.read_text()
    done = tool("report", folder / "page", "--out", folder / "one.html")
    assert done.code == 0
    by_one = (folder / "one.html").read_text()
    assert len(shown(by_one)) > 6
    assert shown(by_one) == shown(by_two)


def test_only_the_first_process_prints(runs):
    _, (first, second) = runs
    assert first.count("no GPU here: NCCL by gloo replaced") == 4
    assert "Iter(train) [2/2]" in first
    for word in ("no GPU here", "(train)", "mIoU", "the run report"):
        assert word not in second
    assert "Grad strides do not match" not in first + second  # DDP would copy each


def torchrun(*command):
    """Run a tool in two processes as a user does; return exit code and output."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"),
            *(f"--master_port={free_port()}", *map(str, command)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


def test_an_error_of_the_first_process_ends_all(tmp_path):
    """The first process alone checks the data, while the other waits for it."""
    content = custom_data.coco(tmp_path / "images")
    content["annotations"][0]["bbox"] = [0, 0, float("nan"), 5]
    file = tmp_path / "train.json"
    file.write_text(json.dumps(content))
    code, said = torchrun(
        *(ROOT / "tools/train.py", DET, "--launcher", "pytorch"),
        *("--train-json", file, "--train-images", tmp_path / "images"),
        *("--work-dir", tmp_path / "run"),
    )
    assert code != 0
    assert said.count("the data has errors") == 1
    assert "_command.py" not in said  # no stack but torchrun's own
    assert not (tmp_path / "run").exists()


LAUNCHED = {
    "pytorch": r"RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT\. .*torchrun --nproc",
    "slurm": r"SLURM_PROCID, SLURM_NTASKS, .*slurm_train\.sh PARTITION",
    "mpi": r"OMPI_COMM_WORLD_RANK, .*mpirun -n N",
}


@pytest.mark.parametrize("launcher", LAUNCHED)
def test_a_launcher_that_did_not_start_the_process(tool, shapes_root, launcher):
    for name in ("train", "test"):
        arguments = [DET, *["nothing.pth"] * (name == "test"), "--launcher", launcher]
        done = tool(name, *arguments, "--cfg-options", f"data_root={shapes_root}")
        assert done.code == 2
        assert re.search(LAUNCHED[launcher], done.err, re.DOTALL), done.err


def test_torchrun_without_a_launcher(tool, monkeypatch):
    """Without --launcher, each process would write its own run into one folder."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = tool("train", DET)
    assert done.code == 2
    assert "torchrun has started 2 processes" in done.err
    assert "--launcher pytorch" in done.err


class EndsTheLoader(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()


def test_a_data_loader_worker_that_is_killed(shapes_root, tmp_path):
    options = [f"data_root={shapes_root}", "val_cfg=None", "val_evaluator=None"]
    options += ["val_dataloader=None", "train_dataloader.persistent_workers=False"]
    cfg = load_config(str(SEG), options, str(tmp_path / "run"))
    with pytest.raises(LostProcessError, match=r"data-loader worker.*--resume"):
        run(cfg, "train", hooks=[EndsTheLoader()])


@pytest.mark.parametrize("flexible", [False, True])
def test_the_models_wrapper_keeps_what_the_config_says(flexible):
    """Also if the config is the dump of an earlier run, which was fitted already."""
    cfg = load_config(str(SEG), launcher="pytorch")
    cfg.find_unused_parameters = True
    configured = dict(static_graph=True, device_ids=[0])
    if flexible:
        cfg.runner_type = "FlexibleRunner"
        cfg.strategy = dict(
            type="DDPStrategy", sync_bn="torch", model_wrapper=configured
        )
    else:
        cfg.model_wrapper_cfg = configured
    fit_to_machine(cfg)
    assert not fit_wrapper_to_cpu(cfg)
    wrapper = cfg.strategy.model_wrapper if flexible else cfg.model_wrapper_cfg
    assert wrapper == dict(
        type="MMDistributedDataParallel",
        **dict(broadcast_buffers=False, find_unused_parameters=True),
        **dict(static_graph=True, device_ids=None),
    )
    assert cfg.env_cfg.dist_cfg.backend == "nccl"  # for machines with GPUs
    assert not flexible or cfg.strategy.sync_bn == "torch"


def test_cores_are_shared(monkeypatch):
    """torchrun gives each process one thread, however many cores there are."""
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12))
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "1"})
    _share_cores()
    assert threads == []  # Slurm binds each process to its own cores
    monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", "5")
    _share_cores()
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "3")  # set by the user
    _share_cores()
    assert threads == [2]


def test_other_errors_do_not_change():
    """A single process has no other to lose, whatever a message says."""
    cfg = load_config(str(SEG))
    with (
        pytest.raises(RuntimeError, match=r"^Connection closed") as raised,
        joined(cfg),
    ):
        raise RuntimeError("Connection closed by peer")
    assert type(raised.value) is RuntimeError
