"""Custom data: train on a COCO file, or on a folder of label maps.

Each module has one job:

layouts         finds the files of each split; label_layouts those of label maps
splits          what a split offers to training, pages and tables (a protocol)
coco            a split annotated by a COCO file
label_split     a split annotated by label maps
label_files     reads the values that the file of a label map stores
label_maps      reads label maps and colour maps
label_pairs     pairs images with label maps by their names
class_lists     reads lists of classes
coco_check      finds problems in a COCO file and its images
coco_objects    finds problems in the objects of a COCO file
label_check     finds problems in images and label maps
smoothing       recognises label maps with soft edges
problems        what a problem is: error or warning, its text and remedy
exif            turns annotations as EXIF turns the image
draw_split      draws a validation split where the data has none
summary         a split as lines of text and as a table
into_config     fits a config to the data; schedule fits its length
mmseg_dataset   the MMSegmentation data set for label maps
prepare         runs all of this for tools/train.py
"""
