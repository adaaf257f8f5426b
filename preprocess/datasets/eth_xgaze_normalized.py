"""HDF5 release: subject0000.h5 with `face_patch` (N, 448, 448, 3) or (N, 224, 224, 3) BGR, `face_gaze` and
`face_head_pose` (N, 2), and perhaps `frame_index` and `cam_index`. Test subjects come without gaze and are no use here.

These patches are normalised again, about the published face centre and for the camera of this project. They show 140 mm
at the face, the normalised view 153.6, about a point 7 mm lower: about 6 of 128 pixels on a side, more at the lower
one, repeat the patch's border, a sixth of all. Such samples are counted: practically all.
The head's labels are turned by 6.2 degrees about x, from the axes of the data set's face model to those of the generic
face. The gaze is that from a centre 11 mm away from the published one; for this the face is taken as 1000 mm from the
camera and from its target; 200 mm more or less change the gaze by less than 0.3 degrees. Gaze of more than 80 degrees,
of which there is some in this data set, is left out and counted, as everywhere here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy import ndarray

from core.hdf5 import DamagedFile, open_hdf5, reading, require_readable
from preprocess.face_model import XGAZE_TILT, FaceModel, make_pose
from preprocess.face_patches import MAX_GAZE, LeftOut, Sample
from preprocess.normalization import (
    ETH_XGAZE,
    View,
    coverage,
    label_to_rotation,
    label_to_vector,
    normalized_labels,
    normalizing_rotation,
    patch_camera,
    warp_image,
    warp_matrix,
)
from preprocess.person_file import DamagedPerson

DISTANCE = 1000.0  # mm, assumed, of the face from the camera and from its target
FIELD = ETH_XGAZE.size * ETH_XGAZE.distance_mm / ETH_XGAZE.focal  # mm that a patch shows
SIZES = (448, 224)
# The rotation from the axes of the 50-point model to those of the generic face.
TO_GENERIC = np.array(
    [[1, 0, 0], [0, np.cos(XGAZE_TILT), -np.sin(XGAZE_TILT)], [0, np.sin(XGAZE_TILT), np.cos(XGAZE_TILT)]]
)
EYES_50 = (20, 23, 26, 29)  # the corners of the eyes among its points
# The middle between the four corners of the eyes and the nostrils (15, 19), about which the patches were cut, from
# the middle of the corners, in the axes of the generic face.
CENTRE = np.array([0.4, 23.0, -8.1])
PADDED = "padded with the border of the published patch"
FACTS = {
    "intrinsics": f"normalised camera; face and target assumed {DISTANCE:g} mm away",
    "head_pose": "given, in the axes of the generic face",
    "field_of_view": f"patches show {FIELD:g} of 153.6 mm; beyond, their border is repeated",
}


@dataclass(frozen=True)
class Labels:
    """A subject's file without its patches. gaze, head: (N, 2).  frames, cameras: (N,), -1 where they are not known."""

    gaze: ndarray
    head: ndarray
    frames: ndarray
    cameras: ndarray


