"""The page about a run: its curves, its classes, its best and worst images.

hook           collects predictions and writes the page when training ends
curves         reads what a run has logged
results        what one validation showed, for both tasks
detection      results of a detector
segmentation   results of a segmentor
figures        the figures
environment    the machine and the versions
page           puts all of it into one HTML file
"""
