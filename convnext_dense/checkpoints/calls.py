"""A call of another library's function: a text to read and a model to build.

>>> call = Call("timm.create_model", "convnext_tiny", num_classes=0)
>>> print(call)
timm.create_model('convnext_tiny', num_classes=0)
>>> model = call()
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any


class Call:
    """A function's dotted name and its arguments.

    Calling it imports the library and calls the function; ``str`` is the Python source
    of the same. Arguments may be calls, or lists of calls.
    """

    def __init__(self, function: str, *args: Any, **kwargs: Any):
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.without = ""

    def and_without(self, submodule: str) -> Call:
        """The same call; ``submodule`` (a dotted name) of its result is then replaced
        by ``torch.nn.Identity``."""
        call = Call(self.function, *self.args, **self.kwargs)
        call.without = submodule
        return call

    def __call__(self) -> Any:
        library, *path = self.function.split(".")
        function = functools.reduce(getattr, path, importlib.import_module(library))
        result = function(
            *map(_evaluate, self.args),
            **{name: _evaluate(value) for name, value in self.kwargs.items()},
        )
        if self.without:
            from torch import nn

            parent, _, name = self.without.rpartition(".")
            setattr(result.get_submodule(parent), name, nn.Identity())
        return result

    def __str__(self) -> str:
        arguments = [_text(value) for value in self.args]
        arguments += [f"{name}={_text(value)}" for name, value in self.kwargs.items()]
        text = f"{self.function}({', '.join(arguments)})"
        if self.without:
            place = re.sub(r"\.(\d+)", r"[\1]", self.without)
            text += f" with {place} = torch.nn.Identity()"
        return text


def _evaluate(value: Any) -> Any:
    if isinstance(value, list):
        return [_evaluate(item) for item in value]
    return value() if isinstance(value, Call) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value) if isinstance(value, Call) else repr(value)
