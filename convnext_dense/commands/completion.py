"""The completion scripts of shells, made by shtab."""

import argparse
from collections.abc import Sequence
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")
# A shell function for each shell that completes names of configs, and files.
_CONFIGS = {
    "bash": """
_convnext_dense_config() {{
  compgen -W "{names}" -- "$1"
  compgen -f -- "$1"
}}
""",
    "zsh": """
_convnext_dense_config() {{
  compadd {names}
  _files
}}
""",
}


class PrintCompletion(argparse.Action):
    """Prints the completion script of a shell, and exits."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print it; without shtab, exit with code 2."""
        assert isinstance(values, str)
        try:
            print(script(parser, values))
        except ModuleNotFoundError:
            parser.error("completion needs the package shtab: pip install shtab")
        parser.exit()


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of the shell for a parser and its sub-parsers.

    Arguments that are files, folders and configs are recognised by their metavar.

    Raises:
        ModuleNotFoundError: shtab is not installed.
    """
    import shtab

    from convnext_dense.config import shipped

    completions = {
        "FILE": shtab.FILE,
        "CHECKPOINT": shtab.FILE,
        "IN": shtab.FILE,
        "OUT": shtab.FILE,
        "DIR": shtab.DIRECTORY,
        "WORK_DIR": shtab.DIRECTORY,
        "CONFIG": dict.fromkeys(_CONFIGS, "_convnext_dense_config"),
    }
    parser.prog = "convnext-dense"  # also of python -m convnext_dense
    for action in _actions(parser):
        metavar = action.metavar or action.dest.upper().removesuffix("S")
        if metavar in completions and not action.choices:
            action.complete = completions[metavar]  # type: ignore[attr-defined]
    names = [name.partition("/")[2] for name in shipped.names()]
    functions = _CONFIGS.get(shell, "").format(names=" ".join(names))
    return shtab.complete(parser, shell, "convnext_dense", functions)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All arguments of a parser and of its sub-parsers."""
    actions = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub_parser in action.choices.values():
                actions += _actions(sub_parser)
    return actions
