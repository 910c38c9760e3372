"""ImageNet-S: label maps, head, recipe, and a run on a small data set."""

import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from convnext_dense.config.options import load_config
from convnext_dense.engine.build import build_layer_decay
from convnext_dense.errors import InputError
from convnext_dense.projects.imagenet_s import ImageNetSMetric, TorchvisionTransforms
from convnext_dense.projects.imagenet_s.dataset import CATEGORIES

from ..helpers.paths import ROOT
from ..helpers.runs import metric, options

CONFIG = ROOT / "configs/seg/convnext_t_imagenet_s919.py"
SIZES = [(240, 300), (320, 200), (60, 80)]  # height, width
IDS = (0, 1, 256, 300, 919, 1000)  # the strips of every label map


def label_of(height, width):
    """A label map of vertical strips: its ids, and the RGB image."""
    ids = np.array(IDS)[np.arange(width) * len(IDS) // width]
    ids = np.broadcast_to(ids, (height, width))
    return ids, np.stack([ids % 256, ids // 256, np.zeros_like(ids)], -1)


@pytest.fixture
def root(tmp_path):
    """Three images of two categories in each split."""
    root, rng = tmp_path / "ImageNetS919", np.random.default_rng(0)
    for split in ("train-semi", "validation"):
        for number, (height, width) in enumerate(SIZES):
            wnid = CATEGORIES[number // 2]
            images, labels = root / split / wnid, root / f"{split}-segmentation" / wnid
            images.mkdir(parents=True, exist_ok=True)
            labels.mkdir(parents=True, exist_ok=True)
            picture = rng.integers(0, 256, (height, width, 3), np.uint8)
            photograph = cv2.imencode(".jpg", picture)[1].tobytes()
            (images / f"{wnid}_{number}.JPEG").write_bytes(photograph)
            _, rgb = label_of(height, width)
            cv2.imwrite(str(labels / f"{wnid}_{number}.png"), rgb[..., ::-1])
    return root


def dataset(cfg, root, split):
    data = cfg[f"{split}_dataloader"].dataset
    data.data_root = str(root)
    with DefaultScope.overwrite_default_scope("mmseg"):
        return DATASETS.build(data)


def test_categories_are_in_the_order_of_their_ids():
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 919
    assert sorted(CATEGORIES) == CATEGORIES
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in CATEGORIES)


def test_reads_ids_above_255(root):
    validation = dataset(Config.fromfile(CONFIG), root, "val")
    assert len(validation) == 3
    assert len(validation.metainfo["classes"]) == 920
    for index in range(3):
        sample = validation[index]
        height, width = sample["data_samples"].ori_shape
        assert (height, width) in SIZES
        assert min(sample["inputs"].shape[-2:]) == 256
        label, _ = label_of(height, width)
        assert (sample["data_samples"].gt_sem_seg.data[0].numpy() == label).all()


def test_training_moves_image_and_labels_alike(root):
    cfg = Config.fromfile(CONFIG)
    steps = cfg.train_dataloader.dataset.pipeline[2].transforms
    del steps[2:]  # no colour transforms
    train = dataset(cfg, root, "train")
    for index in range(3):  # paint each pixel's id into the image
        info = train.get_data_info(index)
        ids, _ = label_of(*SIZES[int(re.findall(r"_(\d)\.", info["img_path"])[0])])
        gray = np.searchsorted(IDS, ids).astype(np.uint8) * 50
        encoded = cv2.imencode(".png", np.dstack([gray] * 3))[1]  # lossless
        with open(info["img_path"], "wb") as file:
            file.write(encoded.tobytes())
    flips = set()
    for seed in range(8):
        torch.manual_seed(seed)
        sample = train[seed % 3]
        image = sample["inputs"]
        labels = sample["data_samples"].gt_sem_seg.data[0].numpy()
        assert image.shape == (3, 224, 224)
        assert labels.shape == (224, 224)
        painted = np.searchsorted(IDS, labels) * 50
        same = np.abs(image[0].numpy().astype(int) - painted) <= 2
        assert same.mean() > 0.9  # everywhere except at the strips' borders
        flips.add(bool(labels[0, 0] > labels[0, -1]))
    assert flips == {False, True}


def test_colours_leave_labels_alone(root):
    cfg = Config.fromfile(CONFIG)
    del cfg.train_dataloader.dataset.pipeline[2].transforms[:2]
    for index in range(3):
        sample = dataset(cfg, root, "train")[index]["data_samples"]
        label, _ = label_of(*sample.gt_sem_seg.shape)
        assert (sample.gt_sem_seg.data[0].numpy() == label).all()


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.full((8, 8), 3, np.uint8), "is not a label map of ImageNet-S"),
        (np.full((8, 8, 3), (0, 3, 152), np.uint8), "has the id 920"),  # BGR
    ],
)
def test_labels_that_are_not(root, picture, says):
    train = dataset(Config.fromfile(CONFIG), root, "train")
    file = train.get_data_info(0)["seg_map_path"]
    cv2.imwrite(file, picture)
    with pytest.raises(InputError, match=f"{re.escape(file)} {says}"):
        train[0]


