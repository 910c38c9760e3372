"""Each library of the table is recognised and written, without its code.

``test_origins`` and ``test_converting`` compare with the libraries themselves.
"""

import pytest
import torch

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.checkpoints import origins, recognition
from convnext_dense.checkpoints.recognition import recognise
from convnext_dense.errors import InputError

from ..helpers.running import shell

DEPTHS = (1, 1, 2, 1)
SMALL = dict(depths=DEPTHS, channels=(8, 16, 24, 32))


def weights_of(origin, prefix=""):
    """A backbone under the names of an origin, in native shapes."""
    native = ConvNeXt(SMALL, layer_scale_init_value=1.0).state_dict()
    table = origins.names(origin, max(DEPTHS), prefix)
    weights = {table[name]: w for name, w in native.items() if name in table}
    if origin.twin:
        for parameter in ("weight", "bias"):
            weights[f"{prefix}{origin.twin}.{parameter}"] = native[f"norm3.{parameter}"]
    if origin.beside:
        weights[f"{prefix}{origin.beside}.0.weight"] = native["norm3.weight"]
    return weights


@pytest.mark.parametrize("outer", ["", "model.", "a.b."])
@pytest.mark.parametrize("origin", origins.ORIGINS, ids=lambda origin: origin.name)
def test_each_origin_is_recognised(origin, outer):
    prefix = outer + origin.prefix
    (match,) = recognise(weights_of(origin, prefix))
    assert match.origin == origin
    assert match.prefix == prefix
    assert len(match.backbone) > 40
    assert len(match.rest) == bool(origin.beside)


def test_numbers_behind_an_underscore_are_counted(monkeypatch):
    """The deepest block's number says how many names to expect."""
    origin = origins.ORIGINS[-1]._replace(
        name="underscores", block="layer_{s}.block_{j}", prefix="", twin=None
    )
    monkeypatch.setattr(recognition, "ORIGINS", (origin,))
    deep = dict(SMALL, depths=(1, 1, 9, 1))
    native = ConvNeXt(deep, layer_scale_init_value=1.0).state_dict()
    table = origins.names(origin, 9)
    weights = {table[name]: w for name, w in native.items() if name in table}
    (match,) = recognise(weights)
    assert "stages.2.8.dwconv.weight" in match.backbone
    assert not match.rest


def test_origins_have_names_of_their_own():
    """Otherwise one would be taken for another. An origin that refines another one
    needs a prefix, a twin or a module beside, and stands before it in the table."""
    names = [origin.name for origin in origins.ORIGINS]
    assert len(set(names)) == len(names)
    seen = set()
    for origin in reversed(origins.ORIGINS):
        signature = origins.names(origin, 1)[origins.SIGNATURE]
        refines = origin.prefix or origin.twin or origin.beside
        assert signature not in seen or refines, origin.name
        assert not any(
            signature.endswith(f".{other}") or other.endswith(f".{signature}")
            for other in seen
        )
        seen.add(signature)


@pytest.mark.parametrize("to", origins.TARGETS)
def test_what_is_written_is_read_again(to):
    native = ConvNeXt(SMALL, out_indices=3, layer_scale_init_value=1.0).state_dict()
    written = checkpoints.convert(native, "a.pth", to)
    assert not written.left
    again = checkpoints.convert(written.weights, "b.pth", "native")
    assert again.weights.keys() == native.keys()
    assert all(torch.equal(again.weights[name], native[name]) for name in native)
    (library,) = (library for library in origins.LIBRARIES if library.name == to)
    assert again.origin in [origin.name for origin in library.origins]


def test_an_unknown_target():
    with pytest.raises(InputError, match=r"to='nothing': use one of native, timm, "):
        checkpoints.convert(ConvNeXt(SMALL).state_dict(), "a.pth", "nothing")


def test_help_lists_the_targets_without_torch():
    """torch takes seconds to import."""
    done = shell(
        "-c",
        "import runpy, sys; sys.argv = ['x', '--help']; sys.path.insert(0, 'tools')\n"
        "try: runpy.run_path('tools/convert_checkpoint.py', run_name='__main__')\n"
        "except SystemExit: print('torch' in sys.modules)",
    )
    assert done.stdout.endswith("False\n"), done.stderr
    assert "{" + ",".join(origins.TARGETS) + "}" in done.stdout
