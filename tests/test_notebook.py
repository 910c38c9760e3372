"""examples/quickstart.ipynb runs to its end, and shows a picture."""

import json
import sys

import pytest

from .helpers.paths import ROOT

NOTEBOOK = ROOT / "examples/quickstart.ipynb"
SECONDS = 300  # that a cell may take on a busy machine


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_it_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    # The kernel of this environment, which Jupyter may not list.
    folder = tmp_path / "jupyter/kernels/python3"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = dict(argv=command, display_name="Python 3", language="python")
    (folder / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources=dict(metadata=dict(path=str(tmp_path))),
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "of the pixels" in printed
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert list(tmp_path.glob("work_dirs/quickstart/iter_*.pth"))
