"""Check whether training can start on this machine; see --help."""

from _command import run

if __name__ == "__main__":
    run("doctor")
