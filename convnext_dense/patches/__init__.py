"""Every change to mmengine and mmcv."""
