"""Data sets: ``shapes`` is built in, ``custom`` reads the user's own files."""
