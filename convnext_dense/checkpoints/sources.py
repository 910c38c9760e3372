"""Find the file of a checkpoint on this disk, and download it if necessary.

A user names a checkpoint by one of these:

======================================  =========================================
``FILE``, or a folder with one          used as it is
``http://...``, ``https://...``         downloaded once, into torch's cache
``timm://NAME``                         timm's weights, such as
                                        ``timm://convnext_tiny.fb_in22k``
``hf://OWNER/NAME[@REVISION][/FILE]``   any repository of the Hugging Face hub
``torchvision://NAME``,                 mmengine's own lists of URLs
``open-mmlab://NAME``, ``mmcls://NAME``
======================================  =========================================
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_checkpoint

from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.json_files import read_json
from convnext_dense.utils.text import few

from .other_formats import folder_mistake

URL = re.compile(r"https?://")
_HUB = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>.+))?"
)
# The file names of weights in a folder or a repository, in the order of preference.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_ZOOS = {
    "torchvision": mmengine_checkpoint.get_torchvision_models,
    "modelzoo": mmengine_checkpoint.get_torchvision_models,
    "open-mmlab": mmengine_checkpoint.get_external_models,
    "openmmlab": mmengine_checkpoint.get_external_models,
    "mmcls": mmengine_checkpoint.get_mmcls_models,
}
SCHEMES = ("http", "https", "timm", "hf", *_ZOOS)


def locate(source: str | os.PathLike) -> Path:
    """The local file of a checkpoint, downloaded if necessary.

    Raises:
        InputError: there is no such file, or it cannot be downloaded.
    """
    source = os.fspath(source)
    scheme, separator, name = source.partition("://")
    if not separator:
        return _on_disk(Path(source).expanduser())
    if scheme in _ZOOS:
        return _from_zoo(scheme, name)
    if URL.match(source):
        return _download(source)
    if scheme == "timm":
        return _from_timm(name)
    if scheme == "hf":
        return _from_hub(source)
    raise InputError(
        f"{source}: give a file, a URL, or a name with one of "
        + ", ".join(f"{known}://" for known in SCHEMES[2:])
    )


def _on_disk(path: Path) -> Path:
    if os.path.isfile(path):
        return path
    if os.path.exists(path) and not os.path.isdir(path):
        files.require_regular(path)  # says what it is
    weights = [path / name for name in WEIGHTS if os.path.isfile(path / name)]
    if weights:
        return weights[0]
    mistake = folder_mistake(path) if os.path.isdir(path) else None
    raise InputError(
        f"no checkpoint at {path}"
        + (f" (a folder, without {WEIGHTS[0]})" if mistake is not None else "")
        + (f": {mistake}" if mistake else "")
    )


def _from_zoo(scheme: str, name: str) -> Path:
    urls = _ZOOS[scheme]()
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    if name not in urls:
        raise InputError(f"{scheme}://{name}: mmengine knows no model of this name")
    if URL.match(urls[name]):
        return _download(urls[name])
    return _on_disk(Path(mmengine_checkpoint._get_mmengine_home()) / urls[name])


def _download(url: str) -> Path:
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    failures: dict[str, Exception] = {}
    # Rank 0 first, then the ranks on machines that do not share its disk.
    for first in (True, False):
        if (get_rank() == 0) is first and not target.is_file():
            failures = _download_first([url, *_mirrors(url)], target)
        barrier()
    if not target.is_file():
        errors = [f" ({error})" for error in failures.values()] or [""]
        mirrors = zip(_mirrors(url), errors[1:], strict=False)
        raise InputError(
            f"the weights at {url} could not be downloaded{errors[0]}"
            + "".join(f", nor from their mirror {m}{error}" for m, error in mirrors)
            + ".\nDownload them on a machine with a network and put the file at "
            f"{target}, or {_INSTEAD}"
        ) from next(iter(failures.values()), None)
    return target


def _download_first(urls: Sequence[str], target: Path) -> dict[str, Exception]:
    """Download the first of ``urls`` that answers; return the others' errors."""
    failures: dict[str, Exception] = {}
    for url in urls:
        mirror = ", the mirror of its weights" if failures else ""
        print_log(f"downloading {url}{mirror} to {target}", logger="current")
        named = _HASH.search(url) if urlparse(url).hostname in _HASHED else None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(target), named and named[1])
            break
        # URLError and HTTPError are OSErrors; a wrong hash is a RuntimeError.
        except (OSError, RuntimeError) as error:
            failures[url] = error
    return failures


