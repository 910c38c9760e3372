"""``push`` with the hub's own client, against a hub on this machine."""

import json
import shutil
import time

import pytest
import safetensors
import torch
import yaml
from mmengine.config import Config

from convnext_dense import checkpoints
from convnext_dense.checkpoints import safetensors_file
from convnext_dense.commands.push import card
from convnext_dense.commands.push import hub as push_hub
from convnext_dense.commands.push.portable import portable
from convnext_dense.commands.push.push import push
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError

from ..helpers import hub_server, small_runs
from ..helpers.hub_server import Hub

MAP = dict(aAcc=62.5, mIoU=0.25)
SECRET = "hf_never_to_be_seen"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, shapes_root):
    """A work dir of a segmentor, as a run leaves it, with absolute paths."""
    work_dir = tmp_path_factory.mktemp("me") / "run"
    cfg = small_runs.small("iterations", work_dir, shapes_root)
    cfg.visualizer.vis_backends = [
        dict(type="LocalVisBackend"),
        dict(type="WandbVisBackend", init_kwargs=dict(api_key=SECRET)),
    ]
    model = build_model(cfg, "cpu")
    cfg.load_from = str(work_dir / "earlier.pth")
    classes = ("ground", "disc", "squ|are", "<b>", "star", "cross")
    meta = dict(
        cfg=cfg.pretty_text,
        dataset_meta=dict(classes=classes, palette=[(0, 0, n) for n in range(6)]),
        epoch=0,
        iter=9,
        experiment_name=str(work_dir),
    )
    logs = work_dir / "20260101_000000/vis_data"
    logs.mkdir(parents=True)
    rows = [dict(loss=1.0, iter=9, step=9), dict(**MAP, step=9)]
    (logs / "scalars.json").write_text("\n".join(map(json.dumps, rows)))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), work_dir / "iter_9.pth")
    (work_dir / "last_checkpoint").write_text(str(work_dir / "iter_9.pth"))
    return work_dir


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, and a client with a token that it accepts."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    settings = dict(HF_TOKEN=hub_server.TOKEN)
    with (
        hub_server.running() as address,
        hub_server.client(
            monkeypatch, tmp_path / "home", HF_ENDPOINT=address, **settings
        ),
    ):
        yield address


def refused(*args, **kwargs):
    with pytest.raises(InputError) as error:
        push(*args, **kwargs)
    return str(error.value)


def test_one_commit_has_everything(run_dir, hub):
    push(run_dir, "me/shapes", license_id="apache-2.0", pictures=1)
    ((repo, branch, names),) = Hub.commits
    assert (repo, branch) == ("me/shapes", "main")
    assert sorted(names) == [
        *("README.md", "config.py", "model.safetensors", "pictures/1.jpg")
    ]
    assert len(Hub.uploaded) == 1  # the weights, as a large file
    assert not Hub.private
    for name, content in Hub.files.items():
        for private in (SECRET, str(run_dir.parent), "Wandb", "earlier"):
            assert private.encode() not in content, name


