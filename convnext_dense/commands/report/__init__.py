"""The page about a run that has ended, made again."""
