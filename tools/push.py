"""Upload the model of a run to the Hugging Face hub; see --help."""

from _command import run

if __name__ == "__main__":
    run("push")
