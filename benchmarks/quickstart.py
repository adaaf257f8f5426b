"""The quickstart over several seeds, each with data, estimators and training of its own.

`python -m benchmarks.quickstart --seeds 0 1 2 --out runs/benchmark` prints a table of the final figures, one of the
curve, and the time and memory of each run, and draws the curve. Finished runs are not run again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from core.figures import new_figure
from core.files import read_json, read_text, write_json

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ("gaze_redirection", "head_redirection", "l1", "l1_person_mean", "identity_kept", "identity_real_target")


def run(folder: Path, seed: int, flags: list[str]) -> None:
    """One quickstart in its own folder; wall time and peak memory go into timing.json."""
    if (folder / "timing.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    command = [sys.executable, ROOT / "train_st_ed.py", ROOT / "config/quickstart.json", "--seed", str(seed), *flags]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"seed {seed} failed; see {folder / 'output.txt'}")
    facts = {"wall_s": time.perf_counter() - start, "cpu_s": usage.ru_utime + usage.ru_stime}
    write_json(folder / "timing.json", facts | {"peak_memory_gb": usage.ru_maxrss / 2**20})


def final_figures(folder: Path) -> dict[str, float]:
    """Means on gc/test, and the errors relative to the angle between source and target labels."""
    report = read_json(next(folder.glob("runs/quickstart/report/*/report.json")))
    means = {name: report["datasets"]["gc/test"][name]["mean"] for name in FIGURES}
    ratios = report["ratios"]["gc/test"]
    return means | {f"{name}_ratio": value for name, value in ratios.items()} | timing(folder)


def timing(folder: Path) -> dict[str, float]:
    return read_json(folder / "timing.json")


def curve(folder: Path) -> dict[int, dict[str, float]]:
    """Step -> ratios of the two errors to the pair angle, and L1, on the periodic test of gc/test."""
    points = {}
    for line in read_text(folder / "runs/quickstart/metrics.jsonl").splitlines():
        row = json.loads(line)
        if "gc/test/l1" in row:
            points[row["step"]] = {
                "gaze": row["gc/test/gaze_redirection"] / row["gc/test/gaze_pair_angle"],
                "head": row["gc/test/head_redirection"] / row["gc/test/head_pair_angle"],
                "l1": row["gc/test/l1"],
            }
    return points


def table(rows: dict[str, list[float]], first: str, titles: list[str]) -> str:
    """Markdown: a row a figure, a column a run, then mean and standard error."""
    lines = [f"| {first} | {' | '.join(titles)} | mean | s.e. |", "|---" * (len(titles) + 3) + "|"]
    for name, values in rows.items():
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        cells = [f"{value:.3f}" for value in (*values, statistics.mean(values), error)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(curves: list[dict[int, dict[str, float]]], path: Path) -> None:
    """One panel a figure, one line a seed."""
    figure = new_figure((12, 3.5))
    for name, panel in zip(("gaze", "head", "l1"), figure.subplots(1, 3), strict=True):
        for points in curves:
            panel.plot(list(points), [point[name] for point in points.values()], marker="o")
        panel.set(xlabel="step", title=name if name == "l1" else f"{name} error / pair angle")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    arguments, flags = parser.parse_known_args()
    folders = [arguments.out / f"seed_{seed}" for seed in arguments.seeds]
    for seed, folder in zip(arguments.seeds, folders, strict=True):
        run(folder, seed, flags)
    titles = [f"seed {seed}" for seed in arguments.seeds]
    finals = [final_figures(folder) for folder in folders]
    print(table({name: [final[name] for final in finals] for name in finals[0]}, "gc/test", titles))
    curves = [curve(folder) for folder in folders]
    rows = {f"{n}, step {s}": [c[s][n] for c in curves] for n in ("gaze", "head", "l1") for s in curves[0]}
    print("\n" + table(rows, "during training", titles))
    draw(curves, arguments.out / "curve.png")


if __name__ == "__main__":
    main()
