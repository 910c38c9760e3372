# ImageNet-S with 919 categories: training on train-semi at 224 x 224, testing
# with the short side at 256.
data_root = 'data/imagenet-s/ImageNetS919'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadImageNetSAnnotations'),
    dict(
        type='TorchvisionTransforms',
        transforms=[
            dict(
                type='RandomResizedCrop',
                size=(224, 224),
                scale=(0.14, 1.0),
                antialias=True),
            dict(type='RandomHorizontalFlip', p=0.5),
            dict(
                type='RandomApply',
                p=0.8,
                transforms=[
                    dict(
                        type='ColorJitter',
                        brightness=0.8,
                        contrast=0.8,
                        saturation=0.8,
                        hue=0.2)
                ]),
            dict(type='RandomGrayscale', p=0.2),
            dict(
                type='RandomApply',
                p=0.5,
                transforms=[
                    dict(
                        type='GaussianBlur',
                        kernel_size=13,
                        sigma=(0.1, 2.0))
                ])
        ]),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TorchvisionTransforms',
        transforms=[dict(type='Resize', size=256, antialias=True)]),
    # After resizing, so that labels keep their original size for evaluation.
    dict(type='LoadImageNetSAnnotations'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=32,
    num_workers=10,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ImageNetSDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='train-semi', seg_map_path='train-semi-segmentation'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNetSDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='validation', seg_map_path='validation-segmentation'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='ImageNetSMetric')
test_evaluator = val_evaluator
