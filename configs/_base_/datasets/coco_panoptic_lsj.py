# COCO 2017 panoptic segmentation with the large-scale jitter of coco_lsj.py. The labels
# are COCO's panoptic_annotations_trainval2017.zip, unpacked in data/coco/annotations.
# Boxes and masks of the same predictions are evaluated with instances_val2017.json.
_base_ = './coco_lsj.py'

data_root = 'data/coco/'
annotations = dict(
    type='LoadPanopticAnnotations',
    with_bbox=True,
    with_mask=True,
    with_seg=True)

train_pipeline = _base_.train_pipeline
train_pipeline[1] = annotations
train_pipeline.pop(5)  # FilterAnnotations knows no segments
test_pipeline = _base_.test_pipeline
test_pipeline[2] = annotations

train_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(
            img='train2017/', seg='annotations/panoptic_train2017/'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type='CocoPanopticDataset',
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = [
    dict(
        type='CocoPanopticMetric',
        ann_file=data_root + 'annotations/panoptic_val2017.json',
        seg_prefix=data_root + 'annotations/panoptic_val2017/'),
    _base_.val_evaluator
]
test_evaluator = val_evaluator
