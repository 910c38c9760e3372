# COCO 2017 detection without masks, with the augmentation of DETR as in
# coco_instance.py. DETR does not bound the longer side before the crop: 4200 is longer
# than any.
_base_ = './coco_instance.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1].with_mask = False  # LoadAnnotations
train_pipeline[3].transforms[1][0].scales = [  # RandomChoice, before the crop
    (400, 4200), (500, 4200), (600, 4200)
]
test_pipeline = _base_.test_pipeline
test_pipeline[2].with_mask = False  # LoadAnnotations
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