@dataclass(frozen=True)
class NormalizedXGaze:
    """Converts a subject's file. every: take each Nth frame.  cameras: numbers to take."""

    folder: Path
    model: FaceModel
    view: View
    every: int
    cameras: tuple[int, ...]

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a subject, in the order of the file."""
        path = self.folder / f"{person}.h5"
        for row, patch, gaze, head in _read_patches(path, self.every, self.cameras):
            yield self.renormalize(f"{path.name}:{row}", patch, gaze, head)

    def renormalize(self, name: str, patch: ndarray, gaze: ndarray, head: ndarray) -> Sample | LeftOut:
        """patch: (S, S, 3) uint8 RGB.  gaze, head: (2,) radians, as published."""
        if not np.isfinite([*gaze, *head]).all() or np.abs([*gaze, *head]).max() > np.pi:
            return LeftOut(name, "labels are no angles", f"{gaze.tolist()}, {head.tolist()}", damaged=True)
        if np.abs(gaze).max() > MAX_GAZE:
            return LeftOut(name, "gaze is more than 80 degrees from the camera", f"{np.degrees(gaze).round(1)}")
        head_rotation, middle = label_to_rotation(head) @ TO_GENERIC.T, np.array([0, 0, DISTANCE])
        pose = make_pose(head_rotation, middle - head_rotation @ CENTRE, self.model)
        target = middle - DISTANCE * label_to_vector(gaze)
        try:
            rotation = normalizing_rotation(pose.centre, pose.rotation)
        except ValueError as error:
            return LeftOut(name, "no normalised camera for this head", str(error))
        labels = normalized_labels(rotation, pose.rotation, pose.centre, pose.eyes, target)
        camera_matrix = patch_camera(ETH_XGAZE.resized(len(patch)), DISTANCE)
        matrix = warp_matrix(self.view, camera_matrix, pose.centre, rotation)
        padded = coverage(matrix, self.view.size, patch.shape) < 0.99
        pixels = warp_image(patch, matrix, self.view.size, cv2.BORDER_REPLICATE)
        return Sample(name, pixels, labels, PADDED if padded else "")


def read_labels(file: h5py.File) -> Labels:
    """Raises ValueError that says what is wrong with a subject's file."""
    missing = [key for key in ("face_patch", "face_gaze", "face_head_pose") if key not in file]
    if missing:
        withheld = "; the gaze of test subjects is not published" * (missing == ["face_gaze"])
        raise ValueError(f"no {', '.join(missing)}{withheld}")
    patches = file["face_patch"]
    count, size = len(patches), patches.shape[1]
    if patches.shape[1:] != (size, size, 3) or size not in SIZES or patches.dtype != np.uint8:
        raise ValueError(f"face_patch is {patches.shape} {patches.dtype}, expected (N, 448 or 224, as many, 3) uint8")
    gaze, head = (np.asarray(file[key][()], np.float64) for key in ("face_gaze", "face_head_pose"))
    if gaze.shape != (count, 2) or head.shape != (count, 2):
        raise ValueError(f"{count} patches, but face_gaze is {gaze.shape} and face_head_pose {head.shape}")
    frames, cameras = (
        np.asarray(file[key][()]).reshape(-1).astype(int) if key in file else np.full(count, -1)
        for key in ("frame_index", "cam_index")
    )
    if len(frames) != count or len(cameras) != count:
        raise ValueError(f"{count} patches, but {len(frames)} frame_index and {len(cameras)} cam_index")
    if cameras.max(initial=0) == 18:  # some files count cameras from 1
        cameras = cameras - 1
    return Labels(gaze, head, frames, cameras)


def _read_patches(path: Path, every: int, cameras: tuple[int, ...]) -> Iterator[tuple[int, ndarray, ndarray, ndarray]]:
    """(row, patch (S, S, 3) uint8 RGB, gaze, head) of the rows that are asked for. Raises DamagedPerson.

    Raises UserError where the file is good, but cannot be opened.
    """
    try:
        with open_hdf5(path) as file, reading(path):
            labels, patches = read_labels(file), file["face_patch"]
            require_readable(patches)
            for row in choose_rows(labels, every, cameras):
                yield row, cv2.cvtColor(patches[row], cv2.COLOR_BGR2RGB), labels.gaze[row], labels.head[row]
    except DamagedFile as error:
        raise DamagedPerson(f"{path.name}: {error.__cause__}") from error


def choose_rows(labels: Labels, every: int, cameras: tuple[int, ...]) -> Iterator[int]:
    """Rows of each Nth frame and of these cameras; where frames or cameras are not known, each Nth row, and all."""
    order: dict[int, int] = {}
    for row, (frame, camera) in enumerate(zip(labels.frames.tolist(), labels.cameras.tolist(), strict=True)):
        position = row if frame < 0 else order.setdefault(frame, len(order))
        if position % every == 0 and (camera < 0 or camera in cameras):
            yield row


def find_persons(raw: Path) -> tuple[Path, list[str]]:
    """The folder that subjects' .h5 files are in, `raw` or its train, and who is there; nobody if there are none."""
    for folder in (raw / "train", raw):
        found = sorted(path.stem for path in folder.glob("*.h5") if re.fullmatch(r"subject\d{4}", path.stem))
        if found:
            return folder, found
    return raw, []
