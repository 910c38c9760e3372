"""Show what a data set holds and what is wrong with it; see --help."""

from _command import run

if __name__ == "__main__":
    run("inspect_data")
