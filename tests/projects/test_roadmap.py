"""The roadmap: each step has the paper's multiply-adds, the last is ConvNeXt-T."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet50

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError
from convnext_dense.projects.roadmap import STEPS, ModernizedResNet

from ..helpers.comparing import assert_same
from ..helpers.paths import ROOT
from ..helpers.peers import randomised
from ..helpers.runs import NOTHING_SAVED, options

# arXiv 2201.03545, table 10: 10^9 multiply-adds at 224 x 224, in the paper's order.
GFLOPS = {
    "resnet50": 4.09,
    "stage_ratio": 4.53,
    "patchify_stem": 4.42,
    "depthwise_conv": 2.35,
    "increase_width": 5.27,
    "inverted_bottleneck": 4.64,
    "move_up_depthwise": 4.07,
    "kernel_5": 4.10,
    "kernel_7": 4.15,
    "kernel_9": 4.21,
    "kernel_11": 4.29,
    "gelu": 4.15,
    "fewer_activations": 4.15,
    "fewer_norms": 4.15,
    # The table says 4.46. No convolution changes in this step, and table 11 has the
    # same step of ResNet-200 at no cost; 4.46 is the count of the next step.
    "layer_norm": 4.15,
    "separate_downsampling": 4.49,
}


def on_meta(step):
    with torch.device("meta"):
        return ModernizedResNet(step).eval()


def test_steps_are_the_papers():
    assert list(STEPS) == list(GFLOPS)


@pytest.mark.parametrize("step", GFLOPS)
def test_multiply_adds_are_the_papers(step):
    """Equal after rounding; the last step within 1 %, as table 1 says 4.5."""
    model, counter = on_meta(step), FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        maps = model(torch.empty(1, 3, 224, 224, device="meta"))
    classifier = maps[3].shape[1] * 1000
    gflops = (counter.get_total_flops() / 2 + classifier) / 1e9
    if step == "separate_downsampling":
        assert gflops == pytest.approx(GFLOPS[step], rel=0.01)
    else:
        assert gflops == pytest.approx(GFLOPS[step], abs=0.0061)


def test_starts_as_resnet50():
    """Equal to torchvision's with the same weights; the layers have the same order."""
    ours = randomised(lambda: ModernizedResNet("resnet50")).eval()
    theirs = resnet50()
    names = [n for n in theirs.state_dict() if not n.startswith("fc.")]
    state = dict(zip(names, ours.state_dict().values(), strict=True))
    theirs.load_state_dict(state, strict=False)
    theirs.eval()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for mine, layer in zip(ours(x), range(1, 5), strict=True):
            y = getattr(theirs, f"layer{layer}")(y)
            assert_same(mine, y)


def test_ends_as_convnext_t():
    """Equal to our ConvNeXt without layer scale, with the same weights."""
    ours = randomised(lambda: ModernizedResNet("separate_downsampling"))
    convnext = ConvNeXt("tiny", layer_scale_init_value=0)
    state = convnext.state_dict()
    values = ours.state_dict().values()
    convnext.load_state_dict(
        {
            name: value.reshape(state[name].shape)
            for name, value in zip(state, values, strict=True)
        }
    )
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for mine, theirs in zip(ours(x), convnext(x), strict=True):
            assert_same(mine, theirs)


def per_block(model, kinds):
    """How many layers of ``kinds`` run in the second block of stage 1."""
    block = model.stages[1][1]
    return sum(isinstance(layer, kinds) for layer in (*block.branch, block.act))


@pytest.mark.parametrize("step", STEPS)
def test_activations_norms_and_kernels_of_a_block(step):
    model, order = on_meta(step), list(STEPS).index
    after = order(step)
    act = nn.GELU if after >= order("gelu") else nn.ReLU
    norm = nn.LayerNorm if after >= order("layer_norm") else nn.BatchNorm2d
    assert per_block(model, (nn.GELU, nn.ReLU)) == per_block(model, act)
    assert per_block(model, act) == (1 if after >= order("fewer_activations") else 3)
    assert per_block(model, (nn.LayerNorm, nn.BatchNorm2d)) == per_block(model, norm)
    assert per_block(model, norm) == (1 if after >= order("fewer_norms") else 3)
    convs = [m for m in model.stages[1][1].branch if isinstance(m, nn.Conv2d)]
    sizes = [conv.kernel_size[0] for conv in convs]
    if after < order("move_up_depthwise"):
        assert sizes == [1, 3, 1]
    else:
        kernels = dict(kernel_5=5, kernel_9=9, kernel_11=11, move_up_depthwise=3)
        assert sizes == [kernels.get(step, 7), 1, 1]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1,)])
