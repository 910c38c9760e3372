"""Keeps configs that a run did not write from being replaced in its work dir.

mmengine writes the config of a run into the work dir, under the name of the config
file. With the work dir ``.`` that replaced the file itself, without its comments and
its ``_base_``.
"""

import ast
import io
import tokenize
from pathlib import Path

from mmengine.config import Config

from convnext_dense.errors import InputError
from convnext_dense.utils import files

# The syntax of a config that mmengine writes: settings, each with its value.
_DUMPED = (
    *(ast.Module, ast.Assign, ast.Name, ast.expr_context, ast.Constant, ast.Call),
    *(ast.keyword, ast.Dict, ast.List, ast.Tuple, ast.Set, ast.UnaryOp, ast.USub),
)


def check_config_file(cfg: Config) -> None:
    """Check that the run's copy of its config replaces no other file.

    Raises:
        InputError: the work dir has a config of this name that no run wrote.
    """
    copy = Path(cfg.work_dir, Path(cfg.filename).name)
    if copy.suffix != ".py":  # JSON and YAML have the same form, whoever writes them
        return
    if copy.is_file() and not is_dumped(files.read_text(copy)):
        raise InputError(
            f"--work-dir {cfg.work_dir}: the run writes its config there and would "
            f"replace {copy}, which no run wrote: choose another work dir"
        )


def is_dumped(text: str) -> bool:
    """Whether a config may be what mmengine writes: settings, no comments, no code.

    >>> is_dumped("lr = 0.1\\nmodel = dict(type='A', norm=[1, -2.5])\\n")
    True
    >>> is_dumped("lr = 0.1  # found by trying"), is_dumped("_base_ = 'a.py'")
    (False, False)
    """
    try:
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        if any(token.type == tokenize.COMMENT for token in tokens):
            return False
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        return False
    return all(isinstance(node, _DUMPED) for node in nodes) and "_base_" not in {
        node.id for node in nodes if isinstance(node, ast.Name)
    }
