"""Count a model's parameters and multiply-adds; see --help."""

from _command import run

if __name__ == "__main__":
    run("complexity")
