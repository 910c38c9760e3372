"""Mistakes in the names and values of settings, of --cfg-options or of a config."""

from pathlib import Path

from .case import DET, SEG, Case, heir, with_options

NOTHING = "--cfg-options: nothing reads"


def option(mistake: str, options: str, says: str, config: Path = DET) -> Case:
    """Train with these --cfg-options, which spaces separate."""
    return Case("train", mistake, with_options(*options.split(), config=config), says)


def in_config(mistake: str, text: str, says: str) -> Case:
    """Train with a config that adds this text to a good one."""
    return Case("train", mistake, lambda t: [heir(t, text)], says)


CASES = [
    option(
        "class weights of another length than the classes",
        "model.decode_head.loss_decode.class_weight=[1,2]",
        "decode_head.loss_decode.class_weight has 2 numbers, and decode_head has 6 "
        "scores: give 6 numbers, or class_weight=None for equal weights",
        config=SEG,
    ),
    option(
        "one output channel, and a softmax",
        "model.decode_head.num_classes=2 model.decode_head.out_channels=1 "
        "train_dataloader.dataset.metainfo.classes=[a,b] "
        "model.auxiliary_head.num_classes=2",
        "decode_head has one output channel, and its loss_decode (CrossEntropyLoss) "
        "compares channels: set use_sigmoid=True of the loss, or out_channels=2 of the "
        "head",
        config=SEG,
    ),
    option(
        "a section whose name is misspelt",
        "optim_wraper.optimizer.lr=1",
        f"{NOTHING} optim_wraper: did you mean optim_wrapper?",
    ),
    in_config(
        "a section whose name is misspelt, in a config",
        "optim_wraper = dict(optimizer=dict(lr=1.))",
        "c.py: nothing reads optim_wraper: did you mean optim_wrapper?",
    ),
    option(
        "a section that does not exist",
        "trainer.gpus=8",
        f"{NOTHING} trainer",
    ),
    option(
        "a misspelt key of a dataloader",
        "train_dataloader.batchsize=2",
        f"{NOTHING} train_dataloader.batchsize: "
        "did you mean train_dataloader.batch_size?",
    ),
    option(
        "a misspelt key of a loop",
        "train_cfg.max_epoch=3",
        f"{NOTHING} train_cfg.max_epoch: did you mean train_cfg.max_epochs?",
    ),
    option(
        "a key that a loop does not take",
        "train_cfg.patience=3",
        "the config's train_cfg could not be built: TypeError: ... 'patience'",
    ),
    option(
        "a misspelt seed",
        "randomness.sed=3",
        f"{NOTHING} randomness.sed: did you mean randomness.seed?",
    ),
    option(
        "a misspelt key of env_cfg",
        "env_cfg.cudnn_benchmarks=True",
        f"{NOTHING} env_cfg.cudnn_benchmarks: did you mean env_cfg.cudnn_benchmark?",
    ),
    option(
        "a misspelt key of a hook",
        "default_hooks.checkpoint.intervall=2",
        f"{NOTHING} default_hooks.checkpoint.intervall: "
        "did you mean default_hooks.checkpoint.interval?",
    ),
    option(
        "a misspelt threshold of the model",
        "model.test_cfg.rcnn.score_th=0.1",
        f"{NOTHING} model.test_cfg.rcnn.score_th: "
        "did you mean model.test_cfg.rcnn.score_thr?",
    ),
    option(
        "a key that the optimizer does not take",
        "optim_wrapper.optimizer.learning_rate=0.1",
        "the config's optim_wrapper could not be built: TypeError: ... 'learning_rate'",
    ),
    option(
        "a key that the backbone does not take",
        "model.backbone.drop_path=0.1",
        "the config's model could not be built: TypeError: ... 'drop_path'",
    ),
    option(
        "a misspelt key of layer decay",
        "optim_wrapper.paramwise_cfg.decay_rat=0.9 "
        "optim_wrapper.constructor=LayerDecayOptimWrapperConstructor",
        "optim_wrapper.paramwise_cfg for layer decay: unknown decay_rat; use some of",
    ),
    option(
        "a custom key of layer decay that applies to no parameter",
        "optim_wrapper.constructor=LayerDecayOptimWrapperConstructor "
        "optim_wrapper.paramwise_cfg.decay_rate=0.9 "
        "optim_wrapper.paramwise_cfg.custom_keys.bakbone.lr_mult=0.1",
        "optim_wrapper.paramwise_cfg for layer decay: custom_keys: no parameter's name "
        "contains bakbone (did you mean backbone?); correct the key, or remove it",
    ),
    option(
        "a dict as a value",
        "model.backbone.arch={'depths':[1,1,1,1]}",
        "--cfg-options: \"model.backbone.arch={'depths':[1,1,1,1]}\" cannot be read: a "
        "value cannot contain a dict. Set the dict key by key: "
        "model.backbone.arch.NAME=VALUE, or ... add model.backbone.arch._delete_=True",
    ),
    option(
        "a dict in a list",
        "custom_hooks=[dict(type=EMAHook)]",
        "'custom_hooks=[dict(type=EMAHook)]' cannot be read: a value cannot contain a "
        "dict",
    ),
    option(
        "a list without its end",
        "model.backbone.out_indices=[0,1",
        "'model.backbone.out_indices=[0,1' cannot be read: its brackets do not enclose "
        "a list. Write a number, a word, True, False, None, [a,b] or (a,b)",
    ),
    option(
        "a list of one number without its end",
        "model.backbone.out_indices=[0",
        "'model.backbone.out_indices=[0' cannot be read: a bracket is not closed",
    ),
    option(
        "a call as a value",
        "model.backbone.out_indices=range(0,4)",
        "'model.backbone.out_indices=range(0,4)' cannot be read: its brackets do not "
        "enclose a list",
    ),
    option(
        "a key below a value that is not a section",
        "model.backbone.arch.depths=[1,1,1,1]",
        "--cfg-options: model.backbone.arch.depths: model.backbone.arch is 'atto', not "
        "a section; to replace it by a section, add model.backbone.arch._delete_=True",
    ),
    option(
        "a section replaced by a number",
        "train_dataloader=3",
        "train_dataloader is 3: it must be a section, dict()",
    ),
    option(
        "a word as the batch size",
        "train_dataloader.batch_size=many",
        "--cfg-options train_dataloader.batch_size='many': give a number",
    ),
    option(
        "a word as a switch",
        "resume=yes",
        "--cfg-options resume='yes': give True or False",
    ),
    option(
        "a batch size of 0",
        "train_dataloader.batch_size=0",
        "train_dataloader.batch_size=0: give a whole number from 1 on",
    ),
    option(
        "a batch size of 10^9",
        "train_dataloader.batch_size=1000000000",
        "train_dataloader.batch_size=1000000000: give a whole number from 1 to 100000",
    ),
    option(
        "a million workers",
        "train_dataloader.num_workers=1000000",
        "train_dataloader.num_workers=1000000: give a whole number from 0 to 1000",
    ),
    option(
        "10^12 classes",
        "model.roi_head.mask_head.num_classes=1000000000000",
        "model.roi_head.mask_head.num_classes=1000000000000: give a whole number from "
        "1 to 100000",
    ),
    in_config(
        "images of 10^9 pixels a side",
        "train_pipeline = [dict(type='Resize', scale=(10**9, 10**9))]\n"
        "train_dataloader = dict(dataset=dict(pipeline=train_pipeline))",
        "images of more than 65535 pixels a side cannot be trained on",
    ),
    option(
        "a seed of 33 bits",
        "randomness.seed=4294967296",
        "randomness.seed=4294967296: give a whole number from 0 to 4294967295",
    ),
    option(
        "a batch size of 1.5",
        "train_dataloader.batch_size=1.5",
        "train_dataloader.batch_size=1.5: give a whole number from 1 on",
    ),
    option(
        "-1 workers",
        "val_dataloader.num_workers=-1",
        "val_dataloader.num_workers=-1: give a whole number from 0 on",
    ),
    option(
        "persistent workers, but no workers",
        "train_dataloader.num_workers=0 train_dataloader.persistent_workers=True",
        "the config's train_dataloader could not be built: ...persistent_workers",
    ),
    option(
        "-1 epochs",
        "train_cfg.max_epochs=-1",
        "train_cfg.max_epochs=-1: give a whole number from 1 on",
    ),
    option(
        "0 iterations",
        "train_cfg.max_iters=0",
        "train_cfg.max_iters=0: give a whole number from 1 on",
        config=SEG,
    ),
    option(
        "1.5 epochs",
        "train_cfg.max_epochs=1.5",
        "train_cfg.max_epochs=1.5: give a whole number from 1 on",
    ),
    option(
        "a validation every 0 iterations",
        "train_cfg.val_interval=0",
        "train_cfg.val_interval=0: give a whole number from 1 on",
        config=SEG,
    ),
    option(
        "a word as the learning rate",
        "optim_wrapper.optimizer.lr=fast",
        "--cfg-options optim_wrapper.optimizer.lr='fast': give a number",
    ),
    in_config(
        "a learning rate of NaN",
        "optim_wrapper = dict(optimizer=dict(lr=float('nan')))",
        "optim_wrapper.optimizer.lr=nan: give a finite number from 0 on",
    ),
    option(
        "an infinite learning rate",
        "optim_wrapper.optimizer.lr=1e999",
        "optim_wrapper.optimizer.lr=inf: give a finite number from 0 on",
    ),
    option(
        "a negative learning rate",
        "optim_wrapper.optimizer.lr=-0.1",
        "optim_wrapper.optimizer.lr=-0.1: give a finite number from 0 on",
    ),
    option(
        "a negative bound of the gradient's norm",
        "optim_wrapper.clip_grad.max_norm=-1",
        "optim_wrapper.clip_grad.max_norm=-1: give a number above 0",
    ),
    option(
        "a word as the seed",
        "randomness.seed=abc",
        "--cfg-options randomness.seed='abc': give a number",
    ),
    option(
        "a log every 0 steps",
        "default_hooks.logger.interval=0",
        "the config's default_hooks could not be built: ValueError: interval must be",
    ),
    option(
        "a log level that does not exist",
        "log_level=LOUD",
        "the config's log_level could not be built: KeyError: 'LOUD'",
    ),
    option(
        "an unknown architecture",
        "model.backbone.arch=tinny",
        "unknown arch 'tinny'...tiny, small",
    ),
    option(
        "a feature map that does not exist",
        "model.backbone.out_indices=(0,4)",
        "out_indices=...0 to 3",
    ),
    option(
        "an output stride that does not exist",
        "model.backbone.output_stride=4",
        "output_stride=4...give 8, 16 or 32",
    ),
    option(
        "no feature maps",
        "model.backbone.out_indices=()",
        "at least one",
    ),
    option(
        "a negative drop path rate",
        "model.backbone.drop_path_rate=-0.1",
        "drop_path_rate=-0.1...probability",
    ),
    option(
        "a neck with the channels of another backbone",
        "model.neck.in_channels=[96,192,384,768]",
        "model.neck.in_channels is [96, 192, 384, 768], but the backbone's feature "
        "maps have [40, 80, 160, 320] channels: set it to [40, 80, 160, 320]",
    ),
    option(
        "a head with the channels of another backbone",
        "model.auxiliary_head.in_channels=384",
        "model.auxiliary_head.in_channels is [384], but the backbone's feature maps "
        "have [160] channels: set it to [160]",
        config=SEG,
    ),
    option(
        "a head of -3 classes",
        "model.roi_head.mask_head.num_classes=-3",
        "the config's model could not be built: ",
    ),
    option(
        "a learning rate of 0",
        "optim_wrapper.optimizer.lr=0.",
        "the learning rate is 0 everywhere: the model would not learn",
    ),
    option(
        "a frozen backbone with random weights",
        "model.backbone.frozen_stages=4",
        "the backbone is frozen and has random weights: name pre-trained weights",
    ),
    option(
        "a head of more classes than the data has",
        "model.decode_head.num_classes=9",
        "decode_head has 9 classes and the training data 6",
        config=SEG,
    ),
]
