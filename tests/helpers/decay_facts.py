"""The layers, scales and weight decay that the authors' code gives each parameter."""

import json
import re

from .paths import ROOT

FACTS = json.loads((ROOT / "tests/data/layer_decay.json").read_text())


def expected_layer(name, layers):
    """The layer and the learning-rate scale of a parameter.

    Args:
        name: of the parameter.
        layers: of a recipe of ``FACTS``: layer -> (scale, prefixes of names).
    """
    for layer, (scale, prefixes) in layers.items():
        for prefix in prefixes:
            blocks = re.fullmatch(r"(.+)\.(\d+)-(\d+)", prefix)
            if blocks:
                block = re.match(rf"{re.escape(blocks[1])}\.(\d+)\.", name)
                if block and int(blocks[2]) <= int(block[1]) <= int(blocks[3]):
                    return int(layer), scale
            elif name.startswith(f"{prefix}."):
                return int(layer), scale
    raise AssertionError(f"tests/data/layer_decay.json does not cover {name}")


def is_decayed(name):
    """Whether the authors' code decays the weights of a parameter."""
    name = re.sub(r"^backbone\.", "", name)
    name = re.sub(r"^stages\.\d+\.\d+\.", "stages.", name)
    name = re.sub(r"^(neck|decode_head)\..*\.(\w+)$", r"head.\2", name)
    return name in FACTS["decayed"]
