"""Several processes train, stop, fail and measure as one."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints_manager import saved_steps
from core import distributed
from core.batches import PairSampler
from core.distributed import own_rows, require_one_process, require_shares
from dataset import GazeDataset
from tests import processes
from tests.processes import ROOT, free_port
from tests.test_train_redirtrans import gan  # noqa: F401  a fixture
from tests.test_train_st_ed import setup  # noqa: F401  a fixture
from tests.tiny import write_dataset
from train_st_ed import main

COMMAND = [str(ROOT / "train_st_ed.py"), "config.json"]
QUICK = ["--no-compute-full-result", "--no-use-tensorboard", "--print-freq-test", "1000", "--save-freq-images", "1000"]


def logged(run: Path) -> dict[int, dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row for row in rows if "train/l1" in row}


def assert_close(u: dict[int, dict[str, float]], v: dict[int, dict[str, float]], tolerance: float) -> None:
    """Of all that is logged but the speed."""
    assert u.keys() == v.keys()
    for step, row in u.items():
        assert row.keys() == v[step].keys()
        for name in row.keys() - {"train/images_per_s"}:
            assert v[step][name] == pytest.approx(row[name], rel=tolerance, abs=tolerance), (step, name)


def until(happens: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", ["st-ed", pytest.param("st-ed-flow", marks=SLOW), pytest.param("redirtrans-gan", marks=SLOW)]
)
def test_two_processes_have_the_losses_of_one_with_the_same_batches(kind: str, tmp_path: Path) -> None:
    script = str(ROOT / "tests" / "shared_steps.py")
    (alone,) = processes.run([script, kind], 1, tmp_path)
    first, second = processes.run([script, kind], 2, tmp_path)
    assert not first.returncode and not second.returncode, first.stderr + second.stderr
    assert first.stdout == second.stdout
    for step, (one, two) in enumerate(zip(json.loads(alone.stdout), json.loads(first.stdout), strict=True)):
        assert two == pytest.approx(one, rel=1e-5, abs=1e-5), step


@pytest.mark.slow
def test_the_first_alone_writes_and_another_number_of_processes_goes_on_with_the_same_data(
    setup: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config.json", "--save-path", "alone", *QUICK]) == 0
    first, second = processes.run([*COMMAND, *QUICK], 2, setup)
    assert [first.returncode, second.returncode] == [0, 0], first.stderr + second.stderr
    assert not second.stdout and "Settings that differ" in first.stdout
    assert {str(p.relative_to(setup / "run")) for p in (setup / "run").rglob("*")} == {
        str(p.relative_to(setup / "alone")) for p in (setup / "alone").rglob("*")
    }
    # One learning rate of Adam's is the most that rounding can turn into, and a few steps of it.
    assert_close(logged(setup / "alone"), logged(setup / "run"), 2e-3)
    for step in (4, 6):
        (setup / "run" / "checkpoints" / f"{step}.pt").unlink()
    assert main(["config.json", *QUICK]) == 0
    assert "(step 2)" in capsys.readouterr().out
    assert_close(logged(setup / "alone"), logged(setup / "run"), 2e-3)


@pytest.mark.slow
def test_an_evaluation_is_the_same_to_the_bit(setup: Path) -> None:  # noqa: F811
    assert main(["config.json", *QUICK]) == 0
    measure = [*COMMAND, "--skip-training", "--load-step", "6", "--eval-batch-size", "2"]
    report = setup / "run" / "report" / "6" / "report.json"
    reports = []
    for count in (1, 2):
        done = processes.run(measure, count, setup)
        assert not any(one.returncode for one in done), [one.stderr for one in done]
        reports.append(json.loads(report.read_text()))
        report.unlink()
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_a_sentence_and_a_sound_checkpoint(setup: Path) -> None:  # noqa: F811
    first, second = processes.start([*COMMAND, *QUICK, "--num-training-steps", "100000"], 2, setup)
    until(lambda: bool(saved_steps(setup / "run")))
    second.kill()
    _, told = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 1
    assert "another of the 2 processes ended" in told and "the last checkpoint is" in told
    last = saved_steps(setup / "run")[-1]
    assert torch.load(setup / "run" / "checkpoints" / f"{last}.pt", weights_only=True)["step"] == last
    assert not list((setup / "run" / "checkpoints").glob(".*"))


def test_each_item_is_one_processs_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "_group", distributed._Group(rank, 3))
        shares.append(distributed.own_share("abcdefgh"))
    assert shares == [["a", "d", "g"], ["b", "e", "h"], ["c", "f"]]


@pytest.mark.slow
def test_a_redirected_data_set_is_shared_out_and_the_same_to_the_byte(setup: Path) -> None:  # noqa: F811
    flags = ["--store-redirect-dataset", "--skip-training", "--load-step", "6", "--no-compute-full-result"]
    assert main(["config.json", *QUICK]) == 0
    files = []
    for count in (1, 2):
        path = setup / f"by_{count}.h5"
        done = processes.run([*COMMAND, *flags, "--redirected-file", str(path)], count, setup)
        assert not any(one.returncode for one in done), [one.stderr for one in done]
        assert "real and" in done[0].stdout and not any(one.stdout for one in done[1:])
        files.append(path.read_bytes())
    assert files[0] == files[1] and not list(setup.glob(".by_2*"))


@pytest.mark.slow
def test_inversions_are_shared_out_and_the_same_to_the_byte(gan: Path) -> None:  # noqa: F811
    command = [str(ROOT / "train_st_ed.py"), "gan.json", *QUICK, "--num-training-steps", "2", "--eval-batch-size", "4"]
    found = []
    for count in (1, 2):
        flags = ["--inversions-path", f"by_{count}", "--save-path", f"run_{count}"]
        done = processes.run([*command, *flags], count, gan)
        assert not any(one.returncode for one in done), [one.stderr for one in done]
        assert "still to be computed" in done[0].stdout and not any(one.stdout for one in done[1:])
        found.append({path.name: path.read_bytes() for path in (gan / f"by_{count}").rglob("*.h5")})
    assert found[0] == found[1] and len(found[0]) == 2


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(setup: Path) -> None:  # noqa: F811
    started = processes.start([*COMMAND, *QUICK, "--num-training-steps", "100000"], 2, setup)
    until(lambda: bool(saved_steps(setup / "run")))
    started[1].send_signal(signal.SIGTERM)
    told = [one.communicate(timeout=60) for one in started]
    assert [one.returncode for one in started] == [130, 130], told
    step = int(re.search(r"Stopped at step (\d+)", told[0][0])[1])  # type: ignore[index]
    assert saved_steps(setup / "run")[-1] == step and not (setup / "run" / ".owner").exists()


def test_what_the_first_refuses_is_said_once(setup: Path) -> None:  # noqa: F811
    first, second = processes.run([*COMMAND, "--batch-size", "5"], 2, setup)
    assert [first.returncode, second.returncode] == [2, 2]
    assert "batch_size: 5 is that of all processes together, and does not divide by 2 of them" in first.stderr
    assert "Start 1, 5 processes" in first.stderr and "error" not in second.stderr


@pytest.mark.slow
def test_two_nodes_under_torchrun_train_one_run(setup: Path) -> None:  # noqa: F811
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    nodes = [
        subprocess.Popen([*torchrun, "--node-rank", str(i), *COMMAND, *QUICK], cwd=setup, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    told = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    assert saved_steps(setup / "run") == [2, 4, 6]


def slurm_script() -> str:
    """Of the documentation, as it stands there."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    return next(block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "#SBATCH --requeue" in block)


