"""Speed and steadiness of redirected videos: `python -m benchmarks.redirected_video RUN --photo FILE --clip FILE`.

Of each clip and edit it tells frames a second and the CPU time of every step, and how much the face trembles before and
after: the landmark network follows it through the clip and through its result. Of `--photo` two clips of ten seconds
with sound are made, see `benchmarks.moving_photograph`.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from numpy import ndarray

from benchmarks.moving_photograph import away_and_back, over_the_face, write_clip
from benchmarks.photo_faces import read_frames
from core.command import UserError, answer
from core.redirection import following, photo, video, video_files
from core.redirection.edit import Edit
from core.redirection.load import Loaded, load
from core.redirection.video import RedirectedVideo, redirect_video
from core.runtime import tune_cpu
from preprocess.faces import mesh
from preprocess.faces.search import find_faces, find_largest

EDITS = {"gaze 0 15": Edit(gaze=(0, 15)), "head 0 10, relative": Edit(head=(0, 10), relative=True)}
STEPS = {
    "decode, RGB": (video_files.Clip, "_frame"),
    "search": (following, "_search"),
    "follow": (mesh, "follow"),
    "pose": (following.Followed, "placed"),
    "redirect and paste": (video, "redirect_face"),
    "of which paste": (photo.paste, "paste"),
    "write": (video_files.Writer, "write"),
}  # what is timed; the rest is what FFmpeg's own threads decode and encode
# Of FaceMesh: middles of the irises; eyelids; outline of the face and ridge of the nose, which no edit of a gaze moves.
IRISES = (468, 473)
LIDS = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
# fmt: off
STILL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 168, 6, 197, 195, 5, 4, 1,
)
# fmt: on


@contextmanager
def timed(steps: dict[str, tuple[Any, str]]) -> Iterator[Counter[str]]:
    """Seconds of CPU time in these functions' own threads."""
    spent: Counter[str] = Counter()

    def measured(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*given, **options)
            finally:
                spent[name] += time.thread_time() - start

        return call

    with ExitStack() as stack:
        for name, (where, function) in steps.items():
            replacement = measured(name, getattr(where, function))
            stack.enter_context(mock.patch.object(where, function, replacement))
        yield spent


def speed(loaded: Loaded, clip: Path, edit: Edit, out: Path) -> tuple[RedirectedVideo, str]:
    """What was done, and Markdown's cells: frames a second, CPU milliseconds a frame, in all and step by step."""
    with timed(STEPS) as spent:
        start, cpu = time.perf_counter(), time.process_time()
        done = redirect_video(loaded, clip, edit, out, progress=False)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    each = [1000 * part / done.frames for part in (cpu, *(spent[name] for name in STEPS))]
    return done, f"{done.frames / seconds:.1f} | " + " | ".join(f"{part:.1f}" for part in each)


def seen(clip: Path) -> ndarray:
    """(n, 478, 2): landmarks of the largest face of every frame, followed; NaN where there is none."""
    found, face = [], None
    for image in read_frames(clip):
        face = (mesh.follow(image, face) if face else None) or find_largest(image)
        found.append(face.landmarks if face else np.full((478, 2), np.nan))
    return np.array(found)


def in_the_face(landmarks: ndarray) -> ndarray:
    """Landmarks (n, 478, 2) with the movement of the face taken out: each frame's are shifted, turned and scaled so
    that outline and nose lie where they do in the mean."""
    points = landmarks[..., 0] + 1j * landmarks[..., 1]
    mean = np.nanmean(points, axis=0)
    still, middle = list(STILL), mean[list(STILL)].mean()
    moved = points - points[:, still].mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # frames without a face
        turn = (np.conj(moved[:, still]) * (mean[still] - middle)).sum(axis=1)
        turn /= (np.abs(moved[:, still]) ** 2).sum(axis=1)
    there = moved * turn[:, None] + middle
    return np.stack([there.real, there.imag], axis=-1)


def trembling(before: ndarray, after: ndarray) -> dict[str, tuple[float, float]]:
    """How far landmarks (n, 478, 2) stray from a steady movement, in the input and in the output.

    The median length of the second difference over time, in percent of the distance of the eyes' outer corners: of eyes
    within the face, and of the face within the picture. Frames in which either has no face are left out.
    """
    fine = np.isfinite(before).all(axis=(1, 2)) & np.isfinite(after).all(axis=(1, 2))
    unit = np.median(np.linalg.norm(before[fine, 263] - before[fine, 33], axis=1)) / 100
    before, after = (np.where(fine[:, None, None], points, np.nan) / unit for points in (before, after))
    shown = {"irises": (IRISES, in_the_face), "lids": (LIDS, in_the_face), "face": (STILL, np.asarray)}
    return {
        name: (_second(frame(before)[:, list(rows)]), _second(frame(after)[:, list(rows)]))
        for name, (rows, frame) in shown.items()
    }


def _second(points: ndarray) -> float:
    return float(np.nanmedian(np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1)))


def made_clips(photograph: Path, folder: Path) -> list[Path]:
    """The two clips of a photograph. Raises UserError where it has no face."""
    image = cv2.imread(str(photograph), cv2.IMREAD_COLOR_RGB)
    faces = [] if image is None else find_faces(image)
    if not faces:
        raise UserError(f"--photo: {photograph}: no photograph with a face.", remedy="Name another.")
    clips = {"moving": over_the_face, "away-and-back": away_and_back}
    for name, camera in clips.items():
        write_clip(folder / f"{name}.mp4", image, camera(faces[0].box))
    return [folder / f"{name}.mp4" for name in clips]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, or a checkpoint's file")
    parser.add_argument("--clip", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--photo", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("runs/videos"), metavar="FOLDER")
    arguments = parser.parse_args(argv)
    tune_cpu(0)

    def run() -> None:
        loaded = load(arguments.run)
        arguments.out.mkdir(parents=True, exist_ok=True)
        clips = [*arguments.clip, *(made_clips(arguments.photo, arguments.out) if arguments.photo else [])]
        print(f"{torch.get_num_threads()} threads\n")
        print(f"| clip | edit | frames | faceless | frames/s | CPU ms a frame | {' | '.join(STEPS)} |")
        print("|---" * (6 + len(STEPS)) + "|")
        results = []
        for clip in clips:
            for number, (name, edit) in enumerate(EDITS.items()):
                out = arguments.out / f"{clip.stem}-{number}.mp4"
                done, cells = speed(loaded, clip, edit, out)
                print(f"| {clip.stem} | {name} | {done.frames} | {done.faceless} | {cells} |", flush=True)
                results.append((clip, name, out))
        print("\n| clip | edit | irises | lids | face |\n" + "|---" * 5 + "|")
        for clip, name, out in results:
            cells = " | ".join(f"{b:.2f}, {a:.2f}" for b, a in trembling(seen(clip), seen(out)).values())
            print(f"| {clip.stem} | {name} | {cells} |", flush=True)

    return answer("redirected_video", run)


if __name__ == "__main__":
    sys.exit(main())
