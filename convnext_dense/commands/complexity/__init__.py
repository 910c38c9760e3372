"""Parameters and multiply-adds of a config's model, beside the paper's."""
