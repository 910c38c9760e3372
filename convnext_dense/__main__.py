"""Runs a command: ``python -m convnext_dense COMMAND``."""

from convnext_dense_cli import main

if __name__ == "__main__":
    main()
