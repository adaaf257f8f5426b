"""Converting raw data: images a second and peak memory. Run `python -m benchmarks.conversion`.

Trees of four persons in the official layouts and picture sizes. A few pictures are drawn, and each is there under many
names (hard links), so reading them from a disk is not measured, all else is: decoding, warping, labels, writing.
Landmarks are given, no detector runs. Each run is a command in a fresh process; seconds are counted after its imports
and with the start of its workers. One worker, two, and decoding alone by cv2.imread in one process take turns, and the
median of the rounds counts. Memory: the larger of the command's and its workers' peaks, for all images, for a quarter
of them, and for all as one person's; what a worker holds of the process that started it is in it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io
from numpy import ndarray

from preprocess.face_model import CENTRE, GENERIC
from preprocess.synthetic_head import Person, build_person
from preprocess.synthetic_person import draw_identity, without_extras
from preprocess.synthetic_render import render
from preprocess.synthetic_scene import Scene, head_rotation

PERSONS, PICTURES, FIELD = 4, 4, 153.6  # FIELD: mm that a drawn patch shows at the face
GIVEN = (36, 39, 42, 45, 48, 54)  # MPIIFaceGaze's landmarks
COMMAND = """
import json, resource, sys, time
from preprocess.__main__ import main
start = time.perf_counter()
code = main(sys.argv[1:])
used = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([time.perf_counter() - start, *used]))
sys.exit(code)
"""
DECODE = """
import sys, time, cv2
cv2.setNumThreads(1)
start = time.perf_counter()
assert all(cv2.imread(path) is not None for path in sys.stdin.read().splitlines())
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Shot:
    """A drawn picture: the file, exact landmarks (68, 2) in pixels, the middle of the eyes (3,) in mm."""

    path: Path
    landmarks: ndarray
    eyes: ndarray


