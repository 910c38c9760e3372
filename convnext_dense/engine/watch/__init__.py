"""Training that goes wrong says so.

start    before the first step: what would train for nothing
hook     at every step: are losses and gradients finite?
batches  one batch in a file, to be run again (--replay)
"""
