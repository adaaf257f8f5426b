"""ST-ED, with pixels carried, and both ReDirTrans variants side by side: the same embedded persons, steps and seeds.

`python -m benchmarks.redirectors --seeds 0 1 2 --steps 2000 --out runs/redirectors` prints a Markdown table. The data,
the estimators and the pair of encoder and generator are made once, with the first seed; the seeds are the redirectors'
own. Finished runs are not run again. Flags that are not known here are passed on to every run; take another --out then.

The GAN sees aligned faces, the others normalised and equalised patches of the same scenes: compare L1 and identity with
what the real target and the mean image give in the same column, and errors with those of the real target.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from core.files import read_json, read_text

ROOT = Path(__file__).resolve().parent.parent
KINDS = {
    "ST-ED": "quickstart.json",
    "ST-ED with flow": "flow-quickstart.json",
    "ReDirTrans in ST-ED": "ReDirTrans-quickstart.json",
    "ReDirTrans-GAN": "ReDirTrans-GAN-quickstart.json",
}
# Drawn faces have no groups, and need none: their light hardly varies.
DRAWN = {
    "ST-ED with flow": ["--synthetic-look", "drawn", "--synthetic-still-heads", "0", "--pairs-within-group", "0",
                        "--no-eval-pairs-within-group"],
}  # fmt: skip
FIGURES = {
    "gaze_redirection": "gaze redirection error, deg", "head_redirection": "head redirection error, deg",
    "gaze_real_target": "gaze error on the real target, deg", "head_real_target": "head error on the real target, deg",
    "head_to_gaze": "gaze moved by head, deg", "gaze_to_head": "head moved by gaze, deg",
    "l1": "L1 to the target", "l1_person_mean": "L1 of the person's mean image",
    "identity_kept": "identity kept", "identity_real_target": "identity of real targets",
}  # fmt: skip


def run(out: Path, kind: str, seed: int, steps: int, flags: list[str]) -> Path:
    """One training with its report; returns the run folder."""
    gan = read_json(ROOT / "config" / KINDS["ReDirTrans-GAN"])
    shared = ["gazecapture_file", "gazecapture_split", "mpiigaze_file", "columbia_file", "eyediap_file"]
    shared += ["gazenet_savepath", "eval_gazenet_savepath"]
    folder = out / f"{KINDS[kind].removesuffix('.json')}_{steps}" / f"seed_{seed}"
    if (folder / "report" / str(steps) / "report.json").is_file():
        return folder
    command = [sys.executable, ROOT / "train_st_ed.py", ROOT / "config" / KINDS[kind]]
    for key in shared:
        command += [f"--{key.replace('_', '-')}", gan[key]]
    command += ["--seed", str(seed), "--num-training-steps", str(steps), "--save-path", folder.relative_to(out)]
    command += ["--print-freq-test", str(steps), "--save-interval", str(steps), "--walk-frames", "0"]
    command += [*DRAWN.get(kind, ()), *flags]
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{folder.parent.name}_{seed}.txt").open("wb") as output:
        done = subprocess.run(command, cwd=out, stdout=output, stderr=output)
    if done.returncode:
        raise RuntimeError(f"{kind}, seed {seed} failed; see {output.name}")
    return folder


def figures(folder: Path, steps: int) -> dict[str, float]:
    """Means on gc/test, ratios to the angle between source and target labels, and the cost of a step."""
    report = read_json(folder / "report" / str(steps) / "report.json")
    means = {title: report["datasets"]["gc/test"][name]["mean"] for name, title in FIGURES.items()}
    for name in ("gaze", "head"):
        for kind in ("redirection", "label_blind"):
            means[f"{name} {kind} / pair angle"] = report["ratios"]["gc/test"][f"{name}_{kind}"]
    config = read_json(folder / "config.json")
    lines = [json.loads(line) for line in read_text(folder / "metrics.jsonl").splitlines()]
    speeds = [line["train/images_per_s"] for line in lines if "train/images_per_s" in line]
    means["ms a step"] = 2000 * config["batch_size"] / statistics.median(speeds)
    means["batch size"] = config["batch_size"]
    return means | parameters(folder, steps, config)


def parameters(folder: Path, steps: int, config: dict[str, object]) -> dict[str, float]:
    """Millions of numbers, those that are trained and all that redirecting needs."""
    content = torch.load(folder / "checkpoints" / f"{steps}.pt", "cpu", weights_only=True)
    parts = ("encoder", "decoder", "projector", "deprojector")
    trained = sum(value.numel() for part in parts for value in content.get(part, {}).values())
    frozen = 0
    if content.get("frozen"):
        pair = torch.load(folder.parents[1] / config["e4e_weights"], "cpu", weights_only=True)
        frozen = sum(value.numel() for value in pair["state_dict"].values())
    return {"parameters trained, millions": trained / 1e6, "parameters in all, millions": (trained + frozen) / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("runs/redirectors"))
    arguments, flags = parser.parse_known_args()
    # The GAN first: its data have the patches of the others in them.
    order = ["ReDirTrans-GAN", "ST-ED", "ST-ED with flow", "ReDirTrans in ST-ED"]
    results = {
        kind: [figures(run(arguments.out, kind, s, arguments.steps, flags), arguments.steps) for s in arguments.seeds]
        for kind in order
    }
    print(f"gc/test, {arguments.steps} steps, seeds {', '.join(map(str, arguments.seeds))}: mean and standard error\n")
    print(f"| | {' | '.join(KINDS)} |\n|{'---|' * (len(KINDS) + 1)}")
    for name in next(iter(results.values()))[0]:
        cells = [_cell([figures[name] for figures in results[kind]]) for kind in KINDS]
        print(f"| {name} | {' | '.join(cells)} |")


def _cell(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3g}"
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.2g}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
