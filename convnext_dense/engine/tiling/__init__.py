"""Predicts large images in tiles that overlap, and merges the results.

    grid.py        where the tiles are
    detections.py  boxes and masks of the tiles become those of the image
    masks.py       masks of a large image, as COCO's run lengths
    segmentors.py  scores that segmentors give tiles
    label_map.py   scores of the tiles become the label map of the image
    model.py       ``TiledModel``: a detector or segmentor that does all of this

``use_tiles`` puts ``TiledModel`` around the model of a config.
"""
