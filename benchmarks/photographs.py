"""How well what was learned on synthetic faces understands photographs: `python -m benchmarks.photographs`.

`--photos DIR` and `--clip FILE ...` find faces once and keep them, with what the reference sees, in `--faces FILE`.
Whatever comes after needs that file alone.
`--estimator PATH ...` compares trained estimators with the reference; the flag can be given several times, and the
estimators of one flag are runs of one kind: their mean is told, and their range. `--train` trains compact estimators
at the quickstart's budget on every kind of synthetic data set, and compares those.
`--reference-on FILE.h5` tells the reference's own error, on synthetic faces whose labels and irises are known.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from benchmarks import photo_faces
from benchmarks.agreement import AIMS, INTO_CAMERA_AIM, QUANTITIES, Agreement, agreements, as_json, mean_of, table
from benchmarks.known_irises import iris_table, known_irises
from benchmarks.photo_faces import PHOTOGRAPHS, Faces, read_faces, see_patches, write_faces
from benchmarks.photo_sheet import draw_sheet
from benchmarks.photograph_training import all_kinds, trained
from core.command import UserError, answer
from core.estimator.spec import stored_facts
from core.files import write_json
from core.runtime import tune_cpu
from dataset import GazeDataset, prepare_image
from models.load_pretrained_model import find_estimator_checkpoint, load_estimator
from preprocess.normalization import ST_ED
from utils import image_to_float, write_png

BATCH = 64
Estimates = Mapping[str, Sequence[ndarray]]  # kind -> labels (N, 4) that each of its runs sees


@torch.no_grad()
def estimate(path: Path, pixels: ndarray, backbone: str) -> ndarray:
    """(N, 4) gaze and head, radians, that a trained estimator sees in patches (N, S, S, 3) uint8 RGB.

    path: its folder or file.  backbone: of weights without a note of it, as published ones are.
    """
    file = find_estimator_checkpoint(path)
    facts = stored_facts(file) if file else {}
    network = load_estimator(path, facts.get("backbone", backbone), key="--estimator")
    size, rows = facts.get("image_size", 128), []
    for start in range(0, len(pixels), BATCH):
        images = np.stack([prepare_image(np.ascontiguousarray(p), size) for p in pixels[start : start + BATCH]])
        seen = network(image_to_float(torch.from_numpy(images)))
        rows.append(torch.cat([seen.gaze, seen.head], dim=1).numpy())
    return np.concatenate(rows)


def by_set(faces: Mapping[str, Faces]) -> dict[str, Faces]:
    """The photographs, and all clips as one set."""
    clips = {name: found for name, found in faces.items() if name != PHOTOGRAPHS}
    sets = {PHOTOGRAPHS: faces[PHOTOGRAPHS]} if PHOTOGRAPHS in faces else {}
    if clips:
        pixels, labels = (np.concatenate([getattr(c, part) for c in clips.values()]) for part in ("pixels", "labels"))
        sets["clips"] = Faces(pixels, labels, [f"{name}/{n}" for name, found in clips.items() for n in found.names])
    return sets


def within(faces: Faces, degrees: float) -> Faces:
    """Those whose heads, as the reference has them, are turned away from the camera by at most so much."""
    angle = np.degrees(np.arccos(np.cos(faces.labels[:, 2]) * np.cos(faces.labels[:, 3])))
    rows = np.flatnonzero(angle <= degrees)
    return Faces(faces.pixels[rows], faces.labels[rows], [faces.names[row] for row in rows])


def overview(results: Mapping[str, Mapping[str, Sequence[Mapping[str, Agreement]]]]) -> str:
    """Markdown: correlation (slope), a column a kind, means over its runs. results: set -> kind -> runs."""
    kinds = list(next(iter(results.values())))
    lines = [f"| r (slope) | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for name, found in results.items():
        for quantity in QUANTITIES:
            means = [mean_of([run[quantity] for run in found[kind]]) for kind in kinds]
            cells = [f"{mean.correlation:.2f} ({mean.slope:.2f})" for mean in means]
            lines.append(f"| {name}, {quantity} | {' | '.join(cells)} |")
    return "\n".join(lines)


def off_camera(labels: ndarray) -> float:
    """Mean angle, degrees, between gazes (N, 2 or more) and the direction into the camera."""
    return float(np.degrees(np.arccos(np.clip(np.cos(labels[:, 0]) * np.cos(labels[:, 1]), -1, 1))).mean())


def into_camera(faces: Faces, estimates: Estimates, names: Sequence[str]) -> str:
    """Markdown: where those are seen to look who look into the camera, whatever the reference says."""
    unknown = sorted(set(names) - set(faces.names))
    if unknown:
        raise UserError(
            f"--into-camera: no face {', '.join(unknown)}; there are {', '.join(faces.names)}.",
            remedy="Name some of these.",
        )
    rows = [faces.names.index(name) for name in names]
    lines = [f"| {len(rows)} faces that look into the camera | degrees off | mean pitch | mean yaw | "
             f"aim: at most {INTO_CAMERA_AIM:g} off |", "|---|---|---|---|---|"]  # fmt: skip
    for kind, runs in {"the reference": [faces.labels], **estimates}.items():
        off = float(np.mean([off_camera(run[rows]) for run in runs]))
        pitch, yaw = np.degrees(np.mean([run[rows, :2].mean(axis=0) for run in runs], axis=0))
        met = "" if kind == "the reference" else "yes" if off <= INTO_CAMERA_AIM else "no"
        lines.append(f"| {kind} | {off:.1f} | {pitch:.1f} | {yaw:.1f} | {met} |")
    return "\n".join(lines)


def compare(sets: Mapping[str, Faces], seen: Mapping[str, Estimates], names: Sequence[str]) -> dict[str, Any]:
    """Prints all tables; returns them as plain data. seen: set -> kind -> runs.  names: look into the camera."""
    results = {
        name: {kind: [agreements(faces.labels, run) for run in runs] for kind, runs in seen[name].items()}
        for name, faces in sets.items()
    }
    print("\n" + overview(results))
    for name, kinds in results.items():
        for kind, runs in kinds.items():
            count = f"{name}, {len(sets[name].names)} faces: {kind}"
            print("\n" + table(count, runs, AIMS if name == PHOTOGRAPHS else None))
    if names:
        print("\n" + into_camera(sets[PHOTOGRAPHS], seen[PHOTOGRAPHS], names))
    plain = {n: {k: [as_json(run) for run in runs] for k, runs in kinds.items()} for n, kinds in results.items()}
    return {"faces": {name: len(faces.names) for name, faces in sets.items()}, "agreement": plain}


def reference_on(path: Path, count: int) -> None:
    """Prints the reference's own error on synthetic patches, spread over the persons of a file."""
    data = GazeDataset(path, equalize=False)
    rows = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    patches = [np.ascontiguousarray(data[int(row)]["image"].permute(1, 2, 0).numpy()) for row in rows]
    seen = see_patches(patches, ST_ED.resized(data.image_size))
    posed = np.flatnonzero(np.isfinite(seen.labels).all(axis=1))
    found = f"a face found in {len(seen.rows)} of {len(rows)} patches of {data.image_size} px, a head in {len(posed)}"
    if len(posed) < len(rows) / 2:
        raise UserError(f"{path}: {found}, too few to tell.", remedy="Name a file of more.")
    print(f"{path.name}: {found}\n")
    print(
        table(
            "the reference against the labels", [agreements(data.labels()[rows[seen.rows[posed]]], seen.labels[posed])]
        )
    )
    try:
        known = known_irises(data, rows[seen.rows])
    except UserError as error:
        print(f"\n{error}")
    else:
        print("\n" + iris_table(seen.irises, known, data.image_size))