@dataclass(frozen=True)
class Case:
    """A data set: its pictures, and who writes a person of its tree. focal: pixels.  distance: of the face, mm."""

    width: int
    height: int
    focal: float
    distance: float
    images: int
    write: Callable[[Path, int, list[Shot]], None]
    options: tuple[str, ...] = ()

    @property
    def camera(self) -> ndarray:
        return np.array([[self.focal, 0, self.width / 2 - 0.5], [0, self.focal, self.height / 2 - 0.5], [0, 0, 1]])

    def draw(self, folder: Path) -> list[Shot]:
        """Heads a little turned, straight before the camera, in a noisy room."""
        person = build_person(without_extras(draw_identity(np.random.default_rng(1))))
        return [self._draw(folder / f"{i}.jpg", person, i) for i in range(PICTURES)]

    def _draw(self, path: Path, person: Person, i: int) -> Shot:
        rng, side = np.random.default_rng(i), 2 * round(FIELD * self.focal / self.distance / 2)
        head = tuple(np.deg2rad(rng.uniform(-4, 4, 2)).tolist())
        room = cv2.resize(rng.uniform(60, 190, (9, 12, 3)), (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        top, left = (self.height - side) // 2, (self.width - side) // 2
        room[top : top + side, left : left + side] = render(person, Scene(gaze=head, head=head), side)[..., ::-1]
        noisy = room + rng.normal(0, 2, (self.height, self.width, 1)).astype(np.float32)
        cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        rotation, centre = head_rotation(*head), np.array([0, 0, self.distance])
        seen = ((GENERIC.points - CENTRE) @ rotation.T + centre) @ self.camera.T
        landmarks = np.full((68, 2), np.nan)
        landmarks[list(GENERIC.landmarks)] = seen[:, :2] / seen[:, 2:]
        return Shot(path, landmarks, centre - rotation @ CENTRE)


def put(root: Path, name: str, shot: Shot, file: Path) -> None:
    """The picture at `file`, its landmarks where `--landmarks` looks for them."""
    landmarks = root / "landmarks" / f"{name}.npy"
    for path, source in ((file, shot.path), (landmarks, shot.path.with_suffix(".npy"))):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not source.exists():
            np.save(source, shot.landmarks)
        os.link(source, path)


def write_gazecapture(root: Path, person: int, shots: list[Shot]) -> None:
    name, count = f"{person:05d}", len(shots)
    frames = [f"{i:05d}.jpg" for i in range(count)]
    for frame, shot in zip(frames, shots, strict=True):
        put(root, f"{name}/frames/{frame}", shot, root / "raw" / name / "frames" / frame)
    face = {"X": [100] * count, "Y": [150] * count, "W": [280] * count, "H": [340] * count, "IsValid": [1] * count}
    contents = {"frames": frames, "info": {"Dataset": "train", "DeviceName": "iPhone 6"}, "appleFace": face}
    contents |= dict.fromkeys(("appleLeftEye", "appleRightEye", "faceGrid"), {"IsValid": [1] * count})
    contents |= {"dotInfo": {"XCam": [1.0] * count, "YCam": [-4.0] * count, "Time": [1.0] * count}}
    contents |= {"screen": {"Orientation": [1] * count}}
    for file, content in contents.items():
        (root / "raw" / name / f"{file}.json").write_text(json.dumps(content))


def write_mpiifacegaze(root: Path, person: int, shots: list[Shot]) -> None:
    name, lines = f"p{person:02d}", []
    folder = root / "raw" / name
    for i, shot in enumerate(shots):
        image = f"day{i // 100 + 1:02d}/{i % 100:04d}.jpg"
        put(root, f"{name}/{image}", shot, folder / image)
        numbers = [600, 400, *shot.landmarks[list(GIVEN)].ravel(), *[0] * 6, *shot.eyes, 0, 120, 0]
        lines.append(" ".join([image, *(f"{number:.3f}" for number in numbers), "left"]))
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "Calibration").mkdir()
    camera = {"cameraMatrix": CASES["mpiifacegaze"].camera, "distCoeffs": [[-0.16, 0.67, -0.0012, -0.003, -1.02]]}
    scipy.io.savemat(folder / "Calibration" / "Camera.mat", camera)


def write_columbia(root: Path, person: int, shots: list[Shot]) -> None:
    name, angles = f"{person:04d}", list(product((0, 15, -15), (0, 10, -10), (0, 5, -5, 10, -10, 15, -15)))
    for shot, (head, pitch, side) in zip(shots, angles, strict=False):
        image = f"{name}/{name}_2m_{head}P_{pitch}V_{side}H.jpg"
        put(root, image, shot, root / "raw" / image)


CASES = {
    "gazecapture": Case(480, 640, 600, 350, 2000, write_gazecapture),
    "mpiifacegaze": Case(1280, 720, 990, 540, 800, write_mpiifacegaze, ("--given-landmarks",)),
    "columbia": Case(5184, 3456, 19760, 2000, 60, write_columbia),  # at most 63 a person
}


def write_trees(case: Case, root: Path, trees: dict[str, tuple[int, int]]) -> None:
    """Trees of these numbers of images and persons."""
    root.mkdir(parents=True)
    shots = case.draw(root)
    for name, (images, persons) in trees.items():
        for person in range(persons):
            case.write(root / name, person, [shots[i % PICTURES] for i in range(person, images, persons)])


def run_python(code: str, *arguments: str, text: str = "") -> str:
    """The last line that a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


def convert(name: str, root: Path, images: int, workers: int) -> tuple[float, float]:
    """Seconds of a conversion, and its peak memory in MB."""
    out = root / "out.h5"
    given = ["--raw", str(root / "raw"), "--out", str(out), "--landmarks", str(root / "landmarks"), "--overwrite"]
    seconds, *used = json.loads(run_python(COMMAND, name, *given, "--workers", str(workers), *CASES[name].options))
    with h5py.File(out) as file:
        assert file.attrs["num_samples"] == images, out.with_suffix(".left_out.tsv").read_text()
    return seconds, max(used)


def decode(root: Path) -> float:
    """Seconds of decoding all images in one process."""
    return float(run_python(DECODE, text="\n".join(str(path) for path in sorted((root / "raw").rglob("*.jpg")))))


def measure(name: str, root: Path, images: int, rounds: int) -> tuple[str, str]:
    """A row of each table."""
    case, trees = CASES[name], {"all": (images, PERSONS), "quarter": (images // 4, PERSONS), "one": (images, 1)}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # what this process holds, its children have
        pool.submit(write_trees, case, root, trees).result()
    alone, one, two = [], [], []
    for _ in range(rounds):
        alone.append(decode(root / "all"))
        one.append(convert(name, root / "all", images, 1))
        two.append(convert(name, root / "all", images, 2))
    peaks = [max(peak for _, peak in one), max(peak for _, peak in two)]
    quarter = [convert(name, root / "quarter", images // 4, workers)[1] for workers in (1, 2)]
    person = convert(name, root / "one", images, 1)[1]
    speeds = [images / statistics.median(times) for times in (alone, [t for t, _ in one], [t for t, _ in two])]
    size = statistics.mean(path.stat().st_size for path in root.glob("*.jpg")) / 1024
    what = f"{name}, {case.width} x {case.height}"
    numbers = " | ".join(f"{speed:.3g}" for speed in speeds)
    speed_row = f"| {what} | {size:.0f} | {numbers} | {speeds[0] / speeds[1]:.2f} | {speeds[2] / speeds[1]:.2f} |"
    memory = " | ".join(f"{peak:.0f}" for peak in (quarter[0], peaks[0], person, quarter[1], peaks[1]))
    return speed_row, f"| {name}, {images // 4} and {images} images | {memory} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--images", type=int, help="of each data set; default: by the size of its pictures")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.datasets:
            rows.append(measure(name, Path(folder) / name, args.images or CASES[name].images, args.rounds))
    print(f"OpenCV {cv2.__version__}, h5py {h5py.__version__}, {os.cpu_count()} CPUs; {args.rounds} rounds\n")
    print("| images a second | KB a picture | decoding alone | 1 worker | 2 workers | decoding / 1 worker | 2 / 1 |")
    print("|---|---|---|---|---|---|---|", *(speeds for speeds, _ in rows), sep="\n")
    print("\n| peak MB | quarter, 1 worker | all, 1 worker | all as one person | quarter, 2 workers | all, 2 workers |")
    print("|---|---|---|---|---|---|", *(memory for _, memory in rows), sep="\n")


if __name__ == "__main__":
    main()
