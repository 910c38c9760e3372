"""Custom data: train on objects (a COCO file or other formats) or on label maps.

Each module has one job:

layouts         finds the files of each split; label_layouts those of label maps
split_paths     where a split is, and the words that name train, val and test
formats         reads YOLO, Pascal VOC and labelme as the content of a COCO file
image_names     finds the image files that an annotation file means
splits          what a split offers to training, pages and tables (a protocol)
problems        what a problem is: error, warning or note, its text and remedy

coco            a split annotated by a COCO file
coco_entries    reads the entries of a COCO file, each value with its type
coco_check      finds problems in a COCO file and its images
coco_objects    finds problems in the objects of a COCO file
coco_boxes      finds problems in their boxes

label_split     a split annotated by label maps
label_files     reads the values that the file of a label map stores
label_maps      turns these values, or colours, into classes
label_pairs     pairs images with label maps by their names; label_words has the words
label_check     finds problems in images and label maps
smoothing       recognises label maps with soft edges
class_lists     reads lists of classes

task            checks that the data suits the task of a config
exif            turns annotations as EXIF turns the image
draw_split      draws a validation split where the data has none
summary         a split as lines of text and as a table
into_config     fits a config to the data; schedule fits its length
class_settings  sets what depends on the classes: heads, losses, class weights
option_settings keeps the settings of --cfg-options in a config that is fitted
mmseg_dataset   the MMSegmentation data set for label maps
prepare         runs all of this for convnext-dense train
"""
