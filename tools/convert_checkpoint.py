"""Write a ConvNeXt checkpoint under another library's parameter names; see --help."""

from _command import run

if __name__ == "__main__":
    run("convert_checkpoint")
