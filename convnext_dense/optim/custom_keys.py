"""Factors of learning rate and weight decay for parameters, by parts of their names.

``paramwise_cfg.custom_keys`` of an optimizer wrapper, as in mmengine: a key applies to
the parameters whose names contain it. If a name contains several keys, the longest
applies, and of equally long ones the first in the alphabet.
"""

import difflib
from collections.abc import Iterable, Mapping


def key_of(name: str, keys: Iterable[str]) -> str | None:
    """The key that applies to a parameter.

    >>> key_of("decoder.layers.0.cross_attn.sampling_offsets.bias", ["offsets", "attn"])
    'offsets'

    Args:
        name: of the parameter, as in ``named_parameters()``.
        keys: those of ``custom_keys``.
    """
    return min(
        (key for key in keys if key in name),
        key=lambda key: (-len(key), key),
        default=None,
    )


def unknown_keys(keys: Iterable[str], names: Iterable[str]) -> list[str]:
    """A text for each key that no parameter's name contains, with a similar name.

    >>> unknown_keys(["neck", "sampling_ofsets"], ["neck.x", "sampling_offsets.bias"])
    ['sampling_ofsets (did you mean sampling_offsets?)']

    Args:
        keys: those of ``custom_keys``.
        names: of all parameters of the model, frozen ones included.
    """
    names = list(names)
    words = sorted({word for name in names for word in name.split(".")})
    texts = []
    for key in keys:
        if not any(key in name for name in names):
            near = difflib.get_close_matches(key.rpartition(".")[2], words, 1)
            texts.append(f"{key} (did you mean {near[0]}?)" if near else key)
    return texts


def factors(
    setting: Mapping, base_lr: float, base_weight_decay: float | None
) -> dict[str, object]:
    """The options of a parameter group to which a key applies.

    Args:
        setting: ``lr_mult``, ``decay_mult`` and options of the optimizer. Without
            ``decay_mult``, the weight decay stays as it is for other reasons: norms,
            for example, keep having none.
    """
    options = dict(setting)
    if "lr_mult" in setting:
        options.setdefault("lr", base_lr * setting["lr_mult"])
    if "decay_mult" in setting and base_weight_decay is not None:
        options.setdefault("weight_decay", base_weight_decay * setting["decay_mult"])
    return options
