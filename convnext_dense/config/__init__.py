"""From a config file and a command line to a checked mmengine ``Config``.

options   what each command-line flag changes
embedded  the config inside a checkpoint, read without running its code
checks    whether files, values, names and channels fit, before a run starts
"""
