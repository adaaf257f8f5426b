"""The README's pictures from a finished run: `python -m benchmarks.pictures --run runs/quickstart`.

Writes redirected.png (sources, targets, redirected) and walk.webp (gaze and head turned, sideways and then up and down)
from what the run left in `samples/`. The README's have twice the frames of a plain run: once it was finished,
`python train_st_ed.py config/quickstart.json --walk-frames 48` wrote them anew.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

SIDE, GAP, MARGIN = 112, 4, 106  # pixels of a face, between faces, and for the words on the left
FRAME_MS, QUALITY = 60, 80  # of the animation
ROWS = (("source", ""), ("target", ""), ("redirected", "target's gaze, head"))


def read_face(path: Path) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8 RGB. Raises FileNotFoundError if it cannot be read."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise FileNotFoundError(f"{path}: no such picture. Name the folder of a finished run.")
    return _resized(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def read_walk(path: Path) -> list[np.ndarray]:
    """Frames (SIDE, SIDE, 3) uint8 RGB of a walk's video."""
    with av.open(str(path)) as video:
        return [_resized(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]


def sheet(rows: Sequence[Sequence[np.ndarray]], words: Sequence[tuple[str, str]]) -> np.ndarray:
    """Rows of faces with one or two lines of words before each, on white; (H, W, 3) uint8."""
    step = SIDE + GAP
    width, height = sheet_size(len(rows), len(rows[0]))
    page = np.full((height, width, 3), 255, np.uint8)
    for i, (faces, lines) in enumerate(zip(rows, words, strict=True)):
        for j, line in enumerate(lines):
            at = (2, i * step + SIDE // 2 + 16 * j)
            size = 0.45 if j == 0 else 0.33
            cv2.putText(page, line, at, cv2.FONT_HERSHEY_SIMPLEX, size, (60, 60, 60), 1, cv2.LINE_AA)
        for j, face in enumerate(faces):
            left = MARGIN + j * step
            page[i * step : i * step + SIDE, left : left + SIDE] = face
    return page


def sheet_size(rows: int, columns: int) -> tuple[int, int]:
    """Width and height of a sheet in pixels."""
    return MARGIN + columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP


def redirected(persons: Sequence[Path]) -> np.ndarray:
    """Source, target and redirected image of each person, one below the other."""
    return sheet([[read_face(person / f"{name}.png") for person in persons] for name, _ in ROWS], ROWS)


def walk(persons: Sequence[Path]) -> Iterator[np.ndarray]:
    """Frames of an animation: gaze moves in the first row, the head in the second, all else is kept."""
    walks = [[read_walk(person / f"walk_{factor}.mp4") for person in persons] for factor in ("gaze", "head")]
    words = (("gaze turned", "all else kept"), ("head turned", "all else kept"))
    for frame in range(len(walks[0][0])):
        yield sheet([[faces[frame] for faces in row] for row in walks], words)


def write_animation(path: Path, frames: Sequence[np.ndarray]) -> None:
    """An animated WebP that goes on for ever; a GIF would be larger and have few colours."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=FRAME_MS, loop=0, quality=QUALITY, method=6)


def _resized(picture: np.ndarray) -> np.ndarray:
    shrinks = picture.shape[0] > SIDE
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="folder of a finished run")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder for the two pictures")
    parser.add_argument("--persons", type=int, default=7, help="how many (%(default)s)")
    arguments = parser.parse_args(argv)
    persons = sorted(path.parent for path in (arguments.run / "samples").glob("*/source.png"))[: arguments.persons]
    if not persons:
        parser.error(f"{arguments.run}/samples has no persons: let the run come to its end.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(redirected(persons)).save(arguments.out / "redirected.png", optimize=True)
    write_animation(arguments.out / "walk.webp", list(walk(persons)))


if __name__ == "__main__":
    main()