@pytest.fixture
def model():
    """The model of the config, with an atto backbone."""
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        dict(
            model=dict(
                backbone=dict(arch="atto", init_cfg=None),
                decode_head=dict(in_channels=320),
            )
        )
    )
    with DefaultScope.overwrite_default_scope("mmseg"):
        return MODELS.build(cfg.model)


def samples(*shapes):
    made = [SegDataSample(metainfo=dict(ori_shape=s, img_shape=s)) for s in shapes]
    for sample, shape in zip(made, shapes, strict=True):
        sample.gt_sem_seg = PixelData(data=torch.randint(920, (1, *shape)))
    return made


def test_head_is_a_patch_of_logits_a_position(model):
    """Logit (c, 4 y + p, 4 x + q) is channel 16 c + 4 p + q at (y, x)."""
    head, x = model.decode_head, torch.randn(2, 320, 3, 5)
    out = head((x,))
    assert out.shape == (2, 920, 12, 20)
    patches = head.conv_seg(x)
    for c, y, p, q, z in ((0, 0, 0, 0, 0), (7, 2, 3, 1, 4), (919, 1, 2, 3, 2)):
        assert torch.equal(
            out[:, c, 4 * y + p, 4 * z + q], patches[:, 16 * c + 4 * p + q, y, z]
        )
    assert head.conv_seg.weight.numel() == 920 * 16 * 320


