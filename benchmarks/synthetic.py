"""Speed of the embedded data set on one core: `python -m benchmarks.synthetic [--image-size 128]`."""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from preprocess.synthetic.domains import DOMAINS, VARIATIONS
from preprocess.synthetic.drawn.head import Person, build_person
from preprocess.synthetic.drawn.look import draw_scene
from preprocess.synthetic.drawn.person import draw_identity
from preprocess.synthetic.drawn.render import render


def build_seconds(persons: int) -> tuple[list[Person], float]:
    """Builds persons; CPU-seconds each."""
    start = time.process_time()
    built = [build_person(draw_identity(np.random.default_rng([0, 0, i, 0]))) for i in range(persons)]
    return built, (time.process_time() - start) / persons


def images_per_second(persons: list[Person], images: int, size: int, variation: str) -> float:
    """Pictures a CPU-second, poses and scenes drawn as for the data set."""
    start = time.process_time()
    for i in range(images):
        scene = draw_scene(np.random.default_rng([0, 0, 0, i]), DOMAINS[0], VARIATIONS[variation])
        render(persons[i % len(persons)], scene, size)
    return images / (time.process_time() - start)


def main() -> None:
    """Prints both figures for both variations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=128, choices=(64, 128, 256))
    parser.add_argument("--persons", type=int, default=8)
    parser.add_argument("--images", type=int, default=400)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    persons, seconds = build_seconds(arguments.persons)
    print(f"person build: {seconds:.3f} CPU-s")
    for variation in VARIATIONS:
        speed = images_per_second(persons, arguments.images, arguments.image_size, variation)
        print(f"{arguments.image_size} px, {variation}: {speed:.0f} images per CPU-second")


if __name__ == "__main__":
    main()
