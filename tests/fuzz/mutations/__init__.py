"""Ways to change files: each knows the grammar of one format.

A mutation is a function of the content and a ``random.Random``. It returns changed
content, and takes its decisions from that generator alone, so that the same seed makes
the same cases everywhere.
"""
