"""Export a segmentor, a detector or a backbone to ONNX or torch.export; see --help."""

from _command import run

if __name__ == "__main__":
    run("export")
