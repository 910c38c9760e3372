"""From a config file and a command line to a checked mmengine ``Config``.

options       reads a config file and applies the command line to it
cfg_options   parses the values of ``--cfg-options``
embedded      reads the config inside a checkpoint without running its code
checks        checks files, values and names before a run starts
inputs        lists the files that a config and a checkpoint name
work_dir      keeps configs that no run wrote from being replaced
sections      iterates over the data sets of a dataloader
"""
