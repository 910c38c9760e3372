"""Test a detector or a segmentor on the test split of a config; see --help."""

from _command import run

if __name__ == "__main__":
    run("test")
