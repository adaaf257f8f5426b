"""Heads' directions from detected landmarks, on drawn faces whose directions are known.

`python -m benchmarks.landmarks`. Drawn persons have proportions of their
own, as people have, and the pose is that of one generic face: an offset by person tells what that costs. A slope below
1 tells that the detector makes turns smaller.
"""

import argparse

import numpy as np
from numpy import ndarray

from preprocess.face_model import RIGID, head_pose
from preprocess.landmarks import landmark_source
from preprocess.normalization import ST_ED, normalized_head, normalizing_rotation
from preprocess.synthetic.drawn.head import build_person
from preprocess.synthetic.drawn.person import Identity, draw_identity, without_extras
from preprocess.synthetic.drawn.render import render
from preprocess.synthetic.scene import Scene, pitchyaw_to_direction

SIZE = 256
TURNS = [(p, y) for p in (-20, -10, 0, 10, 20) for y in (-20, -10, 0, 10, 20) if abs(p) + abs(y) <= 30]


def draw(person: int) -> Identity:
    """Somebody with nothing before the face."""
    return without_extras(draw_identity(np.random.default_rng(person)))


def measure(persons: int, also: list[int]) -> tuple[ndarray, ndarray]:
    """(persons, turns, 2) true and found pitch and yaw, degrees; NaN where no face is found."""
    source, camera = landmark_source(), ST_ED.resized(SIZE).camera_matrix
    found = np.full((persons, len(TURNS), 2), np.nan)
    for row in range(persons):
        person = build_person(draw(row))
        for column, turn in enumerate(TURNS):
            head = tuple(np.deg2rad(turn))
            landmarks = source(render(person, Scene(gaze=head, head=head), SIZE), "")
            if landmarks is not None:
                pose = head_pose(landmarks, camera, use=(*RIGID, *also))
                label = normalized_head(normalizing_rotation(pose.centre, pose.rotation), pose.rotation)
                found[row, column] = np.degrees(label)
    return np.broadcast_to(np.array(TURNS, float), found.shape), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=8)
    parser.add_argument(
        "--also", type=int, nargs="*", default=[], help="landmarks beside the published 13, e.g. 48 54 8"
    )
    arguments = parser.parse_args()
    true, found = measure(arguments.persons, arguments.also)
    missed = int(np.isnan(found[..., 0]).sum())
    vectors = (np.apply_along_axis(lambda a: pitchyaw_to_direction(*np.deg2rad(a)), 2, a) for a in (true, found))
    apart = np.degrees(np.arccos(np.clip(np.multiply(*vectors).sum(axis=-1), -1, 1)))
    print(f"{true.shape[0]} persons x {len(TURNS)} turns, {missed} faces not found; degrees")
    for name, chosen in (("all", true[0]), ("up to 10 each way", true[0][np.abs(true[0]).max(axis=1) <= 10])):
        columns = [TURNS.index(tuple(turn)) for turn in chosen.tolist()]
        errors = apart[:, columns]
        print(f"head, {name}: median {np.nanmedian(errors):.1f}, at most {np.nanmax(errors):.1f}")
    offsets, seen = np.nanmean(found - true, axis=1), ~np.isnan(found[..., 0])
    for axis, name in enumerate(("pitch", "yaw")):
        slope = np.polyfit(true[seen][:, axis], found[seen][:, axis], 1)[0]
        print(f"{name}: offset by person {np.round(offsets[:, axis], 1).tolist()}, slope {slope:.2f}")
    noses = [draw(person).nose_length for person in range(len(true))]
    follows = np.corrcoef(noses, offsets[:, 0])[0, 1]
    print(f"correlation of a person's offset in pitch with the length of the nose: {follows:.2f}")


if __name__ == "__main__":
    main()
