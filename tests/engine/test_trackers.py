"""Runs with trackers, whose own readers read back what they wrote."""

import struct
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from convnext_dense.engine import trackers
from convnext_dense.engine.runner import run
from convnext_dense.engine.trackers import hook, mlflow_tracker, use_trackers
from convnext_dense.errors import InputError

from ..helpers import small_runs

OFFLINE = dict(WANDB_MODE="offline", WANDB_SILENT="true")


def trained(work_dir, data, resume=False, iters=2, **flags):
    """A run of a segmentor with trackers, whose report is there already."""
    cfg = small_runs.small("iterations", work_dir, data)
    cfg.train_cfg.update(max_iters=iters, val_interval=iters)
    cfg.default_hooks.checkpoint.update(interval=iters, save_best=None)
    cfg.resume = resume
    work_dir.mkdir(exist_ok=True)
    (work_dir / "report.html").write_text("<html>the report</html>")
    run(cfg, "train", hooks=use_trackers(cfg, "train", **flags))


def test_tensorboard(tmp_path, shapes_root):
    """Both starts of a run are one curve in one folder."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    trained(tmp_path / "run", shapes_root, tensorboard=True)
    trained(tmp_path / "run", shapes_root, resume=True, iters=4, tensorboard=True)
    (folder,) = (tmp_path / "run/tensorboard").iterdir()
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    assert {"loss", "lr", "mIoU"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("mIoU")] == [2, 4]
    images = [tag for tag in events.Tags()["images"] if tag.startswith("predictions/")]
    assert len(images) == 3  # of the validation split
    (text,) = events.Tensors("config/text_summary")[0].tensor_proto.string_val
    assert any(line.startswith(b"    model=") for line in text.splitlines()), text


def wandb_records(file):
    """The records of an offline run: a log in LevelDB's format of protobuf messages.

    Blocks of 32 kB have chunks: checksum (4 bytes), length (2), type (1) and content.
    Of the types, 1 is a whole record, 2 its beginning, 3 its middle and 4 its end.
    """
    from wandb.proto import wandb_internal_pb2

    content, place, whole = file.read_bytes(), 7, b""  # behind the file's own header
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        length, chunk = struct.unpack_from("<HB", content, place + 4)
        if left < 7 or chunk == 0:
            place += left
            continue
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if chunk in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            field = record.WhichOneof("record_type")
            yield field, getattr(record, field)


def test_wandb(tmp_path, shapes_root, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    trained(tmp_path / "run", shapes_root, wandb="shapes")
    trained(tmp_path / "run", shapes_root, resume=True, iters=4, wandb="shapes")
    first, second = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name  # one run
    records = {}
    for file in (first, second):
        for kind, record in wandb_records(file):
            records.setdefault(kind, []).append(record)
    rows = [
        {item.key or item.nested_key[0]: item.value_json for item in row.item}
        for row in records["history"]
    ]
    losses = [row for row in rows if "loss" in row]
    assert [int(row["iter"]) for row in losses] == [1, 2, 3, 4]
    assert [int(row["iter"]) for row in rows if "mIoU" in row] == [2, 4]
    assert sum(any("predictions/" in name for name in row) for row in rows) == 6
    names = {item.key for row in records["config"] for item in row.update}
    assert "optim_wrapper" in names
    files = [e.path for a in records["artifact"] for e in a.manifest.contents]
    assert files == ["report.html"] * 2  # and no code
    assert records["run"][0].project == "shapes"
    assert [exit_.exit_code for exit_ in records["exit"]] == [0, 0]


def test_mlflow(tmp_path, shapes_root, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()
    trained(tmp_path / "run", shapes_root, mlflow=uri)
    trained(tmp_path / "run", shapes_root, resume=True, iters=4, mlflow=uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("convnext_dense")
    (written,) = client.search_runs([experiment.experiment_id])  # of both starts
    assert written.info.status == "FINISHED"
    assert written.info.run_name == "run"
    assert written.data.params["model.backbone.type"] == "ConvNeXt"
    name = written.info.run_id
    assert [m.step for m in client.get_metric_history(name, "loss")] == [1, 2, 3, 4]
    assert [m.step for m in client.get_metric_history(name, "mIoU")] == [2, 4]
    files = {file.path for file in client.list_artifacts(name)}
    assert {"config.py", "report.html", "predictions"} <= files
    pictures = client.list_artifacts(name, "predictions")
    assert len([p for p in pictures if p.path.endswith("_2.png")]) == 3


def start(work_dir, resume=False, training=True):
    return trackers.Start(work_dir, resume, training)


def tracker_and_client(tmp_path, monkeypatch, **settings):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()
    tracker = trackers.MLflowTracker(start(tmp_path / "run", **settings), uri)
    return tracker, mlflow.MlflowClient(uri)


def test_run_that_fails_is_one_for_mlflow(tmp_path, monkeypatch):
    tracker, client = tracker_and_client(tmp_path, monkeypatch)
    tracker.add_scalars({"coco/caf\u00e9|s_precision": 0.5}, 3)
    tracker.close()
    (run_,) = client.search_runs(ids(client))
    assert run_.info.status == "FAILED"
    assert run_.data.metrics == {"coco/caf\u00e9_s_precision": 0.5}


def ids(client):
    return [e.experiment_id for e in client.search_experiments()]


def test_training_goes_on_without_mlflow(tmp_path, monkeypatch):
    """After one error, nothing is tried again: each takes minutes."""
    tracker, _ = tracker_and_client(tmp_path, monkeypatch)
    tracker.add_scalars({"a": 1.0}, 1)
    calls, said = [], []

    def lost(*args):
        calls.append(args)
        raise OSError("no route to host")

    monkeypatch.setattr(tracker._mlflow, "log_metrics", lost)
    monkeypatch.setattr(mlflow_tracker, "print_log", lambda text, *_: said.append(text))
    for step in (2, 3):
        tracker.add_scalars({"a": 1.0}, step)
    assert len(calls) == len(said) == 1
    assert (
        "MLflow gets no more of this run, which goes on: OSError: no route" in said[0]
    )
    tracker._lost = False
    tracker.close()


def test_a_test_is_a_run_of_its_own(tmp_path, monkeypatch):
    for training in (True, False):
        tracker, client = tracker_and_client(
            tmp_path, monkeypatch, training=training, resume=True
        )
        tracker.add_scalars({"mIoU": 1.0}, 0)
        tracker.close()
    names = {run_.info.run_name for run_ in client.search_runs(ids(client))}
    assert names == {"run", "run (test)"}


@pytest.mark.parametrize(
    ("flags", "missing", "says"),
    [
        (dict(tensorboard=True), "tensorboard", "pip install tensorboard"),
        (dict(wandb=""), "wandb", "pip install wandb"),
        (dict(mlflow="http://localhost"), "mlflow", "pip install mlflow"),
        (dict(mlflow=""), "sqlalchemy", "with a database needs .* pip install mlflow"),
    ],
)
def test_missing_package(tmp_path, monkeypatch, flags, missing, says):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    specs = {missing: None}
    monkeypatch.setattr(trackers, "find_spec", lambda name: specs.get(name, name))
    with pytest.raises(InputError, match=says):
        use_trackers(Config(dict(work_dir=str(tmp_path))), "train", **flags)
    assert not list(tmp_path.iterdir())


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(hook, "is_main_process", lambda: False)
    cfg = Config(dict(work_dir=str(tmp_path)))
    tracking = hook.TrackerHook([trackers.TensorboardTracker(start(tmp_path))])
    runner = SimpleNamespace(cfg=cfg, work_dir=str(tmp_path), val_loop=None)
    tracking.before_run(runner)
    tracking.after_val_iter(runner, 0, None, [object()])
    tracking.after_val_epoch(runner)
    tracking.after_train(runner)
    assert not list(tmp_path.iterdir())


def test_another_folder_is_not_continued(tmp_path):
    """``trackers.json`` of a work dir from elsewhere names no other folder."""
    pytest.importorskip("tensorboard")
    (tmp_path / trackers.STATE).write_text('{"tensorboard": "../elsewhere"}')
    tracker = trackers.TensorboardTracker(start(tmp_path, resume=True))
    tracker.add_scalars({"a": 1.0}, 1)
    tracker.close()
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert list(folder.iterdir())