def test_the_card_says_what_the_model_is(run_dir, tmp_path):
    push(run_dir, "me/shapes", dry_run=tmp_path, license_id="mit")
    card = (tmp_path / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "mit"
    assert front["library_name"] == "convnext_dense"
    assert front["pipeline_tag"] == "image-segmentation"
    (index,) = front["model-index"]
    values = {m["name"]: m["value"] for m in index["results"][0]["metrics"]}
    assert values == MAP
    assert "| mIoU | 0.25 |" in body
    assert "after iteration 9" in body
    assert r"squ\|are, &lt;b&gt;" in body
    assert "convnext-dense predict hf://me/shapes photo.jpg" in body
    assert body.count("![prediction](pictures/") == 3  # images of the split


def test_a_card_without_what_is_not_known(run_dir, tmp_path):
    shutil.copy(run_dir / "iter_9.pth", tmp_path / "alone.pth")
    (tmp_path / "run").mkdir()
    push(
        tmp_path / "run",
        "me/shapes",
        str(tmp_path / "alone.pth"),
        pictures=0,
        dry_run=tmp_path / "out",
    )
    card = (tmp_path / "out/README.md").read_text()
    for word in ("license", "model-index", "Metrics", "prediction]", "base_model"):
        assert word not in card
    assert not (tmp_path / "out/pictures").exists()


def test_pushed_model_is_used_by_name(run_dir, hub, tool, shapes_root, tmp_path):
    push(run_dir, "me/shapes", revision="v1", pictures=0)
    address = "hf://me/shapes@v1"
    content = checkpoints.read(address)
    original = torch.load(run_dir / "iter_9.pth", weights_only=False)
    assert content["meta"]["dataset_meta"]["classes"][1] == "disc"
    assert original["state_dict"].keys() == content["state_dict"].keys()
    image = sorted((shapes_root / "images/val").iterdir())[0]
    done = tool("predict", address, image, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out/labels").iterdir())) == 1
    done = tool("convert_checkpoint", address, "x.safetensors", "--to", "native")
    assert done.code == 0, done.err
    kept = checkpoints.read(tmp_path / "x.safetensors")["meta"]
    assert kept == content["meta"]


def test_config_of_the_hub_is_not_run(run_dir, hub, tool, shapes_root, tmp_path):
    """Neither the config in the header nor the file beside it is executed."""
    weights = checkpoints.read(run_dir / "iter_9.pth")["state_dict"]
    images = shapes_root / "images/val"
    marker = tmp_path / "executed"
    code = f"open({str(marker)!r}, 'w')\n"
    text = checkpoints.read(run_dir / "iter_9.pth")["meta"]["cfg"]
    meta = dict(cfg=code + text, dataset_meta=dict(classes=list("abcdef")))
    header = safetensors_file.metadata(meta)
    content = safetensors.torch.save(dict(weights), header)
    hub_server.add("evil/x", **{"model.safetensors": content, "config.py": code})
    done = tool("predict", "hf://evil/x", images, "--out", tmp_path / "out")
    assert done.code == 2
    assert "None of its code was run" in done.err
    assert not marker.exists()


def test_existing_files_are_replaced_only_when_asked(run_dir, hub):
    names = "README.md", "notes.txt", "pictures/mine.jpg", "pictures/9.jpg"
    hub_server.add("me/shapes", **dict.fromkeys(names, b"mine"))
    said = refused(run_dir, "me/shapes", pictures=0)
    assert "me/shapes has README.md, pictures/9.jpg already: add --overwrite" in said
    assert not Hub.commits
    push(run_dir, "me/shapes", pictures=0, overwrite=True)
    assert Hub.files["me/shapes/notes.txt"] == b"mine"
    assert Hub.files["me/shapes/pictures/mine.jpg"] == b"mine"
    assert "me/shapes/pictures/9.jpg" not in Hub.files  # of an earlier push
    assert Hub.files["me/shapes/README.md"] != b"mine"
    push(run_dir, "me/shapes", pictures=0, revision="v2", private=False, overwrite=True)
    assert Hub.branches["me/shapes"] == {"main", "v2"}


def test_private_is_private(run_dir, hub):
    push(run_dir, "me/secret", pictures=0, private=True)
    assert Hub.private == {"me/secret"}
    hub_server.add("me/open")
    said = refused(run_dir, "me/open", pictures=0, private=True)
    assert "me/open exists and is public: make it private" in said
    assert len(Hub.commits) == 1


@pytest.mark.parametrize(
    ("request_", "status", "server", "says"),
    [
        ("GET /api/whoami", 401, "Invalid token", "does not accept the token: make"),
        ("POST /api/repos", 403, "No rights", "The token may not write to me: name a"),
        ("POST /me/x.git/info/lfs", 413, "Too big", "has no room for the files"),
        ("POST /me/x.git/info/lfs", 403, "storage quota", "has no room for the files"),
        ("PUT /storage", 503, "busy", r"has a failure \(HTTP 503\). Try"),
        ("POST /api/models/me/x/commit", 500, "oops", r"failure \(HTTP 500\). Try"),
        ("POST /api/models/me/x/commit", 412, "changed", "push again"),
        ("POST /api/models/me/x/commit", 429, "slow down", "too many requests"),
    ],
)
def test_errors_of_the_hub(run_dir, hub, folder, request_, status, server, says):
    Hub.refuse = {request_: (status, server)}
    with pytest.raises(InputError, match=f"me/x could not be pushed: .*{says}"):
        check_and_upload(folder)
    assert not Hub.commits
    assert not Hub.files


def check_and_upload(folder):
    target = push_hub.Target("me/x", None, private=False, overwrite=False)
    target.check(["README.md"])
    target.upload(folder)


@pytest.fixture
def folder(tmp_path):
    """Files to upload, one of them large."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/README.md").write_text("# x")
    (tmp_path / "files/model.safetensors").write_bytes(b"weights")
    return tmp_path / "files"


def test_without_a_token(run_dir, hub, tmp_path, monkeypatch):
    with hub_server.client(monkeypatch, tmp_path / "new", HF_ENDPOINT=hub):
        said = refused(run_dir, "me/x")
    assert "no token is stored on this machine. Run `hf auth login`" in said


def test_without_a_network(run_dir, tmp_path, monkeypatch):
    nobody = dict(HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN=hub_server.TOKEN)
    with hub_server.client(monkeypatch, tmp_path, **nobody):
        said = refused(run_dir, "me/x")
    assert "http://127.0.0.1:9 opens in a browser" in said
    assert "`hf upload me/x DIR`" in said


@pytest.mark.parametrize("name", ["me", "a/b/c", "me/a b", "-/x--y", "me/"])
def test_wrong_names(run_dir, name):
    assert f"{name} is not the name of a repository" in refused(run_dir, name)


def test_command(run_dir, hub, tool):
    """The environment chooses the hub and the token."""
    done = tool("push", run_dir, "me/x", "--pictures", "0")
    assert done.code == 0, done.err
    assert f"to {hub}/me/x" in done.out
    assert "Its name for every command: hf://me/x" in done.out


@pytest.mark.parametrize(
    ("source", "base"),
    [
        ("timm://convnext_tiny.fb_in22k", "timm/convnext_tiny.fb_in22k"),
        ("hf://facebook/x@v1/a.pth", "facebook/x"),
        ("https://example.org/a.pth", None),
    ],
)
def test_base_model(source, base):
    init_cfg = dict(type="Pretrained", checkpoint=source)
    assert (
        card._base_model(Config(dict(model=dict(backbone=dict(init_cfg=init_cfg)))))
        == base
    )


CONFIG = dict(
    work_dir="/home/me/runs/x",
    load_from="weights.pth",
    data_root="/home/me/sets/coco/",
    model=dict(
        type="FCN",
        backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="timm://a.b")),
        neck=dict(init_cfg=dict(type="Pretrained", checkpoint="old/neck.pth")),
        pretrained="/home/me/x.pth",
        cls_token="cls_token",
    ),
    val_dataloader=dict(
        dataset=dict(
            data_root="/home/me/sets/coco/",
            ann_file="/home/me/sets/coco/annotations/val.json",
            data_prefix=dict(img=r"D:\\photos\\val", seg="labels/val"),
            backend_args=dict(backend="petrel", access_key="geheim"),
        )
    ),
    url="https://me:geheim@example.org/a.pth?token=geheim",
    hub_token="geheim",
    visualizer=dict(type="V", vis_backends=[dict(type="MLflowVisBackend", uri="x")]),
)


def test_config_without_paths_and_secrets():
    text = "\n".join(f"{name} = {value!r}" for name, value in CONFIG.items())
    cfg = portable(text, "x.pth")
    assert cfg.data_root == "data/coco/"
    dataset = cfg.val_dataloader.dataset
    assert dataset.ann_file == "data/coco/annotations/val.json"
    assert dataset.data_prefix == dict(img="data/val", seg="labels/val")
    assert cfg.model.backbone.init_cfg.checkpoint == "timm://a.b"
    assert cfg.model.neck.init_cfg is None
    assert cfg.model.cls_token == "cls_token"
    assert cfg.url == "https://example.org/a.pth"
    assert cfg.visualizer.vis_backends == [dict(type="LocalVisBackend")]
    for word in ("/home", "geheim", "petrel", "weights.pth", "x.pth", "MLflow"):
        assert word not in cfg.pretty_text
    assert Config.fromstring(cfg.pretty_text, ".py").data_root == "data/coco/"


def test_config_with_code_is_not_pushed():
    with pytest.raises(InputError, match=r"the config in x\.pth cannot be pushed"):
        portable("import os", "x.pth")
