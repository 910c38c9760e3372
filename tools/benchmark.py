"""Time and memory beside other libraries' ConvNeXts; see --help."""

from _command import run

if __name__ == "__main__":
    run("benchmark")
