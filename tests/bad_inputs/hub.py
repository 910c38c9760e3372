"""Bad input of uploads to a hub. Errors of the hub itself are in test_push.py."""

from .case import Case, write
from .weights import save


def push(*flags):
    """``push`` with a good checkpoint, and a dry run."""
    return lambda t: [
        *(t, "me/shapes", "--checkpoint", save(t), "--dry-run", t / "out", *flags)
    ]


def without_config(content):
    return dict(state_dict=content["state_dict"])


def with_code(content):
    meta = dict(content["meta"], cfg="import os\n")
    return dict(content, meta=meta)


def changed(change):
    return lambda t: [
        *(t, "me/shapes", "--checkpoint", save(t, change=change), "--dry-run", "out")
    ]


CASES = [
    Case(
        *("push", "a name without an owner"),
        lambda t: [t, "shapes"],
        "shapes is not the name of a repository. Give OWNER/NAME",
    ),
    Case(
        *("push", "a name that the hub does not take"),
        lambda t: [t, "me/a--b"],
        "me/a--b is not the name of a repository: ... Give OWNER/NAME",
    ),
    Case(
        *("push", "a folder that does not exist"),
        lambda t: ["gone", "me/shapes"],
        "there is no folder gone: name the work dir of a run",
    ),
    Case(
        *("push", "a folder without a checkpoint"),
        lambda t: [t, "me/shapes"],
        "has no checkpoint of a run: name another work dir, or one file with "
        "--checkpoint",
    ),
    Case(
        *("push", "a number of pictures below 0"),
        push("--pictures", "-1"),
        "--pictures -1: give a number, 0 for none",
    ),
    Case(
        *("push", "--dry-run over files that exist"),
        lambda t: [write(t / "out/README.md", "mine"), *push()(t)][1:],
        "--dry-run .../out/README.md exists already: choose another place, or add "
        "--overwrite",
    ),
    Case(
        *("push", "weights without a config"),
        changed(without_config),
        "x.pth contains no config, which a model on the hub needs: push the checkpoint "
        "of a training run",
    ),
    Case(
        *("push", "a checkpoint whose config has code"),
        changed(with_code),
        "the config in .../x.pth cannot be pushed: it contains code, not only "
        "settings: import os",
    ),
]
