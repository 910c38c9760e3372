"""Runs with trackers, whose own readers read back what they wrote."""

import struct

import pytest

from convnext_dense.engine import trackers
from convnext_dense.engine.runner import run
from convnext_dense.engine.trackers import TrackerHook, use_trackers
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
            kind = record.WhichOneof("record_type")
            yield kind, getattr(record, kind)


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
    print(
        {k: len(v) for k, v in records.items()},
        records.get("artifact"),
        records.get("request"),
    )
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
