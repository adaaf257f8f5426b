"""Whether a person stays the person when redirected: `python -m benchmarks.kept_identity --photos DIR`.

A face recognition network that took no part sees the faces of `benchmarks.redirected_in_place` before and after each of
their edits: how far its embedding of a face moves. Beside it, as the scale, how far it moves where the photograph is
merely made worse, how far the persons of the folder are from each other, and, with `--same FILE FILE`, photographs of
one person. The network is dlib's (weights under CC0): `pip install dlib-bin face-recognition-models`.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy import ndarray

from benchmarks.redirected_in_place import faces_in, photographs
from benchmarks.redirected_photographs import EDITS
from core.command import UserError, answer
from core.redirection.edit import Edit
from core.redirection.faces import PhotoFace
from core.redirection.load import Loaded, load
from core.redirection.measure import measure
from core.redirection.photo import redirect_faces
from core.redirection.photo_files import Photo
from core.runtime import tune_cpu

PACKAGES = ("dlib", "face_recognition_models")
MISSING = "the face recognition network is not installed ({} missing): pip install dlib-bin face-recognition-models"
WEIGHTS = Path("models/dlib_face_recognition_resnet_model_v1.dat")
ONE_PERSON = 0.6  # embeddings nearer to each other are of one person, says who published the network
QUALITY = 50  # of JPEG

Embed = Callable[[ndarray, ndarray], ndarray]  # image (H, W, 3) uint8 RGB and landmarks (68, 2) -> (128,)
Change = Callable[[Photo, PhotoFace], ndarray]  # -> the photograph's pixels, changed


@dataclass(frozen=True)
class Known:
    """A face in the photograph of a file, and its embedding there."""

    path: Path
    photo: Photo
    face: PhotoFace
    embedding: ndarray


def load_network() -> Embed:
    """Raises UserError where a package is missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(MISSING.format(" and ".join(missing)))
    import dlib

    # Its own functions that name the files need pkg_resources, which is gone from setuptools.
    folder = find_spec("face_recognition_models").submodule_search_locations[0]
    network = dlib.face_recognition_model_v1(str(Path(folder) / WEIGHTS))

    def embed(image: ndarray, landmarks: ndarray) -> ndarray:
        points = np.rint(landmarks).astype(int)
        box = dlib.rectangle(*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        aligned_by = dlib.full_object_detection(box, [dlib.point(*point) for point in points.tolist()])
        return np.array(network.compute_face_descriptor(image, aligned_by))

    return embed


def known_faces(embed: Embed, path: Path) -> list[Known]:
    """The faces of a photograph that look about into the camera."""
    found = []
    for photo, face in faces_in(path):
        embedding = embedding_of(embed, photo.pixels, face)
        if embedding is not None:
            found.append(Known(path, photo, face, embedding))
    return found


def embedding_of(embed: Embed, pixels: ndarray, face: PhotoFace) -> ndarray | None:
    """Of a face whose landmarks are found anew in an image (H, W, 3) uint8 RGB; None where none is found."""
    seen = measure(pixels, face)
    return None if seen is None else embed(pixels, seen.landmarks)


def distance(a: ndarray, b: ndarray) -> float:
    return float(np.linalg.norm(a - b))


def moved(embed: Embed, faces: Sequence[Known], change: Change) -> list[float]:
    """How far the embedding of each face moves; without those that are not found any more."""
    after = [(known, embedding_of(embed, change(known.photo, known.face), known.face)) for known in faces]
    return [distance(known.embedding, embedding) for known, embedding in after if embedding is not None]


def between_persons(faces: Sequence[Known], same: Sequence[Path]) -> list[float]:
    """Distances of all pairs of faces but those of two photographs of one person."""
    one = {path.resolve() for path in same}
    return [
        distance(a.embedding, b.embedding)
        for a, b in combinations(faces, 2)
        if a.path == b.path or not {a.path.resolve(), b.path.resolve()} <= one
    ]


def of_one_person(embed: Embed, same: Sequence[Path]) -> list[float]:
    """Distances of all pairs of photographs of one person. Raises UserError where one does not show one face."""
    if len(same) < 2:
        raise UserError(f"--same: {same[0]} alone; name at least two photographs of one person.")
    known = [known_faces(embed, path) for path in same]
    for path, faces in zip(same, known, strict=True):
        if len(faces) != 1:
            raise UserError(f"--same: {path}: {len(faces)} faces that look about into the camera, expected 1.")
    return [distance(a[0].embedding, b[0].embedding) for a, b in combinations(known, 2)]


def halved(photo: Photo, face: PhotoFace) -> ndarray:
    """Made half as large, and as large as before again."""
    height, width = photo.pixels.shape[:2]
    small = cv2.resize(photo.pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def compressed(photo: Photo, face: PhotoFace) -> ndarray:
    _, data = cv2.imencode(".jpg", photo.pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def summary(rows: Mapping[str, Sequence[float]]) -> str:
    """Markdown: of each row how many distances there are, and the least, the mean and the largest."""
    lines = ["| | distances | least | mean | largest |", "|---" * 5 + "|"]
    for name, found in rows.items():
        numbers = (np.min(found), np.mean(found), np.max(found)) if found else (np.nan,) * 3
        lines.append(f"| {name} | {len(found)} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    return "\n".join(lines)


def all_edits() -> dict[str, Edit]:
    """Those of EDITS, each by its name."""
    return {
        f"{factor} {pitch:g} {yaw:g}": Edit(**{factor: (pitch, yaw)}, relative=True)
        for factor, steps in EDITS.items()
        for pitch, yaw in steps
    }


def measured(embed: Embed, loaded: Loaded, folder: Path, same: Sequence[Path]) -> dict[str, list[float]]:
    """All rows. Raises UserError where the folder shows nobody."""
    one_person = {"photographs of one person": of_one_person(embed, same)} if same else {}
    faces = [known for path in photographs(folder) for known in known_faces(embed, path)]
    if not faces:
        raise UserError(
            f"--photos: {folder}: no face in it that looks about into the camera.", remedy="Name other photographs."
        )

    def redirected(edit: Edit) -> Change:
        return lambda photo, face: redirect_faces(loaded, photo, [face], edit).pixels

    changes = {name: redirected(edit) for name, edit in all_edits().items()}
    changes |= {"half as large": halved, f"JPEG of quality {QUALITY}": compressed}
    rows = {name: moved(embed, faces, change) for name, change in changes.items()}
    return rows | one_person | {"different persons": between_persons(faces, same)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="default: the one that comes along")
    parser.add_argument("--same", type=Path, nargs="+", default=[], metavar="FILE", help="photographs of one person")
    arguments = parser.parse_args(argv)
    tune_cpu(torch.get_num_threads())

    def run() -> None:
        embed, loaded = load_network(), load(arguments.checkpoint, device="cpu")
        rows = measured(embed, loaded, arguments.photos, arguments.same)
        print(f"Distances between embeddings; below {ONE_PERSON:g} two are said to be of one person:\n")
        print(summary(rows))

    return answer("kept_identity", run)


if __name__ == "__main__":
    sys.exit(main())