def test_loss_is_the_baselines(model):
    """Upsampled logits, every 4th label, the mean over pixels that are not ignored."""
    torch.manual_seed(0)
    batch = samples((224, 224), (224, 224))
    for sample in batch:
        sample.gt_sem_seg.data[:, :100] = 1000
    logits = torch.randn(2, 920, 28, 28)
    loss = model.decode_head.loss_by_feat(logits, batch)["loss_ce"]
    labels = torch.stack([sample.gt_sem_seg.data for sample in batch]).float()
    expected = F.cross_entropy(
        F.interpolate(logits, scale_factor=2, mode="bilinear"),
        F.interpolate(labels, (56, 56), mode="nearest").squeeze(1).long(),
        ignore_index=1000,
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_prediction_is_resized_once(model):
    logits = torch.randn(1, 920, 8, 10)
    (sample,) = model.postprocess_result(
        model.decode_head.predict_by_feat(logits, []), samples((60, 77))
    )
    expected = F.interpolate(logits, (60, 77), mode="bilinear").argmax(1)
    assert torch.equal(sample.pred_sem_seg.data, expected)


def test_large_images_are_decided_on_smaller(model):
    """As the baselines: longer side 1000, then labels resized to the nearest."""
    model.max_size, logits = 50, torch.randn(1, 920, 8, 16)
    (sample,) = model.postprocess_result(logits, samples((60, 120)))
    small = F.interpolate(logits, (25, 50), mode="bilinear").argmax(1, keepdim=True)
    expected = F.interpolate(small.float(), (60, 120)).long()[0]
    assert torch.equal(sample.pred_sem_seg.data, expected)
    assert sample.ori_shape == (60, 120)
    (sample,) = model.postprocess_result(logits, samples((50, 50)))
    assert sample.seg_logits.shape == (50, 50)


def test_is_the_recipe():
    cfg = load_config(CONFIG)
    assert cfg.model.backbone.drop_path_rate == 0.2
    assert cfg.model.backbone.init_cfg.checkpoint.endswith("tiny_1k_224_ema.pth")
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.train_dataloader.batch_size * 8 == 256
    assert cfg.auto_scale_lr.base_batch_size == 256
    crop, flip, jitter, gray, blur = cfg.train_pipeline[2].transforms
    assert (crop.size, crop.scale) == ((224, 224), (0.14, 1.0))
    assert (flip.p, jitter.p, gray.p, blur.p) == (0.5, 0.8, 0.2, 0.5)
    assert cfg.test_pipeline[1].transforms[0].size == 256
    groups = build_layer_decay(cfg)
    assert {g["layer"] for g in groups} == set(range(23))
    for group in groups:
        assert group["lr"] == pytest.approx(2.5e-4 * 0.6 ** (22 - group["layer"]))
        assert group["weight_decay"] == (
            0.05 if group["params"][0].ndim > 1 else pytest.approx(0)
        )


def test_learning_rate_is_the_baselines():
    """Learning rate: 5 epochs of warm-up, then half a cosine to 1e-6 at the head."""
    length = 4  # iterations per epoch
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.5e-4)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer, epoch_length=length))
        for s in Config.fromfile(CONFIG).param_scheduler
    ]
    for iteration in range(100 * length):
        epoch, lr = iteration / length, optimizer.param_groups[0]["lr"]
        if epoch < 5:
            expected = 2.5e-4 * iteration / (5 * length - 1)  # mmengine's last is 1
        else:
            cosine = 0.5 * (1 + np.cos(np.pi * (epoch - 5) / 95))
            expected = 1e-6 + (2.5e-4 - 1e-6) * cosine
        assert lr == pytest.approx(expected, rel=2e-3, abs=1e-8), iteration
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_trains_and_tests_on_small_data(tool, root, tmp_path):
    cfg_options = options(
        f"data_root={root}",
        *("model.backbone.init_cfg=None", "model.backbone.arch=atto"),
        "model.decode_head.in_channels=320",
        *("train_cfg.max_epochs=1", "train_cfg.val_interval=1"),
        *("train_dataloader.batch_size=2", "default_hooks.checkpoint.interval=1"),
    )
    done = tool("train", CONFIG, "--work-dir", tmp_path / "run", *cfg_options)
    assert done.code == 0, done.err
    done = tool(
        *("test", CONFIG, tmp_path / "run/epoch_1.pth", "--work-dir", tmp_path / "run"),
        *("--out", "labels", *cfg_options),
    )
    assert done.code == 0, done.err
    assert 0 <= metric(done.out, "mIoU") < 1
    assert done.out.count("| n") == 919  # one row for each category
    written = sorted((tmp_path / "labels").glob("*/*.png"))
    assert [file.parent.name for file in written] == [
        *CATEGORIES[:1] * 2,
        CATEGORIES[1],
    ]
    for file in written:
        image = cv2.imread(str(next(root.glob(f"validation/*/{file.stem}.JPEG"))))
        assert cv2.imread(str(file)).shape == image.shape


def test_metric_counts_and_writes_all_ids(tmp_path):
    """As the baselines: absent categories count as 0, and 1000 is ignored."""
    metric = ImageNetSMetric(output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=["other", *CATEGORIES])
    label = torch.tensor([[0, 300, 919, 1000], [0, 300, 919, 1000]])
    prediction = torch.tensor([[0, 300, 300, 5], [0, 300, 919, 5]])
    sample = dict(
        img_path="validation/n01440764/a.JPEG",
        pred_sem_seg=dict(data=prediction[None]),
        gt_sem_seg=dict(data=label[None]),
    )
    metric.process({}, [sample])
    result = metric.compute_metrics(metric.results)
    # IoU: 1 for id 0, 2/3 for 300, 1/2 for 919, 0 for the 917 others.
    assert result["mIoU"] == pytest.approx(100 * (1 + 2 / 3 + 1 / 2) / 920, abs=0.01)
    rgb = cv2.imread(str(tmp_path / "n01440764/a.png"))[..., ::-1].astype(int)
    assert (rgb[..., 0] + 256 * rgb[..., 1] == prediction.numpy()).all()
    assert not rgb[..., 2].any()


def test_unknown_torchvision_transform():
    with pytest.raises(InputError, match="v2 has no transform RandomCrap"):
        TorchvisionTransforms([dict(type="RandomCrap")])


def test_missing_split_is_named(tool, root):
    (root / "validation-segmentation").rename(root / "elsewhere")
    done = tool("train", CONFIG, *options(f"data_root={root}"))
    assert done.code == 2
    assert "the val data is not there" in done.err
    assert "validation-segmentation" in done.err
