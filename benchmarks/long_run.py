"""Does a long training leak? A tiny one of the quickstart's kind is watched from outside: memory, open files, threads.

python -m benchmarks.long_run --folder FOLDER [--steps 10000] [--minutes M]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SETTLED = (
    1000  # steps: by then it has saved, tested and drawn twice, and has the memory that it keeps for the next step
)
EVERY = 2.0  # seconds
_COUNTED = ("files", "Threads")
SMALL = {
    "synthetic_persons": 20, "synthetic_samples": 10, "growth_rate": 2, "size_0d_unit": 8, "fc_embedding_width": 16,
    "batch_size": 4, "estimator_num_steps": 20, "save_interval": 500, "keep_checkpoints": 3, "print_freq_test": 500,
    "save_freq_images": 500, "num_sample_persons": 2, "print_freq_train": 10, "num_data_loaders": 1,
    "mpiigaze_file": ".", "columbia_file": ".", "eyediap_file": ".",
}  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """What the training and its loader hold after so many steps. memory: MB, resident; what both share counts once."""

    step: int
    memory: float
    files: int
    threads: int


def settings(folder: Path, steps: int) -> dict[str, object]:
    """Of the run, beside the quickstart's."""
    places = {
        "gazecapture_file": "data/GazeCapture_64.h5", "gazecapture_split": "data/gazecapture_split.json",
        "gazenet_savepath": "train", "eval_gazenet_savepath": "eval", "save_path": "run",
    }  # fmt: skip
    return {**SMALL, **{key: str(folder / name) for key, name in places.items()}, "num_training_steps": steps}


def watch(process: subprocess.Popen[bytes], metrics: Path, steps: int, seconds: float) -> list[Moment]:
    """Moments until so many steps are done, or so many seconds are over; then it is told to stop."""
    moments: list[Moment] = []
    start = 0.0
    while process.poll() is None and last_step(metrics) < steps and (not start or time.monotonic() < start + seconds):
        time.sleep(EVERY)
        if (step := last_step(metrics)) and (moment := look(process.pid, step)):
            moments.append(moment)
            start = start or time.monotonic()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait()
    return moments


def look(process: int, step: int) -> Moment | None:
    """A process and its children, as Linux tells of them; None if it has ended."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        told = [_status(int(one)) for one in (process, *children)]
    except OSError:
        return None
    return Moment(step, sum(row["Pss"] for row in told) / 1024, *(sum(row[key] for row in told) for key in _COUNTED))


def _status(process: int) -> dict[str, int]:
    """Raises OSError where it has ended."""
    place = Path(f"/proc/{process}")
    lines = [*(place / "smaps_rollup").read_text().splitlines(), *(place / "status").read_text().splitlines()]
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Pss:", "Threads:"))}
    return found | {"files": len(os.listdir(place / "fd"))}


def last_step(metrics: Path) -> int:
    """The last step that was logged, 0 before."""
    try:
        last = metrics.read_bytes().splitlines()[-1]
        return int(json.loads(last)["step"])
    except (OSError, IndexError, ValueError):
        return 0


def slopes(moments: Sequence[Moment]) -> dict[str, tuple[float, float]]:
    """Of memory, files and threads: how much more each 1,000 steps, and the standard error of that.

    By least squares of what is settled. Neighbours are alike, so the true error is larger.
    """
    settled = [asdict(one) for one in moments if one.step >= SETTLED]
    steps = np.array([one["step"] for one in settled]) / 1000
    found = {}
    for name in ("memory", "files", "threads"):
        values = np.array([one[name] for one in settled], float)
        slope, start = np.polyfit(steps, values, 1)
        spread = np.square(values - start - slope * steps).sum() / max(len(steps) - 2, 1)
        found[name] = (float(slope), float(np.sqrt(spread / np.square(steps - steps.mean()).sum())))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the data, the run and long_run.json")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of training, after which it is stopped")
    given = parser.parse_args(argv)
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "long_run_settings.json"
    config.write_text(json.dumps(settings(folder, given.steps)))
    command = [sys.executable, str(ROOT / "train_st_ed.py"), str(ROOT / "config/quickstart.json"), str(config)]
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        moments = watch(process, folder / "run" / "metrics.jsonl", given.steps, 60 * given.minutes)
    if process.returncode not in (0, 130) or sum(one.step >= SETTLED for one in moments) < 10:
        sys.exit(f"The training came to nothing: see {folder / 'said.txt'}.")
    tell(moments, slopes(moments))
    content = {"moments": [asdict(one) for one in moments], "slopes": slopes(moments)}
    (folder / "long_run.json").write_text(json.dumps(content, indent=1))


def tell(moments: Sequence[Moment], found: Mapping[str, tuple[float, float]]) -> None:
    """A table."""
    settled = [one for one in moments if one.step >= SETTLED]
    first, last = asdict(settled[0]), asdict(settled[-1])
    print(f"{len(settled)} moments, steps {first['step']} to {last['step']}; memory in MB")
    print("| | first | last | each 1,000 steps | standard error |\n|---|---|---|---|---|")
    for name, (slope, error) in found.items():
        print(f"| {name} | {first[name]:.4g} | {last[name]:.4g} | {slope:+.3g} | {error:.2g} |")


if __name__ == "__main__":
    main()
