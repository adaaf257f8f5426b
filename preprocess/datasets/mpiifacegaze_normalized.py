"""Normalised release: p00.mat ... p14.mat (MATLAB 7.3), images of 448 pixels, BGR, with gaze and head in label[:4].

These patches are normalised again, about the published face centre and for the camera of this project. What their
camera was is not in the files. The width of what they show at the face is measured by the six landmarks in label[4:16]
and taken as 140 or 280 mm where it is near one of them; --field says it otherwise. The normalised view shows
153.6 mm: with a field of 140 mm about 6 of 128 pixels on each side repeat the patch's border.
Assumed, too: the face was 600 mm away and looked at a point in the plane through the camera; 100 mm more or less
change the gaze by up to 0.13 degrees, and that of single eyes by up to 0.7. The head's labels are those of the
six-point model, whose axes are tilted against the generic face's by an unknown few degrees. Where the median gaze is
upwards, the sign of the gaze is another than ours, as the screen is below the camera: --opposite-gaze turns it.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.hdf5 import DamagedFile, open_hdf5, reading, require_readable
from preprocess.conversion import Conversion
from preprocess.face_model import GENERIC, FaceModel, make_pose
from preprocess.face_patches import MAX_GAZE, FaceCutter, LeftOut, Sample, cutter_from
from preprocess.normalization import (
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

DISTANCE = 600.0  # mm, assumed, of the face from the laptop's camera
CENTRE = np.array([0.0, 23.8, 0.0])  # of the six-point model's centre in the axes of the generic face
FIELDS = (140.0, 280.0)  # mm
NEAR = 0.1  # as a part of the field
OUTER_CORNERS = float(GENERIC[(45,)][0, 0] - GENERIC[(36,)][0, 0])  # mm
ROWS = 16  # read at once


def patch_view(field: float, size: int) -> View:
    """The camera of patches of `size` pixels that show `field` mm at a face, here at DISTANCE."""
    return View(size * DISTANCE / field, DISTANCE, size, principal=size / 2)


@dataclass(frozen=True)
class NormalizedMPIIFaceGaze:
    """Converts a person's .mat file. field: mm that its patches show.  opposite: the file's gaze has the other sign."""

    raw: Path
    model: FaceModel
    view: View
    every: int
    field: float
    opposite: bool

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a person, in the order of the file."""
        labels, _ = read_labels(self.raw / f"{person}.mat")
        for row, patch in _read_patches(self.raw / f"{person}.mat", len(labels), self.every):
            yield self.renormalize(f"{person}.mat:{row}", patch, labels[row])

    def renormalize(self, name: str, patch: ndarray, label: ndarray) -> Sample | LeftOut:
        """patch: (S, S, 3) uint8 RGB.  label: (4 or more,) radians."""
        sign = -1 if self.opposite else 1
        gaze, head = sign * label[:2], label[2:4]
        if not (np.isfinite(label[:4]).all() and np.abs(label[:4]).max() <= MAX_GAZE):
            return LeftOut(name, "labels are no angles", f"{label[:4].tolist()}", damaged=True)
        old = patch_view(self.field, len(patch))
        camera_matrix, middle = patch_camera(old, DISTANCE), np.array([0, 0, DISTANCE])
        head_rotation, direction = label_to_rotation(head), -label_to_vector(gaze)
        pose = make_pose(head_rotation, middle - head_rotation @ CENTRE, self.model)
        target = middle - direction * (DISTANCE / direction[2])
        rotation = normalizing_rotation(pose.centre, pose.rotation)
        labels = normalized_labels(rotation, pose.rotation, pose.centre, pose.eyes, target)
        matrix = warp_matrix(self.view, camera_matrix, pose.centre, rotation)
        padded = coverage(matrix, self.view.size, patch.shape) < 0.99
        pixels = warp_image(patch, matrix, self.view.size, cv2.BORDER_REPLICATE)
        return Sample(name, pixels, labels, "padded with the border of the published patch" if padded else "")


def read_labels(path: Path) -> tuple[ndarray, int]:
    """(N, 4 or more) float64 of a .mat file, and its patches' size. Raises DamagedPerson."""
    try:
        with open_hdf5(path) as file, reading(path):
            data, labels = file["Data/data"].shape, np.asarray(file["Data/label"][()], np.float64)
    except DamagedFile as error:
        raise DamagedPerson(
            f"{path.name} cannot be read as MATLAB 7.3 with Data/data and Data/label: {error.__cause__}"
        ) from error
    if len(data) != 4 or data[1] != 3 or data[2] != data[3] or labels.ndim != 2 or labels.shape[1] < 4:
        raise DamagedPerson(f"{path.name}: data {data}, label {labels.shape}, expected (N, 3, S, S) and (N, 4 or more)")
    if len(labels) != data[0]:
        raise DamagedPerson(f"{path.name}: {data[0]} images but {len(labels)} labels")
    return labels, data[2]


