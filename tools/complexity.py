"""Parameters and multiply-adds beside the paper's; see --help."""

from _command import run

if __name__ == "__main__":
    run("complexity")
