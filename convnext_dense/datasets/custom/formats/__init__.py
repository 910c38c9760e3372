"""Data sets in other formats than COCO's, read as the content of a COCO file.

``yolo``, ``pascal_voc`` and ``labelme`` each find their splits in a folder and read
them. What they return goes through ``coco_check.examine``, as COCO files do, so that
checks, ``--fix``, splits and ``--boxes-only`` are the same for all formats. To add a
format: a module with ``NAME`` and ``find``, and an entry in ``FORMATS``.

Why not a library: supervision 0.31.2 turns each polygon into a mask of the image's
size (754 MB for 20 images of 1920 x 1080 with ten polygons each), stops with a stack
at the first faulty line, and says nothing of label files without an image, boxes far
outside their image, and circles and masks of labelme, which it leaves out. It is the
reference of the tests for what it reads (tests/data/formats.json).
"""

from . import labelme, pascal_voc, yolo_layouts

FORMATS = (yolo_layouts, pascal_voc, labelme)  # in this order, after COCO
