"""Bad flags and arguments of every tool."""

import shutil

from ..helpers.runs import COCO
from .case import DET, SEG, Case, heir, with_options, write
from .weights import save

QUICK = "--arch", "atto", "--mode", "inference", "--dtype", "fp32"


def predict(*flags):
    """Images of the built-in data set and a good checkpoint, with ``flags``."""
    return lambda t: [save(t), t / "data/shapes/images/val", *flags]


def below_a_file(flag, *arguments):
    return lambda t: [*arguments, flag, write(t / "file", "mine") / "x"]


def images_beside(t):
    """Images in ``t``/pictures, where results of ``--out`` ``t`` would be written."""
    (t / "data/shapes/images/val").rename(t / "pictures")
    return [save(t), t / "pictures", "--out", t]


def onto_shard(t):
    index = write(t / "model.bin.index.json", '{"weight_map": {"a": "model-1.bin"}}')
    return [index, write(t / "model-1.bin", "mine"), "--to", "timm", "--overwrite"]


def onto_link(t):
    (t / "link.html").symlink_to("nothing")
    return ["--data", t / "data/shapes", "--html", t / "link.html"]


def onto_folder(t):
    (t / "y.pth").mkdir()
    return [save(t), t / "y.pth", "--to", "timm"]


def only_objects(t):
    """A folder of data that has no label maps."""
    shutil.rmtree(t / "data/shapes/labels")
    return t / "data/shapes"


def shapes(*flags):
    return lambda t: ["--data", t / "data/shapes", *flags]


def run_dir(*flags):
    return lambda t: [write(t / "run/c.py", f"_base_ = {str(DET)!r}").parent, *flags]


WITH_LR = "--cfg-options", "optim_wrapper.optimizer.lr=1"
NO_SIZE = """
val_dataloader = dict(dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]))
"""

