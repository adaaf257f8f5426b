"""Faces of photographs and clips as normalised patches with a reference's labels, found once and kept in a file.

The head is that of MediaPipe's landmarks and PnP, as the converters have it; the gaze that of its irises
(`core/redirection/iris.py`). The file is one of patches like any other, a group for the photographs and one a clip, but
its labels are nobody's truth: `gaze_known` is False, and the root attribute `reference` says what they are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy import ndarray
from tqdm import tqdm

from core.command import UserError
from core.files import atomic_write
from core.hdf5 import open_hdf5, read_attributes
from core.redirection.faces import CUTTER
from core.redirection.iris import CLOSED, eye_points, lids_apart, looked_at
from core.redirection.measure import labels_of, mesh_of
from preprocess.datasets.images import find_photographs, open_photograph, photo_camera
from preprocess.face_patches import LeftOut, Sample
from preprocess.landmarks import DETECTOR, detect, detect_all, to_68
from preprocess.normalization import View, patch_camera

PHOTOGRAPHS = "photographs"  # the name of their group


@dataclass(frozen=True)
class Faces:
    """A set of faces: pixels (N, S, S, 3) uint8 RGB, labels (N, 8) radians, and the name of each."""

    pixels: ndarray
    labels: ndarray
    names: list[str]


def faces_of(image: ndarray, name: str, meshes: Sequence[ndarray], film: float) -> Iterator[Sample | LeftOut]:
    """The faces of an upright image whose FaceMesh points are known; the second face of NAME is NAME#2."""
    camera_matrix, _ = photo_camera(image.shape, None, film)
    for number, mesh in enumerate(meshes, 1):
        face_name = name if number == 1 else f"{name}#{number}"
        pose = CUTTER.pose(to_68(mesh), face_name, camera_matrix)
        if isinstance(pose, LeftOut):
            yield pose
        elif lids_apart(mesh) < CLOSED:
            yield LeftOut(face_name, "eyes closed")
        else:
            target = looked_at(mesh, pose, camera_matrix)
            yield CUTTER.cut(image, face_name, camera_matrix, pose, target)


def photograph_faces(folder: Path) -> Iterator[Sample | LeftOut]:
    """All faces of the photographs in a folder."""
    names = sorted(name for found in find_photographs(folder)[0].values() for name in found)
    for name in names:
        opened = open_photograph(folder, name)
        if isinstance(opened, LeftOut):
            yield opened
            continue
        meshes = detect_all(opened[0])
        yield from faces_of(opened[0], name, meshes, opened[1]) if meshes else [LeftOut(name, "no face found")]


def clip_faces(path: Path) -> Iterator[Sample | LeftOut]:
    """The largest face of each frame of a clip; frames are named by number, from 0."""
    for number, image in enumerate(read_frames(path)):
        mesh, name = detect(image), f"{number:05d}"
        yield from faces_of(image, name, [mesh], 0.0) if mesh is not None else [LeftOut(name, "no face found")]


def read_frames(path: Path) -> Iterator[ndarray]:
    """The frames of a video, (H, W, 3) uint8 RGB. Raises UserError if it cannot be read."""
    import av  # slow to import, and only clips need it

    if not path.is_file():
        raise UserError(f"--clip: {path}: no such file.", remedy="Correct the path.")
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"--clip: {path}: cannot be read as a video ({error}).", remedy="Name another.") from error


def write_faces(path: Path, photos: Path | None, clips: Sequence[Path]) -> None:
    """Finds all faces and writes them. Raises UserError where no face is found."""
    twice = [stem for stem, times in Counter(clip.stem for clip in clips).items() if times > 1]
    if twice:
        raise UserError("--clip", f"{' and '.join(twice)} more than once", "files of different names", "Rename one.")
    sources = {} if photos is None else {PHOTOGRAPHS: photograph_faces(photos)}
    sources |= {clip.stem: clip_faces(clip) for clip in clips}
    left_out: Counter[str] = Counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for group, found in sources.items():
            _write_group(file, group, found, left_out)
        if not len(file):
            raise UserError(f"No face was found ({_told(left_out)}).", remedy="Name other photographs.")
        file.attrs.update({"color_order": "RGB", "gaze_known": False, "made_from": made_from(photos, clips)})
        file.attrs["reference"] = f"{DETECTOR}: head by PnP, gaze by the irises"
        file.attrs["left_out"] = _told(left_out)


def _write_group(file: h5py.File, name: str, found: Iterator[Sample | LeftOut], left_out: Counter[str]) -> None:
    samples = []
    for one in tqdm(found, desc=name, unit="face"):
        if isinstance(one, LeftOut):
            left_out[f"{name}: {one.reason}"] += 1
        else:
            samples.append(one)
    if samples:
        group = file.create_group(name)
        group["pixels"] = np.stack([sample.pixels for sample in samples])
        group["labels"] = np.stack([sample.labels for sample in samples]).astype(np.float32)
        group["name"] = [sample.name for sample in samples]


def _told(left_out: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(left_out.items())) or "nothing"


def made_from(photos: Path | None, clips: Sequence[Path]) -> str:
    """Names and sizes of what a file is made from, so that others are not taken for them."""
    names = [] if photos is None else [n for found in find_photographs(photos)[0].values() for n in found]
    files = [(name, photos / name) for name in sorted(names) if photos] + [(clip.name, clip) for clip in clips]
    return "; ".join(f"{name} {file.stat().st_size}" for name, file in files if file.is_file())


def read_faces(path: Path) -> tuple[dict[str, Faces], dict[str, Any]]:
    """Sets by name, and the file's attributes. Raises UserError if it is not a file of `write_faces`."""
    with open_hdf5(path, missing="Name --photos DIR or --clip FILE to find faces.") as file:
        attributes = read_attributes(file)
        if "reference" not in attributes:
            raise UserError(f"--faces: {path} is none of this benchmark's. Choose another name.")
        sets = {
            name: Faces(group["pixels"][()], group["labels"][()], [text.decode() for text in group["name"][()]])
            for name, group in file.items()
        }
    return sets, attributes


@dataclass(frozen=True)
class Seen:
    """What the reference finds in patches whose labels are known.

    rows: those in which it finds a face, (n,).  irises: (n, 2, 2), pixels of the patch, image left first.
    labels: (n, 8) radians, in the frame of the patch's camera; NaN where no head fits the face.
    """

    rows: ndarray
    irises: ndarray
    labels: ndarray


def see_patches(pixels: Sequence[ndarray], view: View) -> Seen:
    """The reference on patches (S, S, 3) of a normalised camera, S = view.size, which have faces 600 mm away."""
    meshes = {row: mesh for row, patch in enumerate(pixels) if (mesh := mesh_of(patch)) is not None}
    irises = [eye_points(mesh)[1] for mesh in meshes.values()]
    camera = patch_camera(view, view.distance_mm)
    labels = [labels_of(mesh, camera, np.eye(3)) for mesh in meshes.values()]
    return Seen(np.array(list(meshes), int), np.reshape(irises, (-1, 2, 2)), np.reshape(labels, (-1, 8)))
