"""The page about a run: its curves, its classes, its best and worst images.

hook           collects predictions and writes the page when training ends
curves         reads what a run has logged
results        what one validation showed, for both tasks
detection      results of a detector
segmentation   results of a segmentor
progress       how far the run came, and how it ended
figures        the figures of what the run logged; result_figures of one validation
panels         what these figures share: style, panels, lines, legends
tables         the tables
environment    the machine and the versions
page           puts all of it into one HTML file
"""
