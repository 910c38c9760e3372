"""Print the learning rate scale of every layer of a config's model; see --help."""

from _command import run

if __name__ == "__main__":
    run("show_layer_decay")
