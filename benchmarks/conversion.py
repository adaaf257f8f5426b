"""Converting raw data: images a second and peak memory. Run `python -m benchmarks.conversion`.

Trees of four persons in the official layouts and picture sizes. A few pictures are drawn, and each is there under many
names (hard links), so reading them from a disk is not measured, all else is: decoding, warping, labels, writing.
Landmarks are given, no detector runs. Each run is a command in a fresh process; seconds are counted after its imports
and with the start of its workers. Decoding alone by cv2.imread in one process, one worker and two take turns, and the
median of the rounds counts. CPU time, of all processes together, hardly depends on what else runs on the machine.
Memory: the largest peak of the command and its workers, for all images, a quarter of them, and as many of one person.
"""

import argparse
import json
import os
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

from core.files import read_text, write_text
from preprocess.face_model import CENTRE, GENERIC
from preprocess.synthetic.drawn.head import Person, build_person
from preprocess.synthetic.drawn.person import draw_identity, without_extras
from preprocess.synthetic.drawn.render import render
from preprocess.synthetic.scene import Scene, head_rotation

PERSONS, PICTURES, FIELD = 4, 4, 153.6  # FIELD: mm that a drawn patch shows at the face
GIVEN = (36, 39, 42, 45, 48, 54)  # MPIIFaceGaze's landmarks
COLUMBIA = list(product((0, 15, -15), (0, 10, -10), (0, 5, -5, 10, -10, 15, -15)))  # names that a frontal face fits
COMMAND = """
import json, os, resource, sys, time
from preprocess.__main__ import main
start, before = time.perf_counter(), sum(os.times()[:4])
code = main(sys.argv[1:])
seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - before
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps([seconds, cpu, peak / 1024]))
sys.exit(code)
"""
DECODE = """
import json, sys, time, cv2
cv2.setNumThreads(1)
start, before = time.perf_counter(), time.process_time()
assert all(cv2.imread(path) is not None for path in sys.stdin.read().splitlines())
print(json.dumps([time.perf_counter() - start, time.process_time() - before]))
"""


@dataclass(frozen=True)
class Shot:
    """A drawn picture: the file, exact landmarks (68, 2) in pixels, the middle of the eyes (3,) in mm."""

    path: Path
    landmarks: ndarray
    eyes: ndarray


@dataclass(frozen=True)
class Case:
    """A data set: its pictures, and what writes a person of its tree.

    focal: pixels.  distance: of the face, mm.  images: as many as take some seconds.  most: of a person.
    """

    width: int
    height: int
    focal: float
    distance: float
    images: int
    write: Callable[[Path, int, list[Shot]], None]
    most: int = 3000
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
        noisy = room + rng.normal(0, 1, (self.height, self.width, 1)).astype(np.float32)
        cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85])
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
        write_text(root / "raw" / name / f"{file}.json", json.dumps(content))


def write_mpiifacegaze(root: Path, person: int, shots: list[Shot]) -> None:
    name, lines = f"p{person:02d}", []
    folder = root / "raw" / name
    for i, shot in enumerate(shots):
        image = f"day{i // 100 + 1:02d}/{i % 100:04d}.jpg"
        put(root, f"{name}/{image}", shot, folder / image)
        numbers = [600, 400, *shot.landmarks[list(GIVEN)].ravel(), *[0] * 6, *shot.eyes, 0, 120, 0]
        lines.append(" ".join([image, *(f"{number:.3f}" for number in numbers), "left"]))
    write_text(folder / f"{name}.txt", "\n".join(lines) + "\n")
    (folder / "Calibration").mkdir()
    camera = {"cameraMatrix": CASES["mpiifacegaze"].camera, "distCoeffs": [[-0.16, 0.67, -0.0012, -0.003, -1.02]]}
    scipy.io.savemat(folder / "Calibration" / "Camera.mat", camera)


def write_columbia(root: Path, person: int, shots: list[Shot]) -> None:
    name = f"{person:04d}"
    for shot, (head, pitch, side) in zip(shots, COLUMBIA, strict=False):
        image = f"{name}/{name}_2m_{head}P_{pitch}V_{side}H.jpg"
        put(root, image, shot, root / "raw" / image)


CASES = {
    "gazecapture": Case(480, 640, 600, 350, 4000, write_gazecapture),
    "mpiifacegaze": Case(1280, 720, 990, 540, 1200, write_mpiifacegaze, options=("--given-landmarks",)),
    "columbia": Case(5184, 3456, 19760, 2000, 160, write_columbia, most=len(COLUMBIA)),
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


def convert(name: str, root: Path, workers: int) -> ndarray:
    """Seconds, CPU-seconds and peak memory in MB of converting a tree."""
    out, images = root / "out.h5", sum(1 for _ in (root / "raw").rglob("*.jpg"))
    given = ["--raw", str(root / "raw"), "--out", str(out), "--landmarks", str(root / "landmarks"), "--overwrite"]
    used = json.loads(run_python(COMMAND, name, *given, "--workers", str(workers), *CASES[name].options))
    with h5py.File(out) as file:
        assert file.attrs["num_samples"] == images, read_text(out.with_suffix(".left_out.tsv"))
    return np.array(used)


def decode(root: Path) -> ndarray:
    """Seconds and CPU-seconds of decoding the same images."""
    paths = sorted((root / "raw").rglob("*.jpg"))
    return np.array(json.loads(run_python(DECODE, text="\n".join(map(str, paths)))))


def measure(name: str, root: Path, images: int, rounds: int) -> tuple[str, str]:
    """A row of each table."""
    case, images = CASES[name], min(images, PERSONS * CASES[name].most)
    trees = {"all": (images, PERSONS), "quarter": (images // 4, PERSONS), "one": (min(images, case.most), 1)}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # what this process holds, its children have
        pool.submit(write_trees, case, root, trees).result()
    whole = root / "all"
    taken = [(decode(whole), convert(name, whole, 1), convert(name, whole, 2)) for _ in range(rounds)]
    alone, one, two = (np.median(way, axis=0) for way in zip(*taken, strict=True))
    others = [convert(name, root / "quarter", 1), convert(name, root / "quarter", 2), convert(name, root / "one", 1)]
    size = np.mean([path.stat().st_size for path in root.glob("*.jpg")]) / 1024
    speed = " | ".join(f"{images / way[0]:.3g}" for way in (alone, one, two))
    cpu = " | ".join(f"{1000 * way[1] / images:.2g}" for way in (alone, one, two))
    what = f"| {name}, {case.width} x {case.height} | {size:.0f} | {speed} | {one[0] / two[0]:.2f} | {cpu} |"
    peaks = " | ".join(f"{way[2]:.0f}" for way in (others[0], one, others[2], others[1], two))
    return what, f"| {name}, {images // 4}, {images} and {trees['one'][0]} images | {peaks} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--images", type=int, help="of each data set; default: fewer where pictures are larger")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [measure(name, root / name, args.images or CASES[name].images, args.rounds) for name in args.datasets]
    print(f"OpenCV {cv2.__version__}, h5py {h5py.__version__}, {os.cpu_count()} CPUs; {args.rounds} rounds\n")
    print("| | KB a picture | decoding alone, images/s | 1 worker | 2 workers | 2 / 1 | CPU-ms: decoding | 1 | 2 |")
    print("|---|---|---|---|---|---|---|---|---|", *(row for row, _ in rows), sep="\n")
    print("\n| peak MB | quarter, 1 worker | all, 1 worker | one person | quarter, 2 workers | all, 2 workers |")
    print("|---|---|---|---|---|---|", *(row for _, row in rows), sep="\n")


if __name__ == "__main__":
    main()
