"""Continues stopped training as if it had never stopped.

stream         the order of the images and their augmentations, as functions of a seed
random_states  saves and restores all random generators of a process
signals        treats SIGTERM and Ctrl-C as requests to stop
gradients      saves and restores accumulated gradients
memory         saves and restores what other hooks remember
position       puts the data where the checkpoint has it
new_config     continues with another config, and names the settings that differ
schedules      gives the run the schedules and optimizer settings of its new config
other_batch    continues with more or fewer images a step
ends           says so when nothing is left to train
checked        checks the hook's state in a checkpoint
differences    names the settings that differ from the checkpoint's config
hook           adds these to mmengine's runs and checkpoints
"""
