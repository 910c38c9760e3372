"""Layer-wise, stage-wise and block-wise learning-rate decay."""
