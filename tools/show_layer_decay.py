"""The learning rate of every layer; see --help."""

from _command import run

if __name__ == "__main__":
    run("show_layer_decay")
