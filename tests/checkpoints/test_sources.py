"""From what a user names to a file: URLs, hubs, mmengine's lists."""

import hashlib
import json
import os
import time
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from mmengine.runner import CheckpointLoader, checkpoint

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.checkpoints import converting, loading, sources
from convnext_dense.errors import InputError
from convnext_dense.patches import checkpoint_loading

from ..helpers import hub_server
from ..helpers.hub_server import Hub

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])


@pytest.fixture
def torch_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub/checkpoints"


def test_url_is_downloaded_once_into_torchs_cache(tmp_path, torch_hub, monkeypatch):
    remote = tmp_path / "there.pth"
    torch.save(dict(model={}), remote)
    asked = []

    def download(url, target, hash_prefix):
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

    def download(url, path, hash_prefix):
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
    assert loaders == {checkpoint_loading.load_from_convnext_dense}


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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with (
        hub_server.running() as address,
        hub_server.client(monkeypatch, tmp_path / "home", HF_ENDPOINT=address),
    ):
        yield address


def loaded(source, monkeypatch):
    """What the log says of a backbone that was initialised from ``source``."""
    said = []
    monkeypatch.setattr(loading, "print_log", lambda text, *_, **__: said.append(text))
    init_cfg = dict(type="Pretrained", checkpoint=source)
    ConvNeXt(SMALL, init_cfg=init_cfg).init_weights()
    return "\n".join(said)


def refused(source):
    with pytest.raises(InputError) as error:
        checkpoints.locate(source)
    return str(error.value)


def small_file(tmp_path):
    weights = ConvNeXt(SMALL).state_dict()
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    return (tmp_path / "a.safetensors").read_bytes(), weights


def in_shards(weights):
    """The files of a checkpoint of transformers, in two shards and an index."""
    named = converting.convert(weights, "weights", "transformers").weights
    shards = {f"model-{n}.safetensors": dict(list(named.items())[n::2]) for n in (0, 1)}
    places = {name: file for file, tensors in shards.items() for name in tensors}
    index = json.dumps(dict(weight_map=places)).encode()
    return {
        "model.safetensors.index.json": index,
        **{f: safetensors.torch.save(tensors) for f, tensors in shards.items()},
    }


SOURCES = (
    "timm://convnext_x.y_in1k",
    "hf://timm/convnext_x.y_in1k",
    "hf://timm/convnext_x.y_in1k@v1",
    "hf://facebook/old",
    "hf://me/files/weights/best.safetensors",
)


def test_hub(tmp_path, hub, monkeypatch):
    """With a network, then without: what was downloaded stays readable."""
    content, weights = small_file(tmp_path)
    torch.save(weights, tmp_path / "a.bin")
    hub_server.add("timm/convnext_x.y_in1k", "v1", **{"model.safetensors": content})
    old = (tmp_path / "a.bin").read_bytes()
    hub_server.add("facebook/old", **{"pytorch_model.bin": old})
    files = {"README.md": b"# nothing", "weights/best.safetensors": content}
    hub_server.add("me/files", **files)
    hub_server.add("me/shards", **in_shards(weights))
    for source in SOURCES:
        said = loaded(source, monkeypatch)
        assert f"{source}: the authors' names, " in said
        assert "not in the checkpoint: nothing" in said
    shards_said = "hf://me/shards: transformers, "
    assert shards_said in loaded("hf://me/shards", monkeypatch)
    said = refused("hf://me/files")
    assert "hf://me/files has none of model.safetensors, " in said
    assert "hf://me/files/FILE" in said
    assert "hf://me/files/a.pth has none of a.pth" in refused("hf://me/files/a.pth")
    said = refused("hf://nobody/x")
    assert "hf://nobody/x could not be downloaded" in said
    assert "hf auth login" in said
    said = refused("hf://me/files@v2")
    assert "hf://me/files@v2 could not be downloaded" in said

    Hub.asked.clear()
    with hub_server.client(monkeypatch, tmp_path / "home", HF_HUB_OFFLINE="1"):
        said = loaded("hf://facebook/old", monkeypatch)  # from the cache
        assert "hf://facebook/old: the authors' names, " in said
        assert shards_said in loaded("hf://me/shards", monkeypatch)
        said = refused("timm://convnext_x.z_in1k")
    assert "timm://convnext_x.z_in1k could not be downloaded" in said
    assert "init_cfg.checkpoint=FILE" in said
    assert not Hub.asked


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_downloads_that_the_hub_refuses(hub, monkeypatch, status):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    hub_server.add("me/x", **{"model.safetensors": b"weights"})
    Hub.refuse = {"HEAD /me/x": (status, "no"), "GET /me/x": (status, "no")}
    said = refused("hf://me/x")
    assert "hf://me/x could not be downloaded" in said
    assert "hf auth login" in said


