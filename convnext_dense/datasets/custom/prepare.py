"""Train on one's own images: a COCO file, or a folder of label maps.

sources       where the data is
images        can each file be read?
coco, label_part     one split, as training and pictures need it
coco_check, label_check   what is wrong in it, and the rest, cleaned
findings      kinds of trouble and whom they befell
splitting     a split of its own to validate on
overview      what there is, in lines; page draws it
configuring   a config turned to the data; schedule: how long to train
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.coco_json import read_coco
from convnext_dense.utils.distributed import on_main

from . import coco_check, label_check, summary
from .draw_split import split
from .into_config import use_data
from .label_maps import read_color_map
from .layouts import Source, Sources, find
from .problems import Kind
from .splits import Part, same_images

IN_BOTH = Kind(
    False,
    "images that are in the training split too",
    "the results on them say nothing about others",
)

# Options that say something of one kind of data only.
_OF_LABEL_MAPS = ("classes", "color_map", "reduce_zero_label")
_OF_COCO = ("boxes_only",)
_FILES = tuple(
    f"{s}_{k}" for s in ("train", "val") for k in ("json", "images", "labels")
)


@dataclass
class Options:
    """What the command line says of the data; see tools/inspect_data.py --help."""

    data: str | None = None
    train_json: str | None = None
    train_images: str | None = None
    train_labels: str | None = None
    val_json: str | None = None
    val_images: str | None = None
    val_labels: str | None = None
    classes: list[str] | None = None
    color_map: str | None = None
    reduce_zero_label: bool = False
    boxes_only: bool = False

    def __bool__(self) -> bool:
        return self != Options()


def examine(options: Options, scope: str | None = None, seed: int = 0) -> list[Part]:
    """Look through the data: the training split and the one to validate on.

    Without a validation split one is drawn, unless the data has errors.

    Args:
        scope: 'mmdet' or 'mmseg', for what the data is to be; None takes what is
            there.
        seed: of the split that is drawn.

    Raises:
        InputError: there is no such data, or a file is not what it should be.
    """
    scope, sources = _sources(options, scope)
    for name in _OF_LABEL_MAPS if scope == "mmdet" else _OF_COCO:
        if getattr(options, name):
            kind = "a COCO file" if scope == "mmdet" else "label maps"
            raise InputError(f"--{name.replace('_', '-')} does not go with {kind}")
    read = _read_coco if scope == "mmdet" else _read_label_maps
    parts = read(options, sources)
    if len(parts) == 2:
        for file in same_images(*parts):
            parts[1].findings.add(IN_BOTH, file)
    elif not parts[0].findings.stop:
        if len(parts[0].files) < 2:
            raise InputError(
                f"{sources['train'].annotations} has one image: name a validation "
                "split too"
            )
        findings = parts[0].findings
        parts = list(split(parts[0], seed))
        parts[0].findings = findings
    return parts


def _sources(options: Options, scope: str | None) -> tuple[str, Sources]:
    if options.data:
        for name in _FILES:
            if getattr(options, name):
                raise InputError(
                    f"own data: --data and --{name.replace('_', '-')} both say where "
                    "it is: give one"
                )
        return find(Path(options.data).absolute(), scope)
    flags = dict(mmdet="json", mmseg="labels")
    given = [s for s, flag in flags.items() if getattr(options, f"train_{flag}")]
    if len(given) != 1 or scope not in (None, given[0]):
        wanted = [f"--train-{flags[s]}" for s in ([scope] if scope else flags)]
        raise InputError(
            f"own data: give {' or '.join(wanted)} and --train-images, or --data FOLDER"
        )
    scope, sources = given[0], {}
    for name in ("train", "val"):
        annotations = getattr(options, f"{name}_{flags[scope]}")
        images = getattr(options, f"{name}_images")
        if bool(annotations) != bool(images):
            missing = "images" if annotations else flags[scope]
            raise InputError(f"own data: --{name}-{missing} is missing")
        if annotations:
            sources[name] = Source(
                Path(annotations).absolute(), Path(images).absolute()
            )
    return scope, sources


def _read_coco(options: Options, sources: Sources) -> list[Part]:
    parts = []
    for name, source in sources.items():
        parts.append(
            coco_check.examine(
                read_coco(source.annotations),
                source.images,
                name,
                parts[0].categories if parts else None,
                options.boxes_only,
            )
        )
    return parts


def _read_label_maps(options: Options, sources: Sources) -> list[Part]:
    classes, colors = _class_names(options.classes), None
    if options.color_map:
        if classes:
            raise InputError(
                "--classes and --color-map both name the classes: give one"
            )
        classes, colors = read_color_map(options.color_map)
    parts = []
    for name, source in sources.items():
        part = label_check.examine(
            *(source.images, source.annotations, name, classes, colors),
            zero=not options.reduce_zero_label,
        )
        classes = part.classes
        parts.append(part)
    return parts


def _class_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Names of the command line, or of the file that it names, one a line."""
    if given and len(given) == 1 and Path(given[0]).is_file():
        try:
            lines = Path(given[0]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--classes {given[0]} cannot be read: {error}") from error
        names = [line.strip() for line in lines if line.strip()]
        if not names:
            raise InputError(f"--classes {given[0]} has no names: give one a line")
        given = names
    if given and len(set(given)) < len(given):
        raise InputError("--classes: a name is given twice")
    return tuple(given) if given else None


def prepare(cfg: Config, options: Options, epochs: int | None) -> None:
    """Look through the data, write its splits beside the run, turn ``cfg`` to it.

    A run that is resumed keeps the splits it began with.

    Raises:
        InputError: the data has errors, or does not fit the config.
    """
    use_data(cfg, on_main(partial(_prepare_files, cfg, options)), epochs)


def _prepare_files(cfg: Config, options: Options) -> dict:
    folder = Path(cfg.work_dir).absolute() / "data"
    data_file = folder / "data.json"
    if cfg.get("resume") and data_file.is_file():
        print_log(f"the splits are those the run began with, in {folder}", "current")
        return json.loads(data_file.read_text(encoding="utf-8"))
    seed = (cfg.get("randomness") or {}).get("seed") or 0
    parts = examine(options, cfg.default_scope, seed)
    lines = [line for part in parts for line in summary.lines(part)]
    for line in lines:
        print_log(line, "current")
    if any(part.findings.stop for part in parts):
        raise InputError(
            "the data has errors, see above. tools/inspect_data.py with the same "
            "options and --html FILE shows them, with --fix FOLDER it writes a cleaned "
            "copy of the annotations"
        )
    folder.mkdir(parents=True, exist_ok=True)
    data = dict(classes=parts[0].classes, images=len(parts[0].files))
    if cfg.default_scope == "mmdet":
        data["category_ids"] = [c["id"] for c in parts[0].categories]
        data["has_masks"] = all(part.has_masks for part in parts)
    else:
        data.update(colors=parts[0].colors, zero=parts[0].zero)
    for part in parts:
        file = folder / f"{part.name}.json"
        part.write(file)
        data[part.name] = dict(annotations=str(file), images=str(part.folder))
        if cfg.default_scope == "mmseg":
            data[part.name]["labels"] = str(part.labels)
    with files.whole(folder / "inspection.txt") as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with files.whole(data_file) as partial:  # the last: it says that all are there
        partial.write_text(json.dumps(data), encoding="utf-8")
    print_log(f"the splits are in {folder}", "current")
    return data
