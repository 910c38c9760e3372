"""Flags and arguments of every tool."""

from ..commands.test_train_and_test import COCO
from .case import DET, SEG, Case, with_options, write
from .weights import save

QUICK = "--arch", "atto", "--mode", "inference", "--dtype", "fp32"


def predict(*flags):
    """Images of the data set, by a checkpoint that is well."""
    return lambda t: [save(t), t / "data/shapes/images/val", *flags]


def below_a_file(flag, *arguments):
    return lambda t: [*arguments, flag, write(t / "file", "mine") / "x"]


def images_beside(t):
    """Images in a folder that results would be written to."""
    (t / "data/shapes/images/val").rename(t / "pictures")
    return [save(t), t / "pictures", "--out", t]


def onto_folder(t):
    (t / "y.pth").mkdir()
    return [save(t), t / "y.pth", "--to", "timm"]


def shapes(*flags):
    return lambda t: ["--data", t / "data/shapes", *flags]


def run_dir(*flags):
    return lambda t: [write(t / "run/c.py", f"_base_ = {str(DET)!r}").parent, *flags]


CASES = [
    Case(
        *("train", "a config that is not there"),
        lambda t: ["configs/det/nothing.py"],
        "no config at configs/det/nothing.py",
    ),
    Case(
        *("test", "a folder as the config"),
        lambda t: [t / "data", "x.pth"],
        "no config at .../data: it is a folder",
    ),
    Case(
        *("train", "no arguments"),
        lambda t: [],
        "the following arguments are required: config",
    ),
    Case(
        *("train", "a flag that it does not have"),
        lambda t: [DET, "--amps"],
        "unrecognized arguments: --amps",
    ),
    Case(
        *("train", "--launcher pytorch without torchrun"),
        lambda t: [DET, "--launcher", "pytorch"],
        "--launcher pytorch: ...RANK, WORLD_SIZE...torchrun --nproc_per_node=N",
    ),
    Case(
        *("test", "--launcher slurm outside of a job"),
        lambda t: [DET, "x.pth", "--launcher", "slurm"],
        "--launcher slurm: ...SLURM_PROCID...tools/slurm_train.sh",
    ),
    Case(
        *("train", "--replay FILE that holds no batch"),
        lambda t: [DET, "--replay", save(t)],
        "holds no batch; not_finite/iter_N.pth in a work dir does",
    ),
    Case(
        *("train", "--epochs 0"),
        lambda t: [DET, "--epochs", 0],
        "argument --epochs: 0 is not above 0",
    ),
    Case(
        *("train", "--epochs without data of one's own"),
        lambda t: [DET, "--epochs", 3],
        "--epochs is for your own data ... --cfg-options train_cfg.max_epochs=N",
    ),
    Case(
        *("train", "an option that is not key=value"),
        with_options("model"),
        "--cfg-options: 'model' is not key=value",
    ),
    Case(
        *("train", "an option without a key"),
        with_options("=3"),
        "--cfg-options: '' is not a setting's name",
    ),
    Case(
        *("train", "an option beyond the end of a list"),
        with_options("model.train_cfg.rcnn.7.mask_size=1"),
        "model.train_cfg.rcnn has entries, 0 to 2, and none called 7",
    ),
    Case(
        *("train", "data_root for a config that has none"),
        lambda t: [
            write(t / "c.py", "default_scope = 'mmdet'\nmodel = dict(type='A')"),
            *("--cfg-options", "data_root=x"),
        ],
        "c.py has no data_root to change",
    ),
    Case(
        *("train", "--auto-scale-lr with a config that does not say of which batch"),
        lambda t: [DET, "--auto-scale-lr", "--cfg-options", "auto_scale_lr=None"],
        "--auto-scale-lr: ... add auto_scale_lr = dict(base_batch_size=16)",
    ),
    Case(
        *("train", "--resume FILE that is not there"),
        lambda t: [DET, "--resume", "gone.pth"],
        "no checkpoint at gone.pth",
    ),
    Case(
        *("test", "--out of a detector that is no pickle"),
        lambda t: [DET, write(t / "x.pth", ""), "--out", "x.json"],
        "--out x.json: for detection, name a .pkl file",
    ),
    Case(
        *("test", "--out below a file"),
        below_a_file("--out", SEG, "x.pth"),
        "--out .../file/x: .../file is no folder; name another place",
    ),
    Case(
        *("test", "--show-dir below a file"),
        below_a_file("--show-dir", SEG, "x.pth"),
        "--show-dir .../file/x: .../file is no folder; name another place",
    ),
    Case(
        *("predict", "a checkpoint and nothing to predict"),
        lambda t: ["x.pth", "--out", "out"],
        "name a checkpoint and what to predict",
    ),
    Case(
        *("predict", "a pattern that matches nothing"),
        lambda t: ["x.pth", "photos/*.jpg", "--out", "out"],
        "there is no file and no folder photos/*.jpg, and nothing matches it",
    ),
    Case(
        *("predict", "a folder without images"),
        lambda t: ["x.pth", t / "data", "--out", "out"],
        "data is a folder without images or videos; for those of the folders in it: ",
    ),
    Case(
        *("predict", "--out that is a file"),
        lambda t: ["x.pth", t, "--out", write(t / "file", "mine")],
        "--out .../file: .../file is no folder; name another place",
    ),
    Case(
        *("predict", "--out where the results would replace the images"),
        images_beside,
        "would replace ..., which is to be read; choose another folder",
    ),
    Case(
        *("predict", "--batch 0"),
        predict("--out", "out", "--batch", 0),
        "--batch 0: at least one image at a time",
    ),
    Case(
        *("predict", "--score-thr nan"),
        predict("--out", "out", "--score-thr", "nan"),
        "--score-thr nan: give a number from 0 to 1",
    ),
    Case(
        *("predict", "--device gpu"),
        predict("--out", "out", "--device", "gpu"),
        "--device gpu cannot be used: ... Here works ",
    ),
    Case(
        *("predict", "a GPU of which there are not so many"),
        predict("--out", "out", "--device", "cuda:77"),
        "--device cuda:77 cannot be used: ... Here works ",
    ),
    Case(
        *("report", "a folder that is not there"),
        lambda t: ["gone"],
        "no folder gone; name the work dir of a run",
    ),
    Case(
        *("report", "a folder that is of no run"),
        lambda t: [t],
        "is not the work dir of a run: it has no config",
    ),
    Case(
        *("report", "--checkpoint that is not there"),
        run_dir("--checkpoint", "gone.pth"),
        "no checkpoint at gone.pth",
    ),
    Case(
        *("report", "--out in a folder that is not there"),
        run_dir("--out", "gone/x.html"),
        "argument --out: there is no folder .../gone",
    ),
    Case(
        *("export", "a format that it does not write"),
        lambda t: [SEG, "--out", "x.tflite"],
        "--out x.tflite: name a file that ends in .onnx or .pt2",
    ),
    Case(
        *("export", "a shape that is too small"),
        lambda t: [SEG, "--out", "x.pt2", "--shape", 32, -5],
        "--shape 32 -5: both sides need at least 64 pixels",
    ),
    Case(
        *("export", "a whole detector"),
        lambda t: [DET, "--out", "x.pt2"],
        "a whole CascadeRCNN cannot be exported, only segmentors can",
    ),
    Case(
        *("inspect_data", "no data"),
        lambda t: [],
        "training data: give --train-json or --train-labels and --train-images, or "
        "--data FOLDER",
    ),
    Case(
        *("inspect_data", "--data that is not there"),
        lambda t: ["--data", "gone"],
        "--data: there is no folder .../gone",
    ),
    Case(
        *("inspect_data", "--data and --train-json"),
        shapes("--train-json", "o.json", "--train-images", "i"),
        "--data and --train-json both say where the data is: give one of them",
    ),
    Case(
        *("inspect_data", "--classes for a COCO file"),
        shapes("--classes", "a", "b"),
        "--classes does not go with a COCO file",
    ),
    Case(
        *("inspect_data", "--fix into a folder that is there"),
        lambda t: ["--data", t / "data/shapes", "--fix", t / "data"],
        "--fix .../data exists already: name a new folder",
    ),
    Case(
        *("inspect_data", "--fix below a file"),
        lambda t: below_a_file("--fix", "--data", t / "data/shapes")(t),
        "--fix .../file/x: .../file is no folder; name another place",
    ),
    Case(
        *("inspect_data", "--html that is a folder"),
        lambda t: ["--data", t / "data/shapes", "--html", t / "data"],
        "argument --html: .../data is a folder",
    ),
    Case(
        *("complexity", "a shape that is too small"),
        lambda t: [DET, "--shape", 8, 8],
        "an image of 8 x 8 pixels (height x width) is too small for ConvNeXt",
    ),
    Case(
        *("complexity", "a shape that is none"),
        lambda t: [DET, "--shape", 0, -3],
        "does not take an image of 0 x -3 pixels",
    ),
    Case(
        *("complexity", "--json in a folder that is not there"),
        lambda t: [DET, "--json", "gone/x.json"],
        "argument --json: there is no folder .../gone",
    ),
    Case(
        *("show_layer_decay", "a config without layer decay"),
        lambda t: [DET],
        "has no layer decay: every parameter learns at the optimizer's own rate",
    ),
    Case(
        *("show_layer_decay", "a picture's format that is not known"),
        lambda t: [COCO, "--plot", "x.docx"],
        "no picture in x.docx: give it one of .",
    ),
    Case(
        *("convert_checkpoint", "a library that is not known"),
        lambda t: ["x.pth", "y.pth", "--to", "keras"],
        "argument --to: invalid choice: 'keras'",
    ),
    Case(
        *("convert_checkpoint", "a file's ending that is not known"),
        lambda t: ["x.pth", "y.h5", "--to", "timm"],
        "y.h5: name a file that ends in .pth or .safetensors",
    ),
    Case(
        *("convert_checkpoint", "a folder that is not there"),
        lambda t: ["x.pth", "gone/y.pth", "--to", "timm"],
        "gone/y.pth: there is no folder .../gone",
    ),
    Case(
        *("convert_checkpoint", "the file to read as the one to write"),
        lambda t: [save(t), t / "x.pth", "--to", "timm"],
        "x.pth is the file to read: name another one to write",
    ),
    Case(
        *("convert_checkpoint", "a folder as the file to write"),
        onto_folder,
        "y.pth could not be written: ",
    ),
    Case(
        *("benchmark", "a library to compare with that is not known"),
        lambda t: ["--peers", "keras"],
        "argument --peers: invalid choice: 'keras'",
    ),
    Case(
        *("benchmark", "--batch -1"),
        lambda t: ["--batch", -1],
        "argument --batch: -1 is not above 0",
    ),
    Case(
        *("benchmark", "an architecture that is not known"),
        lambda t: ["--arch", "huger", *QUICK[2:]],
        "unknown arch 'huger'",
    ),
    Case(
        *("benchmark", "a size that is none"),
        lambda t: ["--size", "800x"],
        "argument --size: 800x is no size: give a number of pixels, or HEIGHTxWIDTH",
    ),
    Case(
        *("benchmark", "--graphs on a CPU"),
        lambda t: ["--graphs", "--device", "cpu"],
        "--graphs needs a GPU: it measures CUDA graphs",
    ),
    Case(
        *("benchmark", "what needs a GPU on a CPU"),
        lambda t: ["--execution", "reduce-overhead", "--device", "cpu"],
        "--execution reduce-overhead needs a GPU: it is CUDA graphs",
    ),
    Case(
        *("doctor", "an argument"),
        lambda t: ["--gpu"],
        "unrecognized arguments: --gpu",
    ),
]
