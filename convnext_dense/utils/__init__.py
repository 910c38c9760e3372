"""Small helpers that know nothing of models, data sets or runs."""
