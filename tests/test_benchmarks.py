"""What times things: who takes turns, what is kept and compared. No time is asserted."""

import json
import platform
from functools import partial
from pathlib import Path

import pytest
import torch

import benchmarks.__main__ as benchmarks_set
from benchmarks import gpu, kept, precision, roofline
from benchmarks.training_step import HEAD, rows
from benchmarks.turns import Contender, Timing, ceiling, in_turn
from core import runtime
from core.command import UserError

TWO = [
    Contender("reading, published way", "read", "", 4, given={"published": True}),
    Contender("reading", "read", "", 4),
]


@pytest.mark.slow
def test_contenders_take_turns_in_processes_of_their_own() -> None:
    timings = in_turn(TWO, rounds=3)
    assert len(timings) == 2
    assert all(0 < timing.low <= timing.median <= timing.high for timing in timings)


def test_a_contender_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(RuntimeError, match="ended"):
        in_turn([Contender("none", "step", "no-such-configuration", 4)], rounds=1)


def test_a_row_says_the_speed_beside_the_first_and_the_share_of_the_ceiling() -> None:
    lines = rows(TWO, [Timing(200, 190, 210, 380, 10, 0), Timing(100, 90, 110, 180, 10, 3.2)], most=200)
    assert lines[1] == "| reading | 100 | 90 to 110 | 180 | 40 | 2.00 | 10 | 50% | 3.2 |"
    assert lines[1].count("|") == HEAD.splitlines()[0].count("|")


def test_the_last_result_is_kept_and_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last, out = tmp_path / "last.json", tmp_path / "new" / "out.json"
    milliseconds = {"now": 200.0}

    def pretended(group: list[Contender], rounds: int) -> list[Timing]:
        return [Timing(milliseconds["now"] if i else 400, 1, 2, 3, 4, 5) for i, _ in enumerate(group)]

    monkeypatch.setattr(kept, "in_turn", pretended)
    monkeypatch.setattr(kept, "ceiling", partial(ceiling, rounds=1))
    monkeypatch.setattr(benchmarks_set, "cpu_groups", lambda: [(TWO, 1)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flags = ["--out", str(out), "--last", str(last)]
    assert benchmarks_set.main([*flags, "--keep"]) == 0
    milliseconds["now"] = 100.0
    assert benchmarks_set.main(flags) == 0
    assert "| reading | 2.00 | 2.00 |" in capsys.readouterr().out
    before, new = json.loads(last.read_text()), json.loads(out.read_text())
    assert before["figures"]["reading"]["faster"] == 2 and new["figures"]["reading"]["faster"] == 4
    assert {"processor", "versions", "load", "date", "code_revision"} <= new["machine"].keys()


def test_trials_of_bfloat16_are_left_out_and_named_where_the_processor_emulates_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def titles(emulates: bool) -> list[str]:
        monkeypatch.setattr(runtime, "emulates_bfloat16", lambda device: emulates)
        return [one.title for group, _ in benchmarks_set.cpu_groups() for one in group]

    everything = titles(False)
    assert "Left out" not in capsys.readouterr().err
    trials = [title for title in everything if "bfloat16" in title]
    assert len(trials) == 6 and titles(True) == [title for title in everything if title not in trials]
    said = capsys.readouterr().err
    assert all(f"Left out: {title}; this processor has no instructions for bfloat16." in said for title in trials)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="PyTorch may not tell it of other processors")
def test_pytorch_still_tells_whether_it_emulates_bfloat16() -> None:
    """By a name that is not documented; without it nothing is warned of."""
    assert runtime.emulates_bfloat16(torch.device("cpu")) is not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_without_a_gpu_the_gpus_set_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"No GPU.*python -m benchmarks"):
        gpu.main([])


def test_a_product_of_two_matrices_is_counted_and_has_its_floor() -> None:
    a, b = torch.rand(10, 20), torch.rand(20, 30)
    work = roofline.counted(lambda: (a @ b).view(30, 10))
    assert work == roofline.Work(2 * 10 * 20 * 30 / 1e9, 4 * (200 + 600 + 300) / 1e9, 1)
    assert work.floor(1, 1) == pytest.approx(1000 * work.gflop) and work.floor(1e9, 1) == pytest.approx(
        1000 * work.gbytes
    )


def test_terms_are_means_of_the_last_steps() -> None:
    rows = {step: {"step": step, "train/l1": step, "train/learning_rate": 1.0} for step in range(1, 41)}
    assert precision.terms(rows, 40) == {"train/l1": 30.5}
