"""Plots need no display and nobody's backend: a notebook hands its own to the commands that it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REPORT = """
import sys
from pathlib import Path
from core.experiment.report import BASELINE, Outcome, write_augmentation_report
outcome = Outcome(8, 0, BASELINE, {"gc/test": {"gaze": 4.5, "head": 1.0}})
write_augmentation_report(Path(sys.argv[1]), [outcome], {})
"""
# matplotlib cannot be imported under the first two, and pyplot draws nothing under the third.
BACKENDS = ["module://matplotlib_inline.backend_inline", "nonsense", "module://nonsense"]


def draw(folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPORT, folder], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "augmentation.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_report_is_drawn_whatever_backend_the_environment_names(backend: str, tmp_path: Path) -> None:
    draw(tmp_path, {"MPLBACKEND": backend})


def test_a_report_is_drawn_whatever_backend_the_users_settings_name(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("backend: module://nonsense\n")
    draw(tmp_path / "report", {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MPLBACKEND": ""})


def test_the_users_backend_is_left_as_it_is() -> None:
    code = "import os; from core.figures import new_figure; new_figure((1, 1)); print(os.environ['MPLBACKEND'])"
    environment = os.environ | {"MPLBACKEND": "svg"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "svg"
