"""Compare the time and memory of ConvNeXts of several libraries; see --help."""

from _command import run

if __name__ == "__main__":
    run("benchmark")
