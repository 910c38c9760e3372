"""Layer-wise and stage-wise learning-rate decay."""
