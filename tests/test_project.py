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


def test_the_oldest_versions_are_those_that_the_requirements_allow() -> None:
    def named(path: Path, sign: str) -> dict[str, str]:
        lines = (line.partition(sign) for line in path.read_text(encoding="utf-8").splitlines())
        return {name: version for name, found, version in lines if found and not name.startswith("#")}

    pinned = named(ROOT / "requirements-oldest.txt", "==")
    allowed = named(ROOT / "requirements.txt", ">=") | named(ROOT / "requirements-export.txt", ">=")
    assert allowed.keys() <= pinned.keys()
    assert all(f"{pinned[name]}.".startswith(f"{version}.") for name, version in allowed.items())
