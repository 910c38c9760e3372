"""Predict objects or segmentation maps for images and videos; see --help."""

from _command import run

if __name__ == "__main__":
    run("predict")
