"""Names the settings in which a resumed run differs from the run before the stop."""

import ast
from collections.abc import Iterator

from convnext_dense.checkpoints.run_config import excerpt

_LONGEST = 10**7  # characters of a config's text
# They say where and how a run is started, not what it computes.
_OF_THE_START = {
    *("work_dir", "resume", "load_from", "launcher", "log_level", "env_cfg"),
    *("visualizer", "vis_backends", "log_processor", "default_scope"),
}


def differences(before: str, now: str) -> list[str]:
    """The settings that differ between two configs, each with both values.

    Only the text is compared; nothing in it is evaluated.

    Args:
        before, now: configs as ``Config.pretty_text`` writes them.

    >>> differences("lr = dict(a=1, b=2)", "lr = dict(a=1, b=3)\\nwork_dir = 'x'")
    ['lr.b is 3 and was 2']
    """
    try:
        first, second = _settings(before), _settings(now)
        return list(_compare(first, second, ""))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ["its config cannot be read"]


def _settings(text: str) -> dict[str, ast.expr]:
    """The values at the top of a config, by name.

    Raises:
        ValueError: it is too long, or more than settings.
    """
    if len(text) > _LONGEST:
        raise ValueError("too long")
    settings = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if name not in _OF_THE_START:
                    settings[name] = value
            case _:
                raise ValueError("not a setting")
    return settings


def _compare(
    before: dict[str, ast.expr], now: dict[str, ast.expr], path: str
) -> Iterator[str]:
    """The differences between two dictionaries of settings, below ``path``."""
    for name in sorted(before.keys() | now.keys()):
        setting, first, second = path + name, before.get(name), now.get(name)
        if first is None or second is None:
            missing = "" if first is None else "not "
            yield f"{setting} is {missing}set{'' if missing else ', and was not'}"
        elif ast.dump(first) != ast.dump(second):
            inner = _items(first), _items(second)
            if inner[0] is not None and inner[1] is not None:
                yield from _compare(inner[0], inner[1], f"{setting}.")
            else:
                yield f"{setting} is {excerpt(second)} and was {excerpt(first)}"


def _items(node: ast.expr) -> dict[str, ast.expr] | None:
    """The items of a dictionary or a list of dictionaries; None of another value."""
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=items) if all(
            item.arg for item in items
        ):
            return {str(item.arg): item.value for item in items}
        case ast.List(elts=items) if items and all(
            isinstance(item, ast.Call) for item in items
        ):
            return {str(number): item for number, item in enumerate(items)}
    return None
