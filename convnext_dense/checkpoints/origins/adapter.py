"""The pieces of an adapter: a library's namings, and how to write for it.

Each adapter is one file in this folder, which ends in a ``Library``. The table in
``__init__.py`` lists them. Adapters are imported without torch, so that the tools list
the libraries in their ``--help`` at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from convnext_dense.checkpoints.calls import Call
from convnext_dense.checkpoints.layout import Layout
from convnext_dense.errors import InputError
from convnext_dense.models.archs import ARCHS, NORM_EPS

from .naming import Origin, names

if TYPE_CHECKING:
    from torch import Tensor, nn


class NativeModel(NamedTuple):
    """A checkpoint's ConvNeXt under native names, to be written for a library.

    Attributes:
        origin: the name of the origin it came from.
        backbone: native names and tensors, with ``norm`` and ``head`` if it is a
            classifier.
        rest: the other tensors of the checkpoint, under mmseg's or mmdet's names.
        whole: whether ``rest`` completes a detector or segmentor.
        layout: the architecture.
        norms: the stages whose output maps have a norm.
    """

    origin: str
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]
    whole: bool
    layout: Layout
    norms: list[int]

    @property
    def classes(self) -> int | None:
        """The classifier's classes; None if there is no classifier."""
        head = self.backbone.get("head.weight")
        return None if head is None else head.shape[0]

    def with_renamed(self, old: str, new: str) -> NativeModel:
        """The same with the layer ``old`` of the backbone in the place of ``new``."""
        layer = {n: w for n, w in self.backbone.items() if n.startswith(f"{old}.")}
        others = {n: w for n, w in self.backbone.items() if n not in layer}
        renamed = {f"{new}{n.removeprefix(old)}": w for n, w in layer.items()}
        return self._replace(backbone={**others, **renamed})


class Conversion(NamedTuple):
    """A checkpoint under another library's names.

    Attributes:
        origin: the name of the origin it came from.
        weights: names and tensors for the library.
        left: native names of what the library has no place for.
        fits: a description of the model that takes ``weights``, Python source if it is
            another library's.
        build: builds that model, which takes ``weights`` strictly; None if the library
            builds it by a config.
        whole: whether ``weights`` are a whole detector's or segmentor's.
    """

    origin: str
    weights: dict[str, Tensor]
    left: list[str]
    fits: str
    build: Callable[[], nn.Module] | None
    whole: bool


class Library(NamedTuple):
    """A library whose checkpoints are read, and perhaps written.

    Attributes:
        name: in ``--to`` and in the ``to`` of ``convert``.
        origins: its namings. One that needs a ``prefix``, a ``twin`` or a module
            ``beside`` stands before the naming that it refines.
        write: renames a model for the library and raises an InputError if the library
            cannot express it; None if nothing is written for it.
    """

    name: str
    origins: tuple[Origin, ...]
    write: Callable[[NativeModel], Conversion] | None = None


def renamed(
    model: NativeModel,
    origin: Origin,
    fits: Call | str,
    prefix: str = "",
    shape: Callable[[str, Tensor], Tensor] | None = None,
    rest: Mapping[str, Tensor] | None = None,
) -> Conversion:
    """Rename a model to the names of ``origin``.

    Args:
        fits: builds the library's model, or describes it.
        prefix: what the backbone's names begin with in the library.
        shape: gives a tensor its shape in the library, by its native name.
        rest: the tensors outside of the backbone under the library's names. None: the
            library has no place for them.
    """
    table = names(origin, max(model.layout.depths), prefix)
    weights = {
        table[name]: (shape(name, tensor) if shape else tensor)
        for name, tensor in model.backbone.items()
        if name in table
    }
    left = [name for name in model.backbone if name not in table]
    if rest is None:
        left += model.rest
    weights.update(rest or {})
    build = fits if isinstance(fits, Call) else None
    return Conversion(model.origin, weights, left, str(fits), build, rest is not None)


def check_eps(model: NativeModel, library: str) -> None:
    """Raise an InputError if the model's norms have another eps than the library's."""
    arch = model.layout.arch
    if arch and ARCHS[arch].norm_eps != NORM_EPS:
        raise InputError(
            f"{library} computes every norm with eps {NORM_EPS}, and arch="
            f"{arch!r} has {ARCHS[arch].norm_eps}: its outputs would differ"
        )
