"""How well the reference of photographs reads a perfect edit: `python -m benchmarks.what_the_reference_sees`.

The scenes of `benchmarks.round_trip`, once as they are and once rendered anew with the asked-for gaze or head, by the
edits of `benchmarks.redirected_photographs`. No redirector takes part: what the reference says of these pictures is
the best that it can say of anybody's.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.redirected_photographs import EDITS, Change, summary
from benchmarks.round_trip import make_scene
from core.redirection.measure import measure
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=20)
    arguments = parser.parse_args(argv)
    persons = [photos.make_person(1000 + seed) for seed in range(arguments.persons)]
    print(f"{len(persons)} rendered persons, changes of asked-for against measured angles:\n")
    print(summary(changes(persons), len(persons)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
