"""Small helpers that do not depend on models, data sets or runs."""
