"""Convert a ConvNeXt checkpoint to another library's parameter names; see --help."""

from _command import run

if __name__ == "__main__":
    run("convert_checkpoint")
