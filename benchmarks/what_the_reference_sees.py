"""How well those who measure read a perfect edit: `python -m benchmarks.what_the_reference_sees`.

The scenes of `benchmarks.round_trip`, once as they are and once rendered anew with the asked-for gaze or head, by the
edits of `benchmarks.redirected_photographs`. No redirector takes part: what the reference of photographs says of these
pictures is the best that it can say of anybody's. With --estimator one that evaluations look through is asked, too:
what moves besides, where one factor moves as far as in an evaluation.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from benchmarks.redirected_photographs import EDITS, Change, summary
from benchmarks.round_trip import make_scene
from core.evaluator import PERTURBATION
from core.redirection.equalizing import Equalized
from core.redirection.faces import SIDE, PhotoFace
from core.redirection.measure import measure
from models.gazeheadnet import Estimator
from models.geometry import angular_error_deg
from models.load_pretrained_model import load_estimator
from preprocess.normalization import warp_image
from preprocess.synthetic.rendered.person import Person
from tests import photos


def changes(persons: Sequence[Person], seed: int = 0) -> list[Change]:
    """All edits of EDITS, of the persons in whose scenes it finds a face with open eyes."""
    found = []
    for factor, edits in EDITS.items():
        for step in edits:
            random, moved = np.random.default_rng(seed), []
            for person in persons:
                scene = make_scene(person, random, factor, step)
                before, after = measure(scene.before, scene.face), measure(scene.after, scene.face)
                if before and after and before.gaze and after.gaze:
                    moved.append(np.subtract([after.gaze, after.head], [before.gaze, before.head]))
            gaze, head = np.moveaxis(np.array(moved).reshape(-1, 2, 2), 1, 0)
            found.append(Change(factor, step, {"gaze": gaze, "head": head}))
    return found


def moved_besides(estimator: Estimator, persons: Sequence[Person], seed: int = 0) -> dict[str, float]:
    """Mean degrees by which an estimator sees gaze or head move where the other alone does, as in evaluations."""
    found, most = {}, np.degrees(PERTURBATION)
    for factor, other in (("head", "gaze"), ("gaze", "head")):
        random, moved = np.random.default_rng(seed), []
        for person in persons:
            pitch, yaw = random.uniform(-most, most, 2)
            scene = make_scene(person, random, factor, (pitch, yaw))
            seen = [getattr(estimator(_patch(image, scene.face)), other) for image in (scene.before, scene.after)]
            moved.append(angular_error_deg(*seen).item())
        found[f"{factor}_to_{other}"] = float(np.mean(moved))
    return found


def _patch(image: ndarray, face: PhotoFace) -> Tensor:
    """(1, 3, S, S): of the face, as data sets have it."""
    return Equalized(warp_image(image, face.to_patch, SIDE), SIDE).tensor(torch.device("cpu"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=40)
    parser.add_argument("--estimator", type=Path, metavar="DIR", help="that measures: eval_gazenet_savepath")
    parser.add_argument("--backbone", default="compact-residual", help="of it (%(default)s)")
    arguments = parser.parse_args(argv)
    persons = [photos.make_person(1000 + seed) for seed in range(arguments.persons)]
    print(f"{len(persons)} rendered persons, changes of asked-for against measured angles:\n")
    print(summary(changes(persons), len(persons)))
    if arguments.estimator:
        estimator = load_estimator(arguments.estimator, arguments.backbone, key="--estimator").eval()
        with torch.no_grad():
            besides = moved_besides(estimator, persons)
        print("\nThe estimator: " + ", ".join(f"{name} {value:.2f} degrees" for name, value in besides.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
