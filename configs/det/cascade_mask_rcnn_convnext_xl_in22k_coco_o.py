# Tests a checkpoint of cascade_mask_rcnn_convnext_xl_in22k_coco on COCO-O. For another
# model, set test_evaluator.coco_box_map to its box AP on COCO val2017.
_base_ = './cascade_mask_rcnn_convnext_xl_in22k_coco.py'
custom_imports = dict(
    imports=['convnext_dense', 'convnext_dense.projects.coco_o'])

data_root = 'data/coco_o/'
domains = ['sketch', 'weather', 'cartoon', 'painting', 'tattoo', 'handmake']
ann_file = 'annotations/instances_val2017.json'

# COCO-O annotates boxes only.
model = dict(roi_head=dict(mask_head=None))

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    # After Resize, so that annotations keep the image's original size for evaluation.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='CocoDataset',
                data_root=data_root + domain,
                ann_file=ann_file,
                data_prefix=dict(img='val2017/'),
                test_mode=True,
                pipeline=test_pipeline) for domain in domains
        ]))
test_evaluator = dict(
    _delete_=True,
    type='CocoOEvaluator',
    metrics=[
        dict(
            type='CocoMetric',
            ann_file=data_root + domain + '/' + ann_file,
            metric='bbox') for domain in domains
    ],
    dataset_prefixes=domains,
    coco_box_map=0.552)
