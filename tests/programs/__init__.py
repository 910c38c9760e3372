"""Programs that measure, run with ``python -m tests.programs.NAME``."""
