"""Speed of the embedded data set on one core: `python -m benchmarks.synthetic [--look rendered] [--image-size 128]`."""

from __future__ import annotations

import argparse
import time
from typing import Any

import cv2
import numpy as np

from preprocess.synthetic.domains import DOMAINS, VARIATIONS
from preprocess.synthetic.look import Look
from preprocess.synthetic.samples import LOOKS, Style, render_person


def build_seconds(look: Look[Any, Any], persons: int) -> tuple[list[Any], float]:
    """Builds persons; CPU-seconds each."""
    look.draw_person(np.random.default_rng(0))  # reads the material, once a process
    start = time.process_time()
    built = [look.draw_person(np.random.default_rng([0, 0, i, 0])) for i in range(persons)]
    return built, (time.process_time() - start) / persons


def images_per_second(look: Look[Any, Any], persons: list[Any], images: int, size: int, variation: str) -> float:
    """Pictures a CPU-second, poses and scenes drawn as for the data set."""
    start = time.process_time()
    for i in range(images):
        scene = look.draw_scene(np.random.default_rng([0, 0, 0, i]), DOMAINS[0], VARIATIONS[variation])
        look.patch(persons[i % len(persons)], scene, size)
    return images / (time.process_time() - start)


def whole_per_second(style: Style, persons: int, samples: int, size: int) -> float:
    """Pictures a CPU-second as the data set has them: persons built, scenes in groups, labels."""
    start = time.process_time()
    for i in range(persons):
        render_person(0, 0, i, samples, size, style)
    return persons * samples / (time.process_time() - start)


def main() -> None:
    """Prints all figures for all variations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--look", default="drawn", choices=LOOKS)
    parser.add_argument("--image-size", type=int, default=128, choices=(64, 128, 256))
    parser.add_argument("--persons", type=int, default=8)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--samples", type=int, default=25, help="of a person, where persons are included")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    look, size = LOOKS[arguments.look](), arguments.image_size
    persons, seconds = build_seconds(look, arguments.persons)
    print(f"{arguments.look}, person build: {seconds:.3f} CPU-s")
    for variation, amount in VARIATIONS.items():
        style = Style(arguments.look, amount, look.group_size, look.framing)
        speed = images_per_second(look, persons, arguments.images, size, variation)
        whole = whole_per_second(style, arguments.persons, arguments.samples, size)
        print(
            f"{size} px, {variation}: {speed:.0f} images per CPU-second; persons included, "
            f"{arguments.samples} images each: {whole:.0f}"
        )


if __name__ == "__main__":
    main()
