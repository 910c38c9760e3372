"""Stops training that cannot learn, or whose numbers are not finite.

start    checks the run before its first step
classes  compares heads and losses with the classes of the training data
norms    finds batch norms that get one value per channel
finite   tells whether losses and gradients are finite, without waiting for a GPU
hook     checks losses and gradients at every step
batches  writes a batch that is not finite to a file, and repeats its step (--replay)
"""