def test_maps_and_gradients(step, out_indices):
    model = ModernizedResNet(step, drop_path_rate=0.1, out_indices=out_indices)
    maps = model(torch.rand(2, 3, 32, 64))
    for out, info in zip(maps, model.feature_info, strict=True):
        assert out.shape == (2, info.channels, 32 // info.stride, 64 // info.stride)
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None for p in model.parameters())


SHAPE = dict.fromkeys(
    ("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), (64, 64)
)


def swapped(config, step):
    """The model of a shapes config with a step of the roadmap as its backbone."""
    cfg = Config.fromfile(ROOT / "configs" / config)
    cfg.model.backbone = dict(type="ModernizedResNet", step=step)
    channels = [info.channels for info in on_meta(step).feature_info]
    if "neck" in cfg.model:
        cfg.model.neck.in_channels = channels
    else:
        cfg.model.decode_head.in_channels = channels
        cfg.model.auxiliary_head.in_channels = channels[2]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model).train()


def assert_learns(model, samples):
    with DefaultScope.overwrite_default_scope(samples[0].__module__.split(".")[0]):
        images = torch.rand(len(samples), 3, 64, 64)
        loss, _ = model.parse_losses(model.loss(images, samples))
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None for p in model.backbone.parameters())


# One of each kind of block. test_maps_and_gradients has the gradients of all steps.
TRAINED = ["resnet50", "depthwise_conv", "kernel_11", "separate_downsampling"]


@pytest.mark.parametrize("step", TRAINED)
def test_trains_in_mmseg(step):
    from mmseg.structures import SegDataSample

    model = swapped("seg/upernet_convnext_atto_shapes.py", step)
    samples = [SegDataSample(metainfo=SHAPE) for _ in range(2)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(6, (1, 64, 64)))
    assert_learns(model, samples)


@pytest.mark.parametrize("step", TRAINED)
def test_trains_in_mmdet(step):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    model = swapped("det/cascade_mask_rcnn_convnext_atto_shapes.py", step)
    samples = [DetDataSample(metainfo=SHAPE) for _ in range(2)]
    for sample in samples:
        masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
        masks[:, 10:40, 10:40] = 1
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10, 40, 40]]),
            labels=torch.tensor([2]),
            masks=BitmapMasks(masks.numpy(), 64, 64),
        )
    assert_learns(model, samples)


@pytest.mark.parametrize("name", ["resnet50", "convnext_t"])
def test_pair_trains_on_shapes(tool, shapes_root, tmp_path, name):
    done = tool(
        *("train", ROOT / f"configs/seg/upernet_roadmap_{name}_shapes.py"),
        *("--work-dir", tmp_path / "run"),
        *options(
            f"data_root={shapes_root}",
            *("train_cfg.max_iters=1", "train_cfg.val_interval=1"),
            *NOTHING_SAVED,
        ),
    )
    assert done.code == 0
    assert "mIoU" in done.out


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        (dict(step="kernel_13"), "unknown step 'kernel_13'.*resnet50, stage_ratio"),
        (dict(step="gelu", out_indices=(4,)), "0 to 3"),
        (dict(step="gelu", drop_path_rate=1), "probability"),
    ],
)
def test_wrong_arguments(kwargs, says):
    with pytest.raises(InputError, match=says):
        ModernizedResNet(**kwargs)


def test_image_too_small():
    with pytest.raises(InputError, match=r"31 x 64.*ModernizedResNet: .*at least 32"):
        ModernizedResNet("layer_norm")(torch.rand(1, 3, 31, 64))