def found_faces(arguments: argparse.Namespace) -> dict[str, Faces]:
    """The faces of --faces, which is made where it is missing or of other pictures."""
    path, photos, clips = arguments.faces, arguments.photos, arguments.clip
    wanted = photo_faces.made_from(photos, clips) if photos or clips else None
    if wanted is not None and not (path.is_file() and read_faces(path)[1]["made_from"] == wanted):
        write_faces(path, photos, clips)
    faces, facts = read_faces(path)
    counts = ", ".join(f"{name} {len(found.names)}" for name, found in faces.items())
    print(f"Faces: {counts}; left out: {facts['left_out']}. Reference: {facts['reference']}.")
    return faces


def runs_of(arguments: argparse.Namespace) -> dict[str, list[Path]]:
    """Kind -> the estimators of it, trained here or before."""
    runs = {", ".join(path.name for path in paths): paths for paths in arguments.estimator}
    if arguments.train:
        kinds = [kind for kind in all_kinds() if not arguments.kinds or kind.folder in arguments.kinds]
        for kind in kinds:
            how = arguments.work_dir, arguments.steps, arguments.workers
            runs[str(kind)] = [trained(kind, seed, *how) for seed in arguments.seeds]
    return runs


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photographs, of which all faces are taken")
    parser.add_argument("--clip", type=Path, nargs="+", default=[], metavar="FILE", help="videos, frame by frame")
    parser.add_argument("--faces", type=Path, default=Path("runs/photographs/faces.h5"), metavar="FILE.h5")
    parser.add_argument("--into-camera", nargs="+", default=[], metavar="NAME", help="faces that look into the camera")
    parser.add_argument(
        "--head-within", type=float, default=90.0, metavar="DEGREES", help="of the camera; default: all"
    )
    parser.add_argument("--estimator", type=Path, nargs="+", action="append", default=[], metavar="PATH")
    parser.add_argument("--backbone", default="compact", help="of estimators without a note of it (%(default)s)")
    parser.add_argument("--train", action="store_true", help="estimators of all kinds of synthetic faces")
    parser.add_argument("--kinds", nargs="+", choices=[kind.folder for kind in all_kinds()], help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1350)
    parser.add_argument("--work-dir", type=Path, default=Path("runs/photographs"), help="of data and estimators")
    parser.add_argument("--workers", type=int, help="processes that make data; default: one a CPU")
    parser.add_argument("--sheet", type=Path, metavar="OUT.png", help="the photographs' faces with arrows")
    parser.add_argument("--out", type=Path, metavar="OUT.json")
    parser.add_argument("--reference-on", type=Path, metavar="FILE.h5", help="patches with known labels")
    parser.add_argument("--count", type=int, default=500, help="of patches for --reference-on (%(default)s)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """What the command line asks for. Raises UserError."""
    tune_cpu(torch.get_num_threads())
    if arguments.reference_on:
        reference_on(arguments.reference_on, arguments.count)
        return
    sets = {name: within(faces, arguments.head_within) for name, faces in by_set(found_faces(arguments)).items()}
    runs = runs_of(arguments)
    seen = {
        name: {
            kind: [estimate(path, faces.pixels, arguments.backbone) for path in paths] for kind, paths in runs.items()
        }
        for name, faces in sets.items()
    }
    if runs:
        result = compare(sets, seen, arguments.into_camera)
        if arguments.out:
            write_json(arguments.out, result)
    if arguments.sheet and PHOTOGRAPHS in sets:
        write_png(arguments.sheet, draw_sheet(sets[PHOTOGRAPHS], seen[PHOTOGRAPHS]))
        print(f"Wrote {arguments.sheet}.")


def main() -> int:
    return answer("photographs", lambda: run(parse_arguments()))


if __name__ == "__main__":
    sys.exit(main())
