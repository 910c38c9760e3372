"""Changes Python text by its syntax tree: what a config in a checkpoint could say."""

import ast
from random import Random

from .values import number, word

_TYPES = (
    *("ConvNeXt", "CascadeRCNN", "EncoderDecoder", "FPN", "UPerHead", "Config"),
    *("os.system", "builtins.eval", "subprocess.Popen", "mmdet.ConvNeXt", "mmseg.x"),
    *("LoadImageFromFile", "LoadAnnotations", "Compose", "Lambda", "TestTimeAug"),
    *("mmengine.Config", "torch.load", "Pretrained", "LoadPanopticAnnotations"),
    *(
        "mmpretrain.x",
        "HuggingFaceClassifier",
        "MMDetWandbHook",
        "ToTensor",
        "BN",
        "LN",
    ),
    *("LoadProposals", "LoadEmptyAnnotations", "CrossEntropyLoss", "mmcv.x", "nms"),
)
_SETTINGS = (
    *("type", "_scope_", "init_cfg", "pretrained", "checkpoint", "class_weight"),
    *("backend_args", "file_client_args", "arch", "in_channels", "num_classes", "file"),
    *("imports", "_delete_", "_base_", "custom_imports", "model", "default_scope"),
    *("frozen_stages", "transforms", "norm_cfg", "scale", "channels", "depths", "ann"),
)
_TEXTS = (
    "__import__('os').system('touch /tmp/fuzz')",
    "open('/tmp/fuzz', 'w')",
    "[x for x in ().__class__.__base__.__subclasses__()]",
    "(lambda: 0)()",
    "f'{1}'",
    "dict(**{'type': 'ConvNeXt'})",
    "[*range(9)]",
    "{**dict(a=1)}",
    "1 + 1",
    "-'a'",
    "--1",
    "-[1]",
    "-None",
    "...",
    "b'x'",
    "1j",
    "2 ** 99999999",
    "'a' * 10 ** 10",
    "{[]}",
    "{{}: 1}",
    "{1: {}, 1: []}",
    "dict({1: 2})",
    "dict([('type', 'x')])",
    "dict(dict(type='ConvNeXt'))",
    "nan",
    "-inf",
    "model.backbone",
    "_base_",
    "(yield)",
    "(x := 3)",
    "if 1: pass",
    "import os",
    "model = None",
    "a, b = 1, 2",
    "a = b = 1",
    "default_scope: str = 'mmseg'",
    "del model",
)


def change(text: str, rng: Random) -> str:
    """Change an expression, a keyword or a statement; now and then the text."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _change_characters(text, rng)
    if rng.random() < 0.12:
        return _change_characters(text, rng)
    nodes = list(ast.walk(tree))
    fields = [
        (node, field, index)
        for node in nodes
        for field, value in ast.iter_fields(node)
        for index, child in enumerate(value if isinstance(value, list) else [value])
        if isinstance(child, ast.expr)
        and not isinstance(node, ast.Call | ast.Attribute)
    ]
    keywords = [node for node in nodes if isinstance(node, ast.keyword)]
    if rng.random() < 0.2 and keywords:
        rng.choice(keywords).arg = rng.choice(_SETTINGS)
    elif rng.random() < 0.12 and keywords:
        calls = [n for n in nodes if isinstance(n, ast.Call)]
        new = ast.keyword(rng.choice(_SETTINGS), ast.Constant(_value(rng)))
        rng.choice(calls).keywords.append(new)
    elif rng.random() < 0.08:
        place = rng.randrange(len(tree.body) + 1)
        tree.body[place:place] = _parsed(rng)
    elif fields:
        node, field, index = rng.choice(fields)
        new = _expression(rng)
        if isinstance(getattr(node, field), list):
            getattr(node, field)[index] = new
        else:
            setattr(node, field, new)
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return _change_characters(text, rng)


def _value(rng: Random) -> object:
    texts = (rng.choice(_TYPES), rng.choice(_TYPES), word(rng)[:200])
    return rng.choice((*texts, number(rng), None, True, 0, 1, 3, 1000))


def _expression(rng: Random) -> ast.expr:
    if rng.random() < 0.75:
        return ast.Constant(_value(rng))
    (statement, *_) = _parsed(rng)
    return statement.value if isinstance(statement, ast.Expr) else ast.Constant(0)


def _parsed(rng: Random) -> list[ast.stmt]:
    try:
        return ast.parse(rng.choice(_TEXTS)).body
    except SyntaxError:
        return ast.parse("0").body


def _change_characters(text: str, rng: Random) -> str:
    place = rng.randrange(len(text) + 1)
    depth = rng.choice((50, 300, 5_000, 100_000))
    inserted = rng.choice(
        (
            *(
                "(" * depth,
                "[" * depth,
                "-" * depth,
                "dict(a=" * depth,
                "\0",
                "\\",
                "'''",
            ),
            *("\n", "    ", "#", "9" * depth, "\x1b[2J", "é", "\ud800", "{", "model"),
            *(rng.choice(_TEXTS), f"\n{rng.choice(_TEXTS)}\n", word(rng)),
        )
    )
    return text[:place] + inserted + text[place + rng.choice((0, 0, 1, 40)) :]