SRUN = """
import os, signal, subprocess, sys
started = [
    subprocess.Popen(sys.argv[2:], env=os.environ | {"SLURM_PROCID": str(i), "SLURM_LOCALID": "0"}) for i in range(2)
]
signal.signal(signal.SIGUSR1, lambda *_: [one.send_signal(signal.SIGUSR1) for one in started])
sys.exit(max([one.wait() for one in started]))
"""
SCONTROL = """
import sys
if sys.argv[1] == "show":
    print("127.0.0.1")
else:
    open("asked", "a").write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.mark.slow
def test_the_slurm_script_saves_before_a_preemption_and_is_queued_again(setup: Path) -> None:  # noqa: F811
    """With commands of these names that start two processes here, and write down what is asked of them."""
    commands = setup / "bin"
    commands.mkdir()
    fakes = {"srun": SRUN, "scontrol": SCONTROL}
    for name, text in fakes.items():
        (commands / name).write_text(f"#!{sys.executable}\n{text}")
        (commands / name).chmod(stat.S_IRWXU)
    words = " ".join([*COMMAND, *QUICK, "--num-training-steps 100000"])
    (setup / "job.sh").write_text(re.sub(r"train_st_ed\.py \S+\.json", words, slurm_script()))
    given = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "n[1-2]", "MASTER_PORT": str(free_port())}
    path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = subprocess.Popen(
        ["bash", "job.sh"], cwd=setup, env=os.environ | given | {"PATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until(lambda: bool(saved_steps(setup / "run")))
    srun = int(subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True).stdout)
    os.kill(srun, signal.SIGUSR1)
    assert job.wait(timeout=60) == 0
    assert (setup / "asked").read_text() == "requeue 7\n"
    assert len(saved_steps(setup / "run")) >= 2


def test_the_shares_of_a_batch_are_disjoint_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = GazeDataset(write_dataset(tmp_path / "tiny.h5"))
    whole = list(PairSampler(data, batch_size=6, seed=3, num_steps=5))
    parts = []
    for rank in range(3):
        monkeypatch.setattr("core.distributed._group", processes.stand_in(rank, 3))
        parts.append(list(PairSampler(data, batch_size=6, seed=3, num_steps=5, share=own_rows(2))))
    assert [sum(shares, []) for shares in zip(*parts, strict=True)] == whole
    assert len(np.unique([a for a, _ in sum(whole[:4], [])])) == 24


@pytest.mark.parametrize("size, fits", [(1, True), (4, True), (3, False)])
def test_a_batch_is_dealt_out_equally_or_not_at_all(size: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(size))
    if fits:
        require_shares(8)
    else:
        with pytest.raises(ValueError, match="batch_size: 8 .* 3 of them. Start 1, 2, 4, 8 processes"):
            require_shares(8)


def test_what_runs_in_one_process_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    require_one_process("train_facenet.py")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="train_facenet.py: runs in one process, not in 2. Start it"):
        require_one_process("train_facenet.py")
