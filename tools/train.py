"""Train a detector or a segmentor; see --help."""

from _command import run

if __name__ == "__main__":
    run("train")
