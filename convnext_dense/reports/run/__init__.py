"""A page about a run: its curves, its classes, its best and worst images.

``hook`` writes it at the end of training, ``finished`` of a run that is over.
"""
