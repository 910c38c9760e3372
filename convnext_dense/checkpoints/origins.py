"""How each library names a ConvNeXt's parameters.

An ``Origin`` is one library's names as templates, from which a table "native name,
their name" is made; the tables serve reading and writing alike. Native names are
the authors'.

Sources: github.com/facebookresearch/ConvNeXt and ConvNeXt-V2 (models/convnext.py,
models/convnextv2_sparse.py and utils.remap_checkpoint_keys), timm
(models/convnext.py), transformers (models/convnext, convnextv2, dinov3_convnext,
upernet), torchvision (models/convnext.py), mmpretrain
(models/backbones/convnext.py), github.com/facebookresearch/dinov3
(models/convnext.py) and github.com/mlfoundations/open_clip (timm_model.py).
"""

import re
from typing import NamedTuple

from convnext_dense.models.archs import NUM_STAGES


class Origin(NamedTuple):
    """One library's names. In templates {i} is the stage and {j} the block.

    {n} is i + 1; {d} = 2 i and {s} = 2 i + 1 are torchvision's positions of a
    downsample layer and a stage. A name that starts with ^ stands beside the
    backbone's prefix instead of below it.
    """

    name: str
    stem_conv: str = "downsample_layers.0.0"
    stem_norm: str = "downsample_layers.0.1"
    down_norm: str = "downsample_layers.{i}.0"
    down_conv: str = "downsample_layers.{i}.1"
    block: str = "stages.{i}.{j}"
    dwconv: str = "dwconv"
    norm: str = "norm"
    pwconv1: str = "pwconv1"
    pwconv2: str = "pwconv2"
    gamma: str = "gamma"
    grn_gamma: str = "grn.gamma"
    grn_beta: str = "grn.beta"
    map_norm: str | None = "norm{i}"  # of an output map
    final_norm: str | None = "norm"  # before the classifier
    head: str | None = "head"
    kernel: str = "weight"  # of convolutions that FCMAE makes sparse


AUTHORS = Origin("the authors' names")
FCMAE = Origin(
    "the authors' FCMAE, sparse",
    down_norm="downsample_layers.{i}.0.ln",
    norm="norm.ln",
    pwconv1="pwconv1.linear",
    pwconv2="pwconv2.linear",
    kernel="kernel",
)
MMPRETRAIN = Origin(
    "mmpretrain",
    dwconv="depthwise_conv",
    pwconv1="pointwise_conv1",
    pwconv2="pointwise_conv2",
    final_norm=None,  # norm3 again
    head="^head.fc",
)
TIMM = Origin(
    "timm",
    stem_conv="stem.0",
    stem_norm="stem.1",
    down_norm="stages.{i}.downsample.0",
    down_conv="stages.{i}.downsample.1",
    block="stages.{i}.blocks.{j}",
    dwconv="conv_dw",
    pwconv1="mlp.fc1",
    pwconv2="mlp.fc2",
    grn_gamma="mlp.grn.weight",
    grn_beta="mlp.grn.bias",
    map_norm=None,
    final_norm="head.norm",
    head="head.fc",
)
TIMM_FEATURES = TIMM._replace(
    name="timm, features_only",
    stem_conv="stem_0",
    stem_norm="stem_1",
    down_norm="stages_{i}.downsample.0",
    down_conv="stages_{i}.downsample.1",
    block="stages_{i}.blocks.{j}",
    final_norm=None,
    head=None,
)
TRANSFORMERS = Origin(
    "transformers",
    stem_conv="embeddings.patch_embeddings",
    stem_norm="embeddings.layernorm",
    down_norm="encoder.stages.{i}.downsampling_layer.0",
    down_conv="encoder.stages.{i}.downsampling_layer.1",
    block="encoder.stages.{i}.layers.{j}",
    norm="layernorm",
    gamma="layer_scale_parameter",
    grn_gamma="grn.weight",
    grn_beta="grn.bias",
    map_norm="hidden_states_norms.stage{n}",
    final_norm="layernorm",
    head="^classifier",
)
TRANSFORMERS_DINOV3 = Origin(
    "transformers, DINOv3",
    stem_conv="stages.0.downsample_layers.0",
    stem_norm="stages.0.downsample_layers.1",
    down_norm="stages.{i}.downsample_layers.0",
    down_conv="stages.{i}.downsample_layers.1",
    block="stages.{i}.layers.{j}",
    dwconv="depthwise_conv",
    norm="layer_norm",
    pwconv1="pointwise_conv1",
    pwconv2="pointwise_conv2",
    map_norm=None,
    final_norm="^layer_norm",
    head=None,
)
TORCHVISION = Origin(
    "torchvision",
    stem_conv="features.0.0",
    stem_norm="features.0.1",
    down_norm="features.{d}.0",
    down_conv="features.{d}.1",
    block="features.{s}.{j}",
    dwconv="block.0",
    norm="block.2",
    pwconv1="block.3",
    pwconv2="block.5",
    gamma="layer_scale",
    map_norm=None,
    final_norm="classifier.0",
    head="classifier.2",
)
ORIGINS = (
    AUTHORS,
    FCMAE,
    MMPRETRAIN,
    TIMM,
    TIMM_FEATURES,
    TRANSFORMERS,
    TRANSFORMERS_DINOV3,
    TORCHVISION,
)


def names(origin: Origin, max_depth: int, prefix: str = "") -> dict[str, str]:
    """Native name -> the name in a file of ``origin``, for up to ``max_depth`` blocks
    a stage and a backbone under ``prefix``."""
    table = {}
    beside = re.sub(r"[^.]+\.$", "", prefix)

    def path(theirs, where):
        theirs = theirs.format(**where)
        return beside + theirs[1:] if theirs[0] == "^" else prefix + theirs

    def add(native, theirs, kernel="weight", **where):
        if theirs is not None:
            table[f"{native}.weight"] = f"{path(theirs, where)}.{kernel}"
            table[f"{native}.bias"] = f"{path(theirs, where)}.bias"

    add("downsample_layers.0.0", origin.stem_conv)
    add("downsample_layers.0.1", origin.stem_norm)
    for i in range(NUM_STAGES):
        at = dict(i=i, n=i + 1, d=2 * i, s=2 * i + 1)
        if i > 0:
            add(f"downsample_layers.{i}.0", origin.down_norm, **at)
            add(f"downsample_layers.{i}.1", origin.down_conv, origin.kernel, **at)
        for j in range(max_depth):
            here, block = f"stages.{i}.{j}", origin.block.format(j=j, **at)
            add(f"{here}.dwconv", f"{block}.{origin.dwconv}", origin.kernel)
            for part in ("norm", "pwconv1", "pwconv2"):
                add(f"{here}.{part}", f"{block}.{getattr(origin, part)}")
            table[f"{here}.gamma"] = f"{prefix}{block}.{origin.gamma}"
            table[f"{here}.grn.gamma"] = f"{prefix}{block}.{origin.grn_gamma}"
            table[f"{here}.grn.beta"] = f"{prefix}{block}.{origin.grn_beta}"
        add(f"norm{i}", origin.map_norm, **at)
    add("norm", origin.final_norm)
    add("head", origin.head)
    return table
