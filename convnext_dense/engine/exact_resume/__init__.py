"""Stopped training that goes on as if it had not been stopped.

stream          which image when, and its augmentation: functions of a seed
random_states   of all generators of a process
signals         SIGTERM and Ctrl-C are requests
other_batch     going on with more or fewer images a step
hook            puts them into mmengine's runs and checkpoints
"""
