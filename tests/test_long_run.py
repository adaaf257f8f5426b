"""What the watcher of long trainings makes of what it sees."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.long_run import Moment, last_step, look, settings, slopes
from core.config_reader import load_config


def test_a_leak_is_found_by_its_slope_and_the_start_is_left_out() -> None:
    moments = [Moment(step, 500 + (step / 1000) * 3 - 200 * (step < 1000), 40, 7) for step in range(0, 10_001, 100)]
    found = slopes(moments)
    assert found["memory"] == pytest.approx((3, 0), abs=1e-6) and found["files"] == pytest.approx((0, 0), abs=1e-9)


def test_this_process_has_memory_files_and_threads() -> None:
    with open(os.devnull) as _:
        more = look(os.getpid(), 5)
    less = look(os.getpid(), 5)
    assert more is not None and less is not None
    assert more.step == 5 and more.memory > 10 and more.threads >= 1 and more.files == less.files + 1
    assert look(2**30, 5) is None


def test_the_last_step_that_was_logged(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert last_step(metrics) == 0
    metrics.write_text('{"step": 10, "a": 1}\n{"step": 20}\n{"st')
    assert last_step(metrics) == 0
    metrics.write_text('{"step": 10, "a": 1}\n{"step": 20}\n')
    assert last_step(metrics) == 20


def test_its_settings_are_the_quickstarts_but_for_the_size(tmp_path: Path) -> None:
    (tmp_path / "more.json").write_text(json.dumps(settings(tmp_path, 100)))
    assert load_config(["config/quickstart.json", str(tmp_path / "more.json")]).num_training_steps == 100
