"""Numbers of the documentation whose command is cheap are those that it gives now; tables agree with tables."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import landmarks
from benchmarks.untrained import untrained
from tests import test_pickles

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "benchmarks").glob("*.md")))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def rows(text: str, after: str) -> list[list[str]]:
    """The cells of the first table behind some text, its head first."""
    lines = text[text.index(after) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    stop = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:stop]]
    return [row for row in table if set(row[0]) != {"-"}]


def as_shown(value: float, text: str) -> bool:
    """Whether a text is this value, rounded to as many digits as it has."""
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5001 * 10**-digits


def seed_tables() -> list[list[str]]:
    """All rows of figures of several seeds with their mean and standard error."""
    found, names = [], list[str]()
    for line in BENCHMARKS.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        names = cells if "s.e." in cells else names if cells else []
        if names and all(NUMBER.fullmatch(cell) for cell in cells[1:]):
            found.append(cells)
    return found


def test_means_and_standard_errors_are_those_of_the_seeds() -> None:
    assert len(seed_tables()) > 20
    for name, *seeds, mean, error in seed_tables():
        values, last = np.array(seeds, float), 10.0 ** -len(mean.partition(".")[2])
        # Of what is shown, so to the last digit.
        assert values.mean() == pytest.approx(float(mean), abs=last), name
        assert values.std(ddof=1) / len(values) ** 0.5 == pytest.approx(float(error), abs=last), name


def test_the_readme_says_of_the_quickstart_what_its_benchmark_does() -> None:
    means = {name: float(mean) for name, *_, mean, _ in rows(BENCHMARKS, "## The quickstart")[1:]}
    row = next(row for row in rows(README, "## What was measured") if "`quickstart.json`" in row)
    gaze, head, distances, kept = row[3:]
    own, persons = distances.split(" / ")
    shown = {"gaze_redirection_ratio": gaze, "head_redirection_ratio": head, "l1": own, "l1_person_mean": persons}
    assert all(as_shown(means[name], text) for name, text in shown.items())
    assert as_shown(100 * means["identity_kept"], kept.removesuffix(" %"))


def test_every_row_of_the_readme_has_a_command() -> None:
    by_benchmark = {"quickstart.json"} if "python -m benchmarks.quickstart" in README else set()
    found = set(re.findall(r"python train_st_ed\.py config/([\w-]+\.json)", README + BENCHMARKS)) | by_benchmark
    for row in rows(README, "## What was measured")[1:]:
        names = set(re.findall(r"`([\w-]+\.json)`", row[1]))
        assert names and all((ROOT / "config" / name).is_file() for name in names)
        assert row[3] == "not run in full" or names <= found


def test_hostile_pickles_are_as_many_as_is_said() -> None:
    text = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    count = len(test_pickles.CALL | test_pickles.MUCH | test_pickles.DAMAGED)
    assert f"| hostile pickles | {3 * count}: {count} in three formats |" in text


def test_the_checkpoint_that_comes_along_is_as_large_as_is_said() -> None:
    text = (ROOT / "docs/redirecting-photos.md").read_text(encoding="utf-8")
    size = (ROOT / "pretrained_models/photographs.pt").stat().st_size / 1e6
    assert as_shown(size, re.findall(r"([\d.]+) MB, for weights are kept in half", text)[0])


def test_networks_are_as_large_as_is_said() -> None:
    for name, _, size, *_ in rows(BENCHMARKS, "## Exported files")[1:]:
        redirector = untrained(name.strip("`")).redirector
        weights = sum(p.nbytes for p in redirector.parameters()) / 2**20
        assert weights == pytest.approx(float(size), abs=1 + 0.03 * weights), name  # and the file's own words


@pytest.mark.slow
def test_pupils_and_noses_are_as_far_off_as_is_said() -> None:
    command = re.findall(r'^python (-m pytest .*) -k "(pupils_are or head_is)"$', BENCHMARKS, re.MULTILINE)[0]
    words = [sys.executable, *command[0].split(), "-k", command[1]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"error: mean ([\d.]+) px, 95th percentile ([\d.]+) px", done.stdout)
    said = [row[2] for row in rows(BENCHMARKS, "## The embedded data set") if row[1] == "0.25, 0.5 px"]
    assert [f"{mean}, {most} px" for mean, most in found] == said


@pytest.mark.slow
def test_heads_from_landmarks_are_as_far_off_as_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["landmarks"])
    landmarks.main()
    printed = capsys.readouterr().out
    text = " ".join(BENCHMARKS[BENCHMARKS.index("## Heads from detected landmarks") :].split())
    median, most = re.findall(r"off by ([\d.]+) degrees in the median, ([\d.]+) at most", text)[0]
    assert f"head, all: median {median}, at most {most}" in printed
    slopes = re.findall(r"slope ([\d.]+) in pitch, ([\d.]+) in yaw", text)[0]
    assert re.findall(r"slope ([\d.]+)", printed) == list(slopes)
    assert "nose: " + re.findall(r"correlation (-[\d.]+)", text)[0] in printed
