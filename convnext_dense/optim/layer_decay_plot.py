"""The learning-rate scales of layers as a plot over the depth of the network."""

from collections import Counter
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils import files
from convnext_dense.utils.text import label

from .layer_decay import BACKBONE_PARAMETER

DOWNSAMPLE, REST = "#b0b0b0", "#4c4c4c"
STAGES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c")


def draw(groups: list[dict], file: str | Path, title: str) -> None:
    """Plot a point for each block and downsample layer, and one for norms and heads.

    Where ``custom_keys`` give them several learning rates, there is a point for each;
    the line follows the one that most parameters have.

    Args:
        groups: an optimizer's ``param_groups``, as layer decay makes them.
        file: the picture to write; its ending is the format.
        title: the plot's title.

    Raises:
        InputError: matplotlib does not write a format of this ending, or the file
            cannot be written.
    """
    from matplotlib.figure import Figure  # slow to import

    # (stage, whether a block, block) -> label, colour, parameters of each scale
    points: dict[tuple[int, int, int], tuple[str, str, Counter[float]]] = {}
    for group in groups:
        for name in group["param_names"]:
            match = BACKBONE_PARAMETER.match(name)
            if not match:
                place, point = (4, 0, 0), ("norms, heads", REST)
            else:
                stage, block = int(match[2]), int(match[3])
                if match[1] == "stages":
                    place, point = (
                        (stage, 1, block),
                        (f"{stage}.{block}", STAGES[stage]),
                    )
                else:
                    text = f"downsample {stage}" if stage else "stem"
                    place, point = (stage, 0, 0), (text, DOWNSAMPLE)
            points.setdefault(place, (*point, Counter()))[2][group["lr_scale"]] += 1
    labels, colors, scales = zip(*(points[key] for key in sorted(points)), strict=True)

    depth = range(len(points))
    figure = Figure(figsize=(max(7, 0.3 * len(points)), 4), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if Path(file).suffix[1:].lower() not in formats:
        raise InputError(
            f"cannot draw {file}: unknown format. End its name with one of "
            f".{', .'.join(formats)}"
        )
    axes = figure.subplots()
    most = [counts.most_common(1)[0][0] for counts in scales]
    axes.step(depth, most, where="mid", color="#d9d9d9", zorder=1)
    for x, color, counts in zip(depth, colors, scales, strict=True):
        axes.scatter([x] * len(counts), list(counts), color=color, s=30, zorder=2)
    axes.margins(x=0.02)
    axes.set_yscale("log")  # equal factors are equal steps
    axes.set_xticks(depth, labels, rotation=90, fontsize=8)
    axes.set_xlabel("stage.block, from the input")
    axes.set_ylabel("learning-rate scale")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(label(title), fontsize=10)
    axes.grid(axis="y", which="both", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    with files.whole(file) as partial:
        figure.savefig(partial, dpi=150)
