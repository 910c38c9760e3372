"""Trains every model family of mmdet and mmseg for a step, with ConvNeXt too.

A family is a folder of model configs that a toolbox ships. ``python -m
tests.programs.families`` builds a model of each, trains it for one step and predicts
with it, first as shipped, then with this package's ConvNeXt as its backbone.

``catalogue`` chooses a config of each family, ``shrinking`` makes it small and free of
downloads, ``data`` makes images and annotations for it, ``fitting`` puts ConvNeXt in,
``step`` trains and predicts, ``workers`` runs many steps in processes with limits, and
``table`` reports.
"""
