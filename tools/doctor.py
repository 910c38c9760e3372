"""Check whether this machine can train; see --help."""

from _command import run

if __name__ == "__main__":
    run("doctor")
