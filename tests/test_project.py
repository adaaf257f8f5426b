"""What stands in pyproject.toml and the hosted workflow agrees with the files that people use."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("extra", ["dev", "export", "notebooks", "page"])
def test_an_extra_is_its_requirements_file(extra: str) -> None:
    lines = (ROOT / f"requirements-{extra}.txt").read_text(encoding="utf-8").split("\n")
    names = sorted(line for line in lines if line and not line.startswith("-r"))
    assert PROJECT["optional-dependencies"][extra] == names


def test_the_hosted_workflow_calls_ci_run_on_the_oldest_python() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert "bash .ci/run" in workflow and (ROOT / ".ci/run").is_file()
    assert f'python-version: "{PROJECT["requires-python"].removeprefix(">=")}"' in workflow
