"""The notebooks run, and lie there with small outputs that say nothing of the machine that they ran on."""

import json
import re
from pathlib import Path

import pytest

from notebooks.__main__ import FOLDER, METADATA, NAMES, execute

LARGEST = 300_000  # bytes
MACHINE = re.compile(r"/(?:home|root|work|tmp|Users|opt|usr|mnt|var)/|[A-Z]:\\\\")


def test_every_notebook_is_run_by_the_command():
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_lie_there_with_small_outputs_and_no_paths_of_a_machine(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8")
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(text) < LARGEST and notebook["metadata"] == METADATA
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "image/jpeg" in {kind for output in outputs for kind in output.get("data", {})}
    assert not [output for output in outputs if output.get("name") == "stderr" or output["output_type"] == "error"]
    words = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert not MACHINE.search(json.dumps(words))


QUICK, LONG = sorted(NAMES)  # the second trains


@pytest.mark.parametrize("name", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_notebooks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason="needs requirements-notebooks.txt")
    monkeypatch.setenv("NOTEBOOK_QUICK", "1")
    monkeypatch.setenv("NOTEBOOK_FOLDER", str(tmp_path))
    import os

    before = (FOLDER / name).read_bytes()
    notebook = execute(FOLDER / name, os.environ)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert (tmp_path / "data/notebooks/GazeCapture_128.h5").is_file()
    assert (FOLDER / name).read_bytes() == before
