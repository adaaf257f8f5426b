"""A run's first losses come out again, and nothing is written into its folder."""

from pathlib import Path

import pytest

from tests.test_train_st_ed import setup  # noqa: F401  a fixture
from train_st_ed import main


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_losses_of_a_run_come_out_again_and_a_changed_one_is_named(
    setup: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config.json", "--no-compute-full-result"]) == 0
    before = content(setup / "run")
    assert main(["--replay", "run/config.json"]) == 0
    assert "The same losses, to the last bit, in 6 lines up to step 6." in capsys.readouterr().out
    assert content(setup / "run") == before
    lines = (setup / "run/metrics.jsonl").read_text()
    (setup / "run/metrics.jsonl").write_text(lines.replace('"step": 4, "train/l1": ', '"step": 4, "train/l1": 1'))
    assert main(["--replay", "run/config.json"]) == 1
    printed = capsys.readouterr().out
    assert "Step 4: train/l1 was 1" in printed
    assert "Step 1: losses differ by up to 0 of themselves.\nStep 6: losses differ by up to 0 of" in printed


@pytest.mark.parametrize(
    "words, found",
    [
        (["--replay"], "takes the config.json of a run"),
        (["--replay", "a.json", "--seed", "1"], "takes the config.json of a run"),
        (["--replay", "none/config.json"], "none/metrics.jsonl: no such file"),
    ],
)
def test_what_cannot_be_replayed_is_said(words: list[str], found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert found in capsys.readouterr().err
