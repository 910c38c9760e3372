"""Train on custom data: a COCO file, or a folder of label maps.

layouts       where the data is
coco, label_split         one split, as training and pictures need it
coco_check, label_check   what is wrong in it, and the rest, cleaned
problems      kinds of problem, with the names of the files or objects that have them
draw_split    a split of its own to validate on
summary       what there is, in lines
into_config   a config changed to fit the data; schedule: how long to train
prepare       all of it, for a run
"""
