"""List the configs of this package, or copy one; see --help."""

from _command import run

if __name__ == "__main__":
    run("configs")
