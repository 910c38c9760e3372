# Mask2Former as in mask2former_convnext.py, for the 80 classes of things and the 53 of
# stuff in COCO's panoptic labels. It predicts instances too.
_base_ = './mask2former_convnext.py'

things_and_stuff = dict(num_things_classes=80, num_stuff_classes=53)
model = dict(
    data_preprocessor=dict(
        pad_seg=True,
        seg_pad_value=255,
        batch_augments=[
            dict(_base_.pad_to_size, pad_seg=True, seg_pad_value=255)
        ]),
    panoptic_head=dict(
        **things_and_stuff,
        loss_cls=dict(class_weight=[1.0] * 133 + [0.1])),
    panoptic_fusion_head=things_and_stuff,
    test_cfg=dict(panoptic_on=True))
