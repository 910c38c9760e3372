_base_ = ['./upernet_convnext_xl_in22k_ade20k_640.py', '../_base_/fsdp.py']
