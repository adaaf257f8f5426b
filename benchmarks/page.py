"""From a moved pad to a new picture: `python -m benchmarks.page PHOTO... [--checkpoint RUN]`.

What the page does between the two, on so many threads: the networks, the way back into the shown picture, its JPEG. The
redirectors are those of config/ST-ED.json and config/ST-ED-flow.json (128 px), with random weights, which take as long
as trained ones, and the one that is named. Median of ROUNDS moves after two that do not count.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2

from benchmarks.untrained import untrained
from core.command import answer
from core.page.sitting import Sitting, open_for_page, sit
from core.redirection.edit import Edit
from core.redirection.load import Loaded, load
from core.runtime import tune_cpu

CONFIGS = ("ST-ED", "ST-ED-flow")
EDITS = {"gaze": lambda yaw: Edit(gaze=(0, yaw)), "gaze and head": lambda yaw: Edit(gaze=(0, yaw), head=(0, yaw))}
ROUNDS = 11
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92]  # as core.page.pictures, which needs gradio


def moves(sitting: Sitting, edit: Callable[[int], Edit]) -> float:
    """Median seconds of a move."""
    taken = []
    for yaw in range(-2, ROUNDS):
        start = time.perf_counter()
        cv2.imencode(".jpg", sitting.shown(edit(yaw)).pixels[..., ::-1], QUALITY)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


def measure(photo: Path, redirectors: Mapping[str, Loaded]) -> Iterator[str]:
    """Markdown rows: seconds of finding and of seeing the faces, of each kind of edit, and of the whole photograph."""
    start = time.perf_counter()
    opened = open_for_page(photo)
    found = time.perf_counter() - start
    height, width = opened.photo.pixels.shape[:2]
    for name, loaded in redirectors.items():
        start = time.perf_counter()
        sitting = sit(opened, loaded)
        seen = time.perf_counter() - start
        each = [moves(sitting, edit) for edit in EDITS.values()]
        start = time.perf_counter()
        sitting.whole(Edit(head=(0, 15)))
        cells = [f"{number:.2f}" for number in (found, seen, *each, time.perf_counter() - start)]
        yield f"| {photo.stem}, {width} x {height} | {name} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    tune_cpu(arguments.threads)
    cv2.setNumThreads(arguments.threads)

    def run() -> None:
        redirectors = {name: untrained(name) for name in CONFIGS}
        if arguments.checkpoint is not None:
            redirectors[arguments.checkpoint.name] = load(arguments.checkpoint, device="cpu")
        print(
            "| photograph | redirector | found, s | seen, s | gaze, s | gaze and head, s | whole, s |\n"
            + "|---" * 7
            + "|"
        )
        for photo in arguments.photos:
            for row in measure(photo, redirectors):
                print(row, flush=True)

    return answer("page", run)


if __name__ == "__main__":
    sys.exit(main())
