"""The notebook that newcomers run first; a bug here breaks a public name or command it uses."""

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="pip install espnet_star[notebook]")
nbformat = pytest.importorskip("nbformat", reason="pip install espnet_star[notebook]")
pytest.importorskip("ipykernel", reason="pip install espnet_star[notebook]")
pytest.importorskip("matplotlib", reason="pip install espnet_star[notebook]")

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "examples" / "student.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_committed_without_outputs():
    for cell in read().cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = read()
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    text = "".join(output.get("text", "") for output in outputs)
    assert len(figures) == 2
    assert "HubertModel: 5 states" in text
