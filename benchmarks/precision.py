"""Does bfloat16 train as float32 does? `python -m benchmarks.precision --seeds 0 1 2 --steps 600 --out runs/precision`.

For each seed the quickstart three times on the same data, estimators and batches: in float32, in float32 on another
number of threads, which rounds otherwise and shows what rounding alone does, and in bfloat16. Finished runs are not run
again. Prints each term's mean of the 20 steps before step 200 and the last as a part of float32's, and the curve.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from core.files import read_text

ROOT = Path(__file__).resolve().parent.parent
WAYS = {
    "float32": ("float32", 1),
    "float32, two threads": ("float32", 2),
    "bfloat16": ("bfloat16", 1),
}
LAST = 20  # steps that are averaged
CURVE = ("gc/test/gaze_redirection", "gc/test/head_redirection", "gc/test/l1")


def trained(folder: Path, way: str, seed: int, steps: int, flags: Sequence[str]) -> Path:
    """The metrics of a run, which is made if it has not been."""
    precision, threads = WAYS[way]
    run = folder / f"runs/{precision}-{threads}"
    if (run / f"checkpoints/{steps}.pt").is_file():
        return run / "metrics.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "train_st_ed.py"), str(ROOT / "config/quickstart.json")]
    command += ["--precision", precision, "--num-training-steps", str(steps), "--save-path", str(run.resolve())]
    command += ["--seed", str(seed), "--print-freq-train", "1", "--device", "cpu"]
    command += ["--no-compute-full-result", "--save-freq-images", str(steps), "--no-use-tensorboard", *flags]
    with (folder / "output.txt").open("ab") as output:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output)
    if done.returncode:
        raise RuntimeError(f"seed {seed}, {way} failed; see {folder / 'output.txt'}")
    return run / "metrics.jsonl"


def read(path: Path) -> dict[int, dict[str, float]]:
    """Step -> what was logged of it."""
    rows: dict[int, dict[str, float]] = {}
    for line in read_text(path).splitlines():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    return rows


def terms(rows: dict[int, dict[str, float]], until: int) -> dict[str, float]:
    """Term -> its mean over the last steps before `until`."""
    steps = range(until - LAST + 1, until + 1)
    names = [name for name in rows[until] if name.startswith("train/") and not name.endswith(("_rate", "per_s"))]
    return {name: statistics.mean(rows[step][name] for step in steps) for name in names}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("flags", nargs="*", help="after --: further flags of train_st_ed.py")
    given = parser.parse_args(argv)
    flags = ["--print-freq-test", "200", *given.flags]
    runs = {
        way: [read(trained(given.out / f"seed_{s}", way, s, given.steps, flags)) for s in given.seeds] for way in WAYS
    }
    for until in sorted({min(200, given.steps), given.steps}):
        print(f"\nMean of {LAST} steps before step {until}, as a part of float32's, seed by seed:\n")
        print("| term | float32, seed by seed | two threads | bfloat16 |\n|---|---|---|---|")
        found = {way: [terms(rows, until) for rows in each] for way, each in runs.items()}
        for name in found["float32"][0]:
            plain = [one[name] for one in found["float32"]]
            cells = [", ".join(f"{value:.3g}" for value in plain)]
            for way in [*WAYS][1:]:
                ratios = (
                    one[name] / base if base else float("nan") for one, base in zip(found[way], plain, strict=True)
                )
                cells.append(", ".join(f"{ratio:.3f}" for ratio in ratios))
            print(f"| {name.removeprefix('train/')} | {' | '.join(cells)} |")
    print("\n| | step | " + " | ".join(WAYS) + " |\n|---|---|" + "---|" * len(WAYS))
    for name in CURVE:
        for step in (s for s in runs["float32"][0] if name in runs["float32"][0][s]):
            cells = [", ".join(f"{rows[step][name]:.3g}" for rows in each) for each in runs.values()]
            print(f"| {name.removeprefix('gc/test/')} | {step} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
