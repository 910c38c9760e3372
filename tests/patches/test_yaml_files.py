"""YAML files are data: no Python function that they name is called."""

import os

import mmengine
import pytest
import yaml
from mmengine.config import Config

import convnext_dense  # noqa: F401 (makes the change)

TAGS = {
    "a call": "!!python/object/apply:os.mkdir [MARK]",
    "a new object": "!!python/object/new:os.mkdir [MARK]",
    "a name": "!!python/name:os.system",
    "a module": "!!python/module:antigravity",
    "an object": "!!python/object:argparse.Namespace {a: 1}",
}


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag.replace(" ", "-"))
@pytest.mark.parametrize("name", ["x.yaml", "x.yml", "yaml"])
def test_tags_are_refused(tag, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(f"a: {TAGS[tag]}\n")
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        mmengine.load(name)
    assert not os.path.exists("MARK")


def test_what_mmengine_writes_is_read(tmp_path):
    values = dict(numbers=[1, 2.5, -1e-8], none=None, texts=["a", "ä"], pair=((1, 2),))
    Config(values).dump(tmp_path / "x.yaml")
    assert Config.fromfile(tmp_path / "x.yaml")._cfg_dict.to_dict() == values
    mmengine.dump(values, tmp_path / "y.yml")
    assert mmengine.load(tmp_path / "y.yml") == values
