_base_ = ['./cascade_mask_rcnn_convnext_l_in22k_coco.py', '../_base_/fsdp.py']
