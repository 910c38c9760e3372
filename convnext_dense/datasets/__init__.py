"""The built-in data set, shapes."""