def test_hub_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    nobody = dict(HF_ENDPOINT="http://127.0.0.1:9")
    with hub_server.client(monkeypatch, tmp_path, **nobody):
        said = refused("hf://me/x")
    assert "hf://me/x could not be downloaded" in said
    assert "fill the cache elsewhere (`hf download me/x`)" in said


def saved(tmp_path):
    """A file of weights, and the beginning of its hash."""
    torch.save(dict(a=torch.ones(2)), tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:8]


class Hosts:
    """Stands for the network: files by their addresses. It checks hashes as torch."""

    def __init__(self, monkeypatch, files):
        self.files, self.asked = files, []
        monkeypatch.setattr(torch.hub, "download_url_to_file", self.download)

    def download(self, url, target, hash_prefix):
        self.asked.append(url)
        if url not in self.files:
            raise URLError("Name or service not known")
        digest = hashlib.sha256(self.files[url]).hexdigest()
        if hash_prefix and not digest.startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}")')
        with open(target, "wb") as file:
            file.write(self.files[url])


OLD, MIRROR = "https://download.openmmlab.com/v1/", "https://mmassets.onedl.ai/v1/"


def test_weights_of_the_old_host_come_from_its_mirror(tmp_path, torch_hub, monkeypatch):
    content, digest = saved(tmp_path)
    name = f"convnext_20220301-{digest}.pth"
    hosts = Hosts(monkeypatch, {MIRROR + name: content})
    said = []
    monkeypatch.setattr(sources, "print_log", lambda text, **_: said.append(text))
    assert checkpoints.read(OLD + name)["a"].tolist() == [1, 1]
    assert hosts.asked == [OLD + name, MIRROR + name]
    assert f"downloading {MIRROR + name}, the mirror of its weights" in said[-1]


def test_the_old_host_is_asked_first(tmp_path, torch_hub, monkeypatch):
    content, digest = saved(tmp_path)
    hosts = Hosts(monkeypatch, {OLD + f"x-{digest}.pth": content})
    checkpoints.read(OLD + f"x-{digest}.pth")
    assert len(hosts.asked) == 1


def test_a_mirrors_file_with_another_hash_is_refused(tmp_path, torch_hub, monkeypatch):
    content, _ = saved(tmp_path)
    Hosts(monkeypatch, {MIRROR + "x-01234567.pth": content})
    with pytest.raises(InputError) as error:
        checkpoints.read(OLD + "x-01234567.pth")
    said = str(error.value)
    assert f"{OLD}x-01234567.pth could not be downloaded" in said
    assert f"nor from their mirror {MIRROR}x-01234567.pth (invalid hash value" in said
    assert not (torch_hub / "x-01234567.pth").exists()


def test_names_of_other_hosts_are_no_hashes(tmp_path, torch_hub, monkeypatch):
    content, _ = saved(tmp_path)
    Hosts(monkeypatch, {"https://example.org/run-20230101.pth": content})
    checkpoints.read("https://example.org/run-20230101.pth")
