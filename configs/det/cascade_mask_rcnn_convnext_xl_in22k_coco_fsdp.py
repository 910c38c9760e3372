_base_ = ['./cascade_mask_rcnn_convnext_xl_in22k_coco.py', '../_base_/fsdp.py']