CASES = [
    Case(
        *("train", "a flag and --cfg-options for the same setting"),
        lambda t: [SEG, "--lr", "1e-3", *WITH_LR],
        "--lr sets optim_wrapper.optimizer.lr, and so does --cfg-options "
        "optim_wrapper.optimizer.lr: leave one of them out",
    ),
    Case(
        *("train", "--load-from with --resume"),
        lambda t: [SEG, "--load-from", save(t), "--resume"],
        "--load-from starts a new run, and --resume continues one: to continue, leave",
    ),
    Case(
        *("train", '--resume "", from a shell variable that is not set'),
        lambda t: [SEG, "--resume", ""],
        "--resume is empty: is a variable of the shell not set?",
    ),
    Case(
        *("train", "--work-dir= without a folder"),
        lambda t: [SEG, "--work-dir="],
        "--work-dir is empty: is a variable of the shell not set?",
    ),
    Case(
        *("train", "--resume CONFIG"),
        lambda t: ["--resume", SEG],
        "arguments are required: config. Write them before --resume, which takes the",
    ),
    Case(
        *("train", "a word for --lr"),
        lambda t: [SEG, "--lr", "fast"],
        "argument --lr: fast is not a number above 0",
    ),
    Case(
        *("train", "half an image for --batch-size"),
        lambda t: [SEG, "--batch-size", "0.5"],
        "argument --batch-size: 0.5 is not a whole number",
    ),
    Case(
        *("train", "an --image-size that is too small"),
        lambda t: [SEG, "--image-size", "64", "16"],
        "--image-size 64 16: a backbone's last feature map has 1/32 of the image's",
    ),
    Case(
        *("train", "a work dir as the config"),
        lambda t: [write(t / "run/c.py", "").parent],
        "no config at .../run: it is a folder. Give a file in it: .../run/c.py",
    ),
    Case(
        *("train", "--image-size without a step that has a size"),
        lambda t: [heir(t, NO_SIZE, SEG), "--image-size", "64"],
        "--image-size: the pipeline of val_dataloader in ... has no step with a size",
    ),
    Case(
        *("train", "three numbers for --image-size"),
        lambda t: [SEG, "--image-size", "1", "2", "3"],
        "argument --image-size: give one number, or height and width",
    ),
    Case(
        *("test", "a device that is not there"),
        lambda t: [SEG, save(t), "--device", "mps"],
        "--device mps: PyTorch ... finds no such device here",
    ),
    Case(
        *("test", "a work dir whose checkpoints are all damaged"),
        lambda t: [SEG, write(t / "run/iter_1.pth", "half").parent],
        "no checkpoint in ... is complete; damaged: iter_1.pth",
    ),
    Case(
        *("train", "a config that does not exist"),
        lambda t: ["configs/det/nothing.py"],
        "no config at configs/det/nothing.py",
    ),
    Case(
        *("train", "a misspelt name of a config"),
        lambda t: ["upernet_convnext_atto_shape"],
        "no config at upernet_convnext_atto_shape, and none of this name in the "
        "package. Did you mean upernet_convnext_atto_shapes or ...? convnext-dense "
        "configs lists the names",
    ),
    Case(
        *("configs", "words that no config's name has"),
        lambda t: ["cascade", "swin"],
        "no config's name contains cascade and swin",
    ),
    Case(
        *("configs", "--copy without --overwrite onto a file"),
        lambda t: [
            "--copy",
            "upernet_convnext_t_ade20k",
            "--out",
            write(t / "a.py", "mine"),
        ],
        "--out .../a.py exists already: ...add --overwrite to replace it",
    ),
    Case(
        *("test", "a config without a checkpoint"),
        lambda t: [SEG],
        "atto_shapes.py: a path, a work dir, a URL or hf://OWNER/NAME. A work dir",
    ),
    Case(
        *("test", "a work dir without a checkpoint"),
        lambda t: [write(t / "run/c.py", "x = 1\n").parent],
        "run has no checkpoint yet: name one after .../run/c.py",
    ),
    Case(
        *("test", "a work dir without a config"),
        lambda t: [write(t / "run/epoch_1.pth", "").parent],
        "run is not the work dir of a run: it has no config",
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
        *("train", "an unknown flag"),
        lambda t: [DET, "--amps"],
        "unrecognized arguments: --amps",
    ),
    Case(
        *("train", "--launcher pytorch without torchrun"),
        lambda t: [DET, "--launcher", "pytorch"],
        "--launcher pytorch: ...RANK, WORLD_SIZE...torchrun --nproc_per_node=N",
    ),
    Case(
        *("test", "--launcher slurm outside a Slurm job"),
        lambda t: [DET, "x.pth", "--launcher", "slurm"],
        "--launcher slurm: ...SLURM_PROCID...tools/slurm_train.sh",
    ),
    Case(
        *("train", "--replay FILE without a batch"),
        lambda t: [DET, "--replay", save(t)],
        "holds no batch; not_finite/iter_N.pth in a work dir does",
    ),
    Case(
        *("train", "--epochs 0"),
        lambda t: [DET, "--epochs", 0],
        "argument --epochs: 0 is not above 0",
    ),
    Case(
        *("train", "--epochs without custom data"),
        lambda t: [DET, "--epochs", 3],
        "--epochs works with custom data only ... --cfg-options train_cfg.max_epochs=N",
    ),
    Case(
        *("train", "a --cfg-options argument that is not key=value"),
        with_options("model"),
        "--cfg-options: 'model' is not key=value",
    ),
    Case(
        *("train", "a --cfg-options argument without a key"),
        with_options("=3"),
        "--cfg-options: '' is not a setting's name",
    ),
    Case(
        *("train", "a --cfg-options key beyond the end of a list"),
        with_options("model.train_cfg.rcnn.7.mask_size=1"),
        "model.train_cfg.rcnn has the entries 0 to 2: there is no entry 7",
    ),
    Case(
        *("train", "--cfg-options data_root for a config without data_root"),
        lambda t: [
            write(t / "c.py", "default_scope = 'mmdet'\nmodel = dict(type='A')"),
            *("--cfg-options", "data_root=x"),
        ],
        "c.py has no data_root to change",
    ),
    Case(
        *("train", "--auto-scale-lr for a config without a base batch size"),
        lambda t: [DET, "--auto-scale-lr", "--cfg-options", "auto_scale_lr=None"],
        "--auto-scale-lr: ... add auto_scale_lr = dict(base_batch_size=16)",
    ),
    Case(
        *("train", "--resume FILE that does not exist"),
        lambda t: [DET, "--resume", "gone.pth"],
        "no checkpoint at gone.pth",
    ),
    Case(
        *("test", "--out FILE of a detector that is not a .pkl"),
        lambda t: [DET, write(t / "x.pth", ""), "--out", "x.json"],
        "--out x.json: for detection, name a .pkl file",
    ),
    Case(
        *("test", "--out inside a file instead of a folder"),
        below_a_file("--out", SEG, "x.pth"),
        "--out .../file/x: .../file is a file, not a folder: choose another place",
    ),
    Case(
        *("test", "--show-dir inside a file instead of a folder"),
        below_a_file("--show-dir", SEG, "x.pth"),
        "--show-dir .../file/x: .../file is a file, not a folder: choose another place",
    ),
    Case(
        *("test", "--show-dir in the folder of the images"),
        lambda t: [
            *(DET, save(t), "--show-dir", t / "data/shapes/images/val", "--overwrite"),
            *("--cfg-options", f"data_root={t / 'data/shapes'}"),
        ],
        "--show-dir .../val/... is a file that this command reads: choose another",
    ),
    Case(
        *("train", "a new run in the work dir of the checkpoint that it starts from"),
        lambda t: [
            *(DET, "--work-dir", t, "--cfg-options"),
            f"load_from={save(t).rename(t / 'epoch_3.pth')}",
        ],
        "--work-dir: .../epoch_3.pth is a file that this command reads: choose another",
    ),
    Case(
        *("predict", "a checkpoint without inputs"),
        lambda t: ["x.pth", "--out", "out"],
        "name a checkpoint and at least one image, video or folder",
    ),
    Case(
        *("predict", "--classes before the inputs"),
        lambda t: ["x.pth", "--classes", "cat", "a.jpg", "--out", "out"],
        "--classes has taken cat, a.jpg: write it after the inputs",
    ),
    Case(
        *("predict", "a pattern that matches nothing"),
        lambda t: ["x.pth", "photos/*.jpg", "--out", "out"],
        "no file, folder or pattern matches photos/*.jpg",
    ),
    Case(
        *("predict", "a folder without images"),
        lambda t: ["x.pth", t / "data", "--out", "out"],
        "data has no images or videos. To take those of its subfolders, write ",
    ),
    Case(
        *("predict", "a file as --out"),
        lambda t: ["x.pth", t, "--out", write(t / "file", "mine")],
        "--out .../file: .../file is a file, not a folder: choose another place",
    ),
    Case(
        *("predict", "--out in which results would replace the images"),
        images_beside,
        "--out .../pictures/... is a file that this command reads: choose another",
    ),
    Case(
        *("predict", "the folder of the images as --out"),
        lambda t: predict("--out", t / "data/shapes/images/val")(t),
        "--out .../val is the folder of the images: choose another folder",
    ),
    Case(
        *("predict", "--out with results of the same names"),
        lambda t: predict("--out", write(t / "predictions.json", "mine").parent)(t),
        "predictions.json exists already: choose another place, or add --overwrite",
    ),
    Case(
        *("predict", "--batch 0"),
        predict("--out", "out", "--batch", 0),
        "--batch 0: give a number of images, at least 1",
    ),
    Case(
        *("predict", "--score-thr nan"),
        predict("--out", "out", "--score-thr", "nan"),
        "--score-thr nan: give a number from 0 to 1",
    ),
    Case(
        *("predict", "--score-thr 5"),
        predict("--out", "out", "--score-thr", 5),
        "--score-thr 5.0: give a number from 0 to 1",
    ),
    Case(
        *("predict", "--tile with too small a side"),
        predict("--out", "out", "--tile", 16),
        "--tile 16: give the side of a tile in pixels, at least 32: the deepest",
    ),
    Case(
        *("predict", "--overlap of a whole tile"),
        predict("--out", "out", "--tile", 64, "--overlap", 1),
        "--overlap 1: give the share of a tile that its neighbour also covers, 0 or",
    ),
    Case(
        *("predict", "--overlap without --tile"),
        predict("--out", "out", "--overlap", 0.5),
        "--overlap is the overlap of tiles: add --tile and the side of a tile in",
    ),
    Case(
        *("predict", "--classes that the model does not have"),
        predict("--out", "out", "--classes", "sqare"),
        "--classes: the model has no class sqare: did you mean square ... It has disc",
    ),
    Case(
        *("predict", "--save-crops of a segmentor"),
        lambda t: [
            *(save(t, "seg"), t / "data/shapes/images/val"),
            *("--out", "out", "--save-crops"),
        ],
        "--save-crops is for the objects of a detector, and this model is a segmentor",
    ),
    Case(
        *("test", "--tile with --tta"),
        lambda t: [DET, "x.pth", "--tile", 64, "--tta"],
        "--tile and --tta do not work together: give one of them",
    ),
    Case(
        *("predict", "--device gpu"),
        predict("--out", "out", "--device", "gpu"),
        "--device gpu cannot be used: ... Use --device ",
    ),
    Case(
        *("predict", "--device with the number of a GPU that does not exist"),
        predict("--out", "out", "--device", "cuda:77"),
        "--device cuda:77 cannot be used: ... Use --device ",
    ),
    Case(
        *("report", "a folder that does not exist"),
        lambda t: ["gone"],
        "there is no folder gone: name the work dir of a run",
    ),
    Case(
        *("report", "a folder that is not a work dir"),
        lambda t: [t],
        "is not the work dir of a run: it has no config",
    ),
    Case(
        *("report", "--checkpoint that does not exist"),
        run_dir("--checkpoint", "gone.pth"),
        "no checkpoint at gone.pth",
    ),
    Case(
        *("report", "the run's config as --out"),
        lambda t: run_dir(
            *("--checkpoint", save(t), "--out", t / "run/c.py", "--overwrite")
        )(t),
        "--out .../run/c.py is a file that this command reads: choose another place",
    ),
    Case(
        *("report", "a name in the work dir that is read as a checkpoint"),
        lambda t: run_dir("--checkpoint", save(t), "--out", t / "run/best_x.pth")(t),
        "run/best_x.pth is in .../run, from which this command reads such files",
    ),
    Case(
        *("report", "--out in a folder that does not exist"),
        run_dir("--out", "gone/x.html"),
        "argument --out: there is no folder .../gone",
    ),
    Case(
        *("export", "the checkpoint as --out"),
        lambda t: [SEG, save(t), "--out", t / "x.pth", "--overwrite"],
        "--out .../x.pth is a file that this command reads: choose another place",
    ),
    Case(
        *("export", "a device as --out"),
        lambda t: [SEG, "--out", "/dev/null"],
        "--out /dev/null is a pipe, a device or a socket: name a file",
    ),
    Case(
        *("export", "--out in an unknown format"),
        lambda t: [SEG, "--out", "x.tflite"],
        "--out x.tflite: name a file that ends in .onnx or .pt2",
    ),
    Case(
        *("export", "a --shape that is too small"),
        lambda t: [SEG, "--out", "x.pt2", "--shape", 32, -5],
        "--shape 32 -5: both sides need at least 64 pixels",
    ),
    Case(
        *("export", "a whole detector with soft-NMS"),
        lambda t: [
            *(DET, "--out", "x.pt2"),
            *("--cfg-options", "model.test_cfg.rcnn.nms.type=soft_nms"),
        ],
        "test_cfg.rcnn.nms.type is 'soft_nms', and a whole detector can be exported "
        "only with 'nms'; --backbone exports its backbone",
    ),
    Case(
        *("inspect_data", "no data"),
        lambda t: [],
        "training data: give --train-json or --train-labels and --train-images, or "
        "--data FOLDER",
    ),
    Case(
        *("inspect_data", "--data that does not exist"),
        lambda t: ["--data", "gone"],
        "--data: there is no folder .../gone",
    ),
    Case(
        *("train", "--data that does not exist, and weights that do not"),
        lambda t: [
            *(DET, "--data", "gone"),
            *("--cfg-options", "load_from=gone.pth"),
        ],
        "--data: there is no folder .../gone",
    ),
    Case(
        *("train", "a COCO file for a segmentor"),
        lambda t: [SEG, "--train-json", "o.json", "--train-images", "i"],
        "the config is for semantic segmentation, and --train-json gives a COCO file, "
        "for object detection: give label maps (--train-labels and --train-images), or "
        "use a config of configs/det",
    ),
    Case(
        *("train", "label maps to validate a detector on"),
        lambda t: [
            *(DET, "--train-json", "o.json", "--train-images", "i"),
            *("--val-labels", "l", "--val-images", "i"),
        ],
        "the config is for object detection, and --val-labels gives label maps",
    ),
    Case(
        *("train", "a folder of objects for a segmentor"),
        lambda t: [SEG, "--data", only_objects(t)],
        "the config is for semantic segmentation, and --data ... gives a COCO file",
    ),
    Case(
        *("train", "a config of another task than custom data"),
        lambda t: [
            heir(t, "model = dict(_delete_=True, type='RPN')"),
            *("--data", t / "data/shapes"),
        ],
        "c.py is a config of region proposals, which needs no classes. The data is "
        "objects, with boxes or masks (a COCO file): use a config of a detector",
    ),
    Case(
        *("inspect_data", "a COCO file and label maps"),
        lambda t: [
            *("--train-json", "o.json", "--train-images", "i"),
            *("--val-labels", "l", "--val-images", "i"),
        ],
        "--train-json gives a COCO file, and --val-labels gives label maps: give one "
        "of them for both splits",
    ),
    Case(
        *("inspect_data", "--data and --train-json"),
        shapes("--train-json", "o.json", "--train-images", "i"),
        "--data and --train-json both say where the data is: give one of them",
    ),
    Case(
        *("inspect_data", "--classes for a COCO file"),
        shapes("--classes", "a", "b"),
        "--classes cannot be used with a COCO file",
    ),
    Case(
        *("inspect_data", "--fix into a folder that exists"),
        lambda t: ["--data", t / "data/shapes", "--fix", t / "data"],
        "--fix .../data exists already: name a new folder",
    ),
    Case(
        *("inspect_data", "--fix inside a file instead of a folder"),
        lambda t: below_a_file("--fix", "--data", t / "data/shapes")(t),
        "--fix .../file/x: .../file is a file, not a folder: choose another place",
    ),
    Case(
        *("inspect_data", "--fix into the folder of the data"),
        lambda t: ["--data", t / "data/shapes", "--fix", t / "data/shapes/new"],
        "shapes/new is in .../shapes, from which this command reads such files: choose "
        "another place",
    ),
    Case(
        *("inspect_data", "--html that exists"),
        lambda t: shapes("--html", write(t / "a.html", "mine"))(t),
        "a.html exists already: choose another place, or add --overwrite to replace it",
    ),
    Case(
        *("inspect_data", "a link to nothing as --html"),
        onto_link,
        "link.html is a link to .../nothing, which does not exist: name that file "
        "itself, or another file",
    ),
    Case(
        *("inspect_data", "a folder as --html"),
        lambda t: ["--data", t / "data/shapes", "--html", t / "data"],
        "argument --html: .../data is a folder",
    ),
    Case(
        *("complexity", "a --shape that is too small"),
        lambda t: [DET, "--shape", 8, 8],
        "an image of 8 x 8 pixels (height x width) is too small for ConvNeXt",
    ),
    Case(
        *("complexity", "a --shape that is not positive"),
        lambda t: [DET, "--shape", 0, -3],
        "does not take an image of 0 x -3 pixels",
    ),
    Case(
        *("complexity", "--json in a folder that does not exist"),
        lambda t: [DET, "--json", "gone/x.json"],
        "argument --json: there is no folder .../gone",
    ),
    Case(
        *("show_layer_decay", "a config without layer decay"),
        lambda t: [DET],
        "has no layer decay: all parameters have the same learning rate",
    ),
    Case(
        *("show_layer_decay", "--plot in an unknown format"),
        lambda t: [COCO, "--plot", "x.docx"],
        "cannot draw x.docx: unknown format. End its name with one of .",
    ),
    Case(
        *("convert_checkpoint", "an unknown library"),
        lambda t: ["x.pth", "y.pth", "--to", "keras"],
        "argument --to: invalid choice: 'keras'",
    ),
    Case(
        *("convert_checkpoint", "an output file in an unknown format"),
        lambda t: ["x.pth", "y.h5", "--to", "timm"],
        "y.h5: name a file that ends in .pth or .safetensors",
    ),
    Case(
        *("convert_checkpoint", "an output folder that does not exist"),
        lambda t: ["x.pth", "gone/y.pth", "--to", "timm"],
        "gone/y.pth: there is no folder .../gone",
    ),
    Case(
        *("convert_checkpoint", "the input file as the output file"),
        lambda t: [save(t), t / "x.pth", "--to", "timm"],
        "x.pth is a file that this command reads: choose another place for the output",
    ),
    Case(
        *("convert_checkpoint", "a shard of the input as the output file"),
        onto_shard,
        "model-1.bin is a file that this command reads: choose another place for the",
    ),
    Case(
        *("convert_checkpoint", "a folder as the output file"),
        onto_folder,
        "y.pth is a folder: name a file",
    ),
    Case(
        *("benchmark", "an unknown library"),
        lambda t: ["--peers", "keras"],
        "argument --peers: invalid choice: 'keras'",
    ),
    Case(
        *("benchmark", "--batch -1"),
        lambda t: ["--batch", -1],
        "argument --batch: -1 is not above 0",
    ),
    Case(
        *("benchmark", "an unknown architecture"),
        lambda t: ["--arch", "huger", *QUICK[2:]],
        "unknown arch 'huger'",
    ),
    Case(
        *("benchmark", "a --size that is not a size"),
        lambda t: ["--size", "800x"],
        "argument --size: 800x is not a size: give a number of pixels, or HEIGHTxWIDTH",
    ),
    Case(
        *("benchmark", "--graphs on a CPU"),
        lambda t: ["--graphs", "--device", "cpu"],
        "--graphs needs a GPU: it measures CUDA graphs",
    ),
    Case(
        *("benchmark", "--execution reduce-overhead on a CPU"),
        lambda t: ["--execution", "reduce-overhead", "--device", "cpu"],
        "--execution reduce-overhead needs a GPU: it uses CUDA graphs",
    ),
    Case(
        *("demo", "an image beside the checkpoint"),
        lambda t: [t / "x.pth", t / "photo.jpg"],
        "name one checkpoint: convnext-dense demo [CONFIG] CHECKPOINT. Images are "
        "dropped on the page",
    ),
    Case(
        *("demo", "a --port that does not exist"),
        lambda t: [t / "x.pth", "--port", 70000],
        "--port 70000: give a number from 1 to 65535",
    ),
    Case(
        *("demo", "a --host that is not this machine's"),
        lambda t: [t / "x.pth", "--host", "192.0.2.1"],
        "--host 192.0.2.1 cannot be listened on: ... Leave it out, or give 0.0.0.0",
    ),
    Case(
        *("doctor", "an argument"),
        lambda t: ["--gpu"],
        "unrecognized arguments: --gpu",
    ),
]
