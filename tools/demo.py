"""Show a trained model on a local page; see --help."""

from _command import run

if __name__ == "__main__":
    run("demo")
