"""Write the report of a run; see --help."""

from _command import run

if __name__ == "__main__":
    run("report")