def _mirrors(url: str) -> list[str]:
    """Where else the weights of a host are that no longer answers."""
    parts = urlparse(url)
    mirror = MIRRORS.get(parts.hostname or "")
    return [parts._replace(scheme="https", netloc=mirror).geturl()] if mirror else []


# OpenMMLab's host is no longer maintained. The maintained stack has the same paths on
# its own host: the lists of addresses in mmengine/hub of mmengine 0.10.7 and of
# onedl-mmengine 0.10.12 differ in the host alone.
MIRRORS = {"download.openmmlab.com": "mmassets.onedl.ai"}
# These hosts end a file's name with the beginning of its SHA-256.
_HASHED = {*MIRRORS, *MIRRORS.values(), "download.pytorch.org"}
_HASH = re.compile(r"-([0-9a-f]{8})\.pth$")

_INSTEAD = (
    "name a local file. For a backbone's pre-trained weights:\n"
    "  --cfg-options model.backbone.init_cfg.checkpoint=FILE\n"
    "or start from scratch:\n"
    "  --cfg-options model.backbone.init_cfg=None"
)


def _from_timm(name: str) -> Path:
    """The weights of timm: a repository each, named after the model and its tag."""
    if "." not in name:
        raise InputError(
            f"timm://{name}: give the whole name with its tag, such as "
            f"timm://{name or 'convnext_tiny'}.fb_in22k. timm.list_pretrained() lists "
            "all of them"
        )
    return _from_hub(f"hf://timm/{name}", shown=f"timm://{name}")


def _from_hub(source: str, shown: str = "") -> Path:
    """A repository's weights; ``shown`` is its name in messages, if not ``source``."""
    match = _HUB.fullmatch(source)
    if not match:
        raise InputError(f"{source}: give hf://OWNER/NAME, with /FILE for one file")
    repo, revision = match["repo"], match["revision"]
    names = [match["file"]] if match["file"] else WEIGHTS
    try:
        path = _first_of(names, repo, revision)
        if path and path.name.endswith(".index.json"):
            for shard in shards(path):
                _first_of([shard], repo, revision)
    except (OSError, ValueError) as error:
        # No such repository, no permission, no network, or an invalid name.
        raise InputError(
            f"{shown or source} could not be downloaded: {str(error).strip()}\n"
            "Private and gated ones need `hf auth login`. Without a network, fill the "
            f"cache elsewhere (`hf download {repo}`), or {_INSTEAD}"
        ) from error
    if not path:
        raise InputError(
            f"{shown or source} has none of {', '.join(names)}; name one of its files: "
            f"hf://{repo}/FILE"
        )
    return path


def _first_of(names: Sequence[str], repo: str, revision: str | None) -> Path | None:
    """The first of ``names`` in a repository, or in its cache without a network."""
    from huggingface_hub import hf_hub_download  # its import takes half a second
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    unreachable: LocalEntryNotFoundError | None = None
    for name in names:
        try:
            # The hub's library locks its cache, so all ranks may call it at once.
            return Path(
                hf_hub_download(
                    repo, name, revision=revision, local_files_only=bool(unreachable)
                )
            )
        except LocalEntryNotFoundError as error:  # no network, and not in the cache
            unreachable = unreachable or error
        except EntryNotFoundError:
            pass
    if unreachable:
        raise unreachable
    return None


def shards(index: Path) -> list[str]:
    """The names of the files that the index of a sharded checkpoint lists.

    Raises:
        InputError: the file is not such an index, or lists files outside its folder.
    """
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict):
        raise InputError(
            f"{index} is not the index of a sharded checkpoint: it has no weight_map"
        )
    names = weight_map.values()
    outside = [
        name
        for name in names
        if not isinstance(name, str) or Path(name).name != name or "\0" in name
    ]
    if outside or not names:
        raise InputError(
            f"{index} names shards that are not files beside it: "
            f"{few(outside) or 'none'}"
        )
    return sorted(set(names))
