"""Run the notebooks anew and keep their outputs: python -m notebooks [dataset_explore.ipynb ...]

They make their data in data/notebooks and train in runs/notebooks, which is minutes; what is there is used again.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.command import UserError, answer
from core.files import read_text, write_text
from core.tracking import say

FOLDER = Path(__file__).resolve().parent
NAMES = ("dataset_explore.ipynb", "train_st_ed.ipynb")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, environment: Mapping[str, str]) -> Any:
    """The notebook after all of its cells were run, in its folder, without what only this machine would say.

    Returns nbformat's NotebookNode. Raises nbclient's CellExecutionError where a cell fails, UserError where an
    output names a folder of this machine.
    """
    import nbformat  # both are of requirements-notebooks.txt
    from nbclient import NotebookClient

    notebook = nbformat.reads(read_text(path), as_version=4)
    client = NotebookClient(
        notebook, timeout=7200, resources={"metadata": {"path": str(path.parent)}}, record_timing=False
    )
    client.execute(env=dict(environment))
    clean(notebook)
    for cell in notebook.cells:
        if str(FOLDER.parent) in str(cell.get("outputs", "")):
            raise UserError(f"{path.name}: an output names {FOLDER.parent}; let the cell print less.\n{cell.source}")
    return notebook


def clean(notebook: Any) -> None:
    """Takes out progress bars, warnings, and what the kernel says of itself."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NOTEBOOK", default=NAMES, help="default: all")
    arguments = parser.parse_args(argv)

    def run() -> None:
        import os

        import nbformat

        for name in arguments.names:
            say(f"Running {name} ...")
            notebook = execute(FOLDER / name, os.environ)
            write_text(FOLDER / name, nbformat.writes(notebook) + "\n")

    return answer("notebooks", run)


if __name__ == "__main__":
    sys.exit(main())
