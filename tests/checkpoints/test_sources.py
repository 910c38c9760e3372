"""From what a user names to a file: URLs, hubs, mmengine's lists."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import safetensors.torch
import torch
from mmengine.runner import CheckpointLoader, checkpoint

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.checkpoints import sources
from convnext_dense.errors import InputError
from convnext_dense.patches import checkpoint_loading

from ..helpers.running import shell

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


@pytest.fixture
def torch_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub/checkpoints"


def test_url_is_downloaded_once_into_torchs_cache(tmp_path, torch_hub, monkeypatch):
    remote = tmp_path / "there.pth"
    torch.save(dict(model={}), remote)
    asked = []

    def download(url, target):
        asked.append(url)
        os.link(remote, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert "model" in checkpoints.read("https://example.org/a/there.pth?x=1")
    assert asked == ["https://example.org/a/there.pth?x=1"]
    assert (torch_hub / "there.pth").exists()


@pytest.mark.parametrize("shared_disk", [True, False])
def test_another_rank_downloads_only_what_its_disk_lacks(
    torch_hub, monkeypatch, shared_disk
):
    monkeypatch.setattr(sources, "get_rank", lambda: 1)
    target, asked = torch_hub / "a.pth", []

    def barrier():  # by then rank 0 has downloaded the file
        if shared_disk:
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.save({}, target)

    def download(url, path):
        asked.append(url)
        torch.save({}, path)

    monkeypatch.setattr(sources, "barrier", barrier)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert checkpoints.read("https://example.org/a.pth") == {}
    assert len(asked) == (0 if shared_disk else 1)


def test_failed_download_says_what_to_do(torch_hub):
    url = "http://127.0.0.1:9/convnext.pth"  # nobody listens there
    with pytest.raises(InputError, match=r"(?s)could not be downloaded.*init_cfg") as e:
        checkpoints.read(url)
    assert url in str(e.value)
    assert "init_cfg=None" in str(e.value)
    assert not list(torch_hub.iterdir())


@pytest.mark.parametrize(
    ("source", "listed", "name"),
    [
        ("torchvision://resnet50", "torchvision", "resnet50"),
        ("modelzoo://convnext_tiny.imagenet1k_v1", "torchvision", None),
        ("open-mmlab://resnet50_caffe", "external", "detectron/resnet50_caffe"),
        ("openmmlab://detectron2/resnet50_caffe", "external", None),
        ("mmcls://vgg11", "mmcls", None),
    ],
)
def test_mmengines_lists_of_urls(torch_hub, source, listed, name):
    """The right file is in the cache already: nothing is downloaded."""
    urls = getattr(checkpoint, f"get_{listed}_models")()
    file = urls[name or source.partition("://")[2]].split("/")[-1]
    torch_hub.mkdir(parents=True)
    weights = {"backbone.a": torch.rand(2)}
    torch.save(dict(state_dict=weights), torch_hub / file)
    loaded = CheckpointLoader.load_checkpoint(source)["state_dict"]
    key = "a" if source.startswith("mmcls") else "backbone.a"  # as mmengine does
    assert torch.equal(loaded[key], weights["backbone.a"])


def test_name_that_no_list_has():
    with pytest.raises(InputError, match=r"torchvision://resnet51: mmengine knows no"):
        checkpoints.locate("torchvision://resnet51")


def test_every_scheme_of_mmengine_is_read_safely():
    loaders = set(CheckpointLoader._schemes.values())
    assert loaders == {checkpoint_loading._load}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "timm://convnext_tiny",
            r"with its tag, such as timm://convnext_tiny\.fb_in22k",
        ),
        ("hf://facebook", r"give hf://OWNER/NAME"),
        ("hf://a b/c", r"give hf://OWNER/NAME"),
        (
            "gopher://x/y",
            r"gopher://x/y: give a file, a URL, or a name with one of timm",
        ),
    ],
)
def test_names_that_cannot_be(source, says):
    with pytest.raises(InputError, match=says):
        checkpoints.locate(source)


REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download needs: files by repository and revision."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self):
        self.asked.append(self.path)
        repo, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        content = self.files.get(f"{repo}/{file}")
        if not any(name.startswith(f"{repo}/") for name in self.files):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
        elif content is None or revision not in ("main", "v1", REVISION):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_response(200)
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{hash(content)}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        return content

    def do_GET(self):
        self.wfile.write(self.do_HEAD() or b"")

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    Hub.files, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


LOAD = """
import sys
from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError
from convnext_dense.patches import checkpoint_loading
arch = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])
for source in sys.argv[1:]:
    init_cfg = dict(type="Pretrained", checkpoint=source)
    try:
        ConvNeXt(arch, init_cfg=init_cfg).init_weights()
    except InputError as error:
        print("InputError:", error)
"""


def load(hub, home, *sources):
    """In a process of its own: huggingface_hub reads its environment once."""
    environment = dict(HF_HOME=str(home), HF_HUB_DISABLE_XET="1")
    environment |= dict(HF_ENDPOINT=hub) if hub else dict(HF_HUB_OFFLINE="1")
    done = shell("-c", LOAD, *sources, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def small_file(tmp_path):
    weights = ConvNeXt(SMALL).state_dict()
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    return (tmp_path / "a.safetensors").read_bytes(), weights


def test_hub(tmp_path, hub):
    """One process with a network, one without: each takes seconds to start."""
    transformers = pytest.importorskip("transformers")
    content, weights = small_file(tmp_path)
    torch.save(weights, tmp_path / "a.bin")
    config = transformers.ConvNextConfig(depths=[1] * 4, hidden_sizes=[8] * 4)
    model = transformers.ConvNextForImageClassification(config)
    model.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    Hub.files = {
        "timm/convnext_x.y_in1k/model.safetensors": content,
        "facebook/old/pytorch_model.bin": (tmp_path / "a.bin").read_bytes(),
        "me/files/README.md": b"# nothing",
        "me/files/weights/best.safetensors": content,
        **{
            f"me/shards/{p.name}": p.read_bytes()
            for p in (tmp_path / "shards").iterdir()
        },
    }
    assert sum(name.startswith("me/shards/model-0") for name in Hub.files) > 1
    readable = (
        "timm://convnext_x.y_in1k",
        "hf://timm/convnext_x.y_in1k",
        "hf://timm/convnext_x.y_in1k@v1",
        "hf://facebook/old",
        "hf://me/files/weights/best.safetensors",
    )
    unreadable = ("hf://me/files", "hf://me/files/a.pth", "hf://nobody/x")
    said = load(hub, tmp_path / "home", *readable, "hf://me/shards", *unreadable)
    for source in readable:
        assert f"{source}: the authors' names, " in said
    assert said.count("not in the checkpoint: nothing") == len(readable)
    assert "hf://me/shards: transformers under 'convnext.'" in said
    assert "InputError: hf://me/files has none of model.safetensors, " in said
    assert "hf://me/files/FILE" in said
    assert "InputError: hf://me/files/a.pth has none of a.pth" in said
    assert "InputError: hf://nobody/x could not be downloaded" in said
    assert "hf auth login" in said

    Hub.asked.clear()
    never = "timm://convnext_x.z_in1k"
    said = load(None, tmp_path / "home", "hf://facebook/old", "hf://me/shards", never)
    assert "hf://facebook/old: the authors' names, " in said  # from the cache
    assert "hf://me/shards: transformers under 'convnext.'" in said
    assert "InputError: timm://convnext_x.z_in1k could not be downloaded" in said
    assert "init_cfg.checkpoint=FILE" in said
    assert not Hub.asked