def _read_patches(path: Path, count: int, every: int) -> Iterator[tuple[int, ndarray]]:
    """(row, patch (S, S, 3) uint8 RGB) of each Nth row."""
    try:
        with open_hdf5(path) as file, reading(path):
            require_readable(file["Data/data"])
            for start in range(0, count, ROWS * every):
                rows = range(start, min(start + ROWS * every, count), every)
                block = file["Data/data"][rows.start : rows.stop : every]
                if block.dtype != np.uint8:
                    block = np.clip(np.rint(block), 0, 255).astype(np.uint8)
                for row, patch in zip(rows, block, strict=True):
                    yield row, np.ascontiguousarray(patch[::-1].transpose(1, 2, 0))
    except DamagedFile as error:
        raise DamagedPerson(f"{path.name}: images cannot be read: {error.__cause__}") from error


def find_persons(raw: Path) -> list[str]:
    """Persons of the .mat files in `raw`; none if it is not the normalised release."""
    return sorted(path.stem for path in raw.glob("*.mat") if re.fullmatch(r"p\d\d", path.stem))


def survey(raw: Path, persons: list[str]) -> tuple[ndarray, int]:
    """(N, columns) labels of all readable persons, with as many columns as all have, and the patches' size.

    Raises UserError if there is none.
    """
    found, size = [], 0
    for person in persons:
        try:
            labels, size = read_labels(raw / f"{person}.mat")
            found.append(labels)
        except DamagedPerson:
            continue  # the conversion of this person says so
    if not found:
        raise UserError(f"--raw: none of the {len(persons)} .mat files of {raw} can be read; download them again.")
    columns = min(labels.shape[1] for labels in found)
    return np.concatenate([labels[:, :columns] for labels in found]), size


def measure_field(labels: ndarray, size: int) -> float | None:
    """mm that patches of `size` pixels show, by the outer corners of the eyes; None where there are no landmarks."""
    if labels.shape[1] < 16:
        return None
    corners = labels[:, [4, 5, 10, 11]].reshape(-1, 2, 2)
    inside = np.isfinite(corners).all(axis=(1, 2)) & (corners > 0).all(axis=(1, 2)) & (corners < size).all(axis=(1, 2))
    apart = np.linalg.norm(corners[inside, 1] - corners[inside, 0], axis=1) / np.cos(labels[inside, 3])
    return float(size * OUTER_CORNERS / np.median(apart)) if inside.mean() > 0.5 else None


def choose_field(measured: float | None, asked: float | None) -> float:
    """The field in mm. Raises UserError that says what to do where it is not clear."""
    if asked is not None:
        if not 50 <= asked <= 1000:
            raise UserError(f"--field: found {asked:g}, expected 50 to 1000 mm.")
        if measured is not None and abs(measured / asked - 1) > 2 * NEAR:
            raise UserError(
                f"--field: {asked:g} mm, but by the landmarks in the files it is about {measured:.0f} mm.",
                remedy="Pass that, or leave it out.",
            )
        return asked
    near = [field for field in FIELDS if measured is not None and abs(measured / field - 1) < NEAR]
    if not near:
        seen = "there are no landmarks to measure it" if measured is None else f"it measures {measured:.0f} mm"
        raise UserError(f"How much of the face these patches show is not known ({seen}). Pass --field MM, 140 perhaps.")
    return near[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that only the normalised release has."""
    parser.add_argument("--field", type=float, metavar="MM", help=".mat files: width that a patch shows at the face")
    parser.add_argument("--opposite-gaze", action="store_true", help=".mat files: turn the sign of the gaze")


def conversion_from(arguments: argparse.Namespace) -> Conversion:
    """The conversion of the .mat files in `--raw`. Raises UserError where their sign or their field is not clear."""
    persons, cutter = find_persons(arguments.raw), cutter_from(arguments)
    limits = (cutter.max_pose_error, cutter.min_coverage) != (FaceCutter.max_pose_error, FaceCutter.min_coverage)
    if arguments.landmarks or arguments.given_landmarks or limits:
        raise UserError(
            "--landmarks, --given-landmarks, --max-pose-error and --min-coverage are for the raw images; the .mat "
            "files bring head poses and are taken whole.",
            remedy="Leave them out.",
        )
    labels, size = survey(arguments.raw, persons)
    pitch = float(np.degrees(np.nanmedian(labels[:, 0]))) * (-1 if arguments.opposite_gaze else 1)
    if pitch > 2:
        raise UserError(
            f"The median gaze is {pitch:.0f} degrees upwards, but the screen is below the camera: the sign of the gaze "
            f"is another than ours.",
            remedy=f"{'Leave out' if arguments.opposite_gaze else 'Pass'} --opposite-gaze.",
        )
    field = choose_field(measure_field(labels, size), arguments.field)
    part = f"patches show {field:g} of 153.6 mm; beyond, their border is repeated" if field < 153.6 else "whole"
    own = {"frames_every": arguments.frames_every, "field_mm": field, "opposite_gaze": arguments.opposite_gaze}
    options = {key: value for key, value in cutter.options().items() if key in ("face_model", "view")}
    every, opposite = arguments.frames_every, arguments.opposite_gaze
    return Conversion(
        dataset="MPIIFaceGaze",
        persons=persons,
        convert=NormalizedMPIIFaceGaze(arguments.raw, cutter.model, cutter.view, every, field, opposite),
        options={**options, **own, "release": "normalized"},
        facts={
            "intrinsics": f"normalised camera, {field:g} mm at the face, assumed {DISTANCE:g} mm away",
            "head_pose": "given, in the axes of the six-point model",
            "field_of_view": part,
        },
        split={"test": persons},
    )
