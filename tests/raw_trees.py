"""Drawn faces before a known camera, for trees of files in the layout of raw data sets.

A shot is laid out from what its labels shall be: the normalised camera is turned and moved to where a face is, and
head and target are placed in it, so that the labels are known without what is tested. Landmarks are the generic
face's, exact. The picture shows the embedded data set's renderer through the physical camera; its faces are drawn as
from 600 mm, which the normalisation does not undo either, so that the patch is the renderer's own.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from numpy import ndarray

from preprocess.__main__ import main
from preprocess.face_model import GENERIC
from preprocess.synthetic.aligned import AlignedView
from preprocess.synthetic.drawn.head import Person, build_person
from preprocess.synthetic.drawn.person import draw_identity, without_extras
from preprocess.synthetic.drawn.render import develop, paint
from preprocess.synthetic.scene import (
    DISTANCE,
    FACE_CENTRE,
    Scene,
    direction_to_pitchyaw,
    head_rotation,
    make_view,
    pitchyaw_to_direction,
)


@dataclass(frozen=True)
class Camera:
    """A physical camera: matrix (3, 3), pixels, and distortion in OpenCV's order, if any."""

    matrix: ndarray
    width: int
    height: int
    distortion: ndarray | None = None

    @classmethod
    def plain(cls, focal: float, width: int, height: int) -> Camera:
        """The optical axis between the middle pixels, no distortion."""
        return cls(np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]]), width, height)

    def project(self, points: ndarray) -> ndarray:
        """Pixels (n, 2) of points (n, 3), mm in the camera frame, with distortion."""
        return cv2.projectPoints(
            np.asarray(points, np.float64), np.zeros(3), np.zeros(3), self.matrix, self.distortion
        )[0][:, 0]


@dataclass(frozen=True)
class Shot:
    """A head before a camera, all in the camera's frame: x right, y down, z forward, mm."""

    camera: Camera
    rotation: ndarray  # (3, 3) of the head
    centre: ndarray  # (3,) of the face, 30 mm below the middle of the eyes
    target: ndarray  # (3,) looked at
    labels: ndarray  # (8,) that a converter must find
    to_normalized: ndarray  # (3, 3): rotation to the normalised camera

    @property
    def translation(self) -> ndarray:
        """(3,): where the origin of the head's frame is, the middle of the eyes."""
        return self.centre - self.rotation @ FACE_CENTRE

    def place(self, points: ndarray) -> ndarray:
        """Points (n, 3) of the head's frame in the camera's."""
        return np.asarray(points) @ self.rotation.T + self.translation

    def landmarks(self) -> ndarray:
        """(68, 2) exact pixels of the image as taken; NaN where the generic face has no point."""
        found = np.full((68, 2), np.nan)
        found[list(GENERIC.landmarks)] = self.camera.project(self.place(GENERIC.points))
        return found

    def landmarks_with_lids(self) -> ndarray:
        """All landmarks that the FFHQ alignment takes: the lids' are in the middle between the corners."""
        found = self.landmarks()
        for corner, other in ((36, 39), (42, 45)):
            found[[corner + 1, corner + 2, corner + 4, corner + 5]] = (found[corner] + found[other]) / 2
        return found


def lay_out(
    camera: Camera,
    *,
    distance: float,
    gaze: tuple[float, float],
    head: tuple[float, float],
    at: tuple[float, float] = (0.0, 0.0),
    roll: float = 0.0,
    target_distance: float | None = None,
) -> Shot:
    """A shot from its labels.

    distance: of the face centre, mm.  gaze, head: (pitch, yaw) in the normalised camera, degrees.
    at: x / z and y / z of the face centre.  roll: of the head, degrees.
    target_distance: from the face centre along the gaze, mm; None for where the gaze meets the camera's plane z = 0.
    """
    gaze, head = np.deg2rad(gaze), np.deg2rad(head)
    forward = np.array([*at, 1.0]) / np.linalg.norm([*at, 1.0])
    right_in_roll = np.array([np.cos(np.deg2rad(roll)), np.sin(np.deg2rad(roll)), 0])
    down = np.cross(forward, right_in_roll)
    down /= np.linalg.norm(down)
    to_normalized = np.stack([np.cross(down, forward), down, forward])
    rotation, centre = to_normalized.T @ head_rotation(*head), distance * forward
    direction = to_normalized.T @ pitchyaw_to_direction(*gaze)
    target = centre + (target_distance or -centre[2] / direction[2]) * direction
    eyes = GENERIC.eyes @ rotation.T + centre - rotation @ FACE_CENTRE
    of_eyes = direction_to_pitchyaw((target - eyes) @ to_normalized.T)
    labels = np.concatenate([gaze, head, of_eyes.ravel()])
    return Shot(camera, rotation, centre, target, labels, to_normalized)


def random_shots(camera: Camera, count: int, seed: int, distance: tuple[float, float], spread: float = 0.08) -> list:
    """Shots of heads up to 20 degrees and gaze up to 12 degrees more, faces up to `spread` off the camera's axis."""
    rng, shots = np.random.default_rng(seed), []
    for _ in range(count):
        head = rng.uniform(-20, 20, 2)
        gaze = head + rng.uniform(-12, 12, 2)
        at, roll, far = rng.uniform(-spread, spread, 2), rng.uniform(-15, 15), rng.uniform(*distance)
        shots.append(lay_out(camera, distance=far, gaze=tuple(gaze), head=tuple(head), at=tuple(at), roll=roll))
    return shots


@functools.cache
def make_person(seed: int = 1) -> Person:
    """Somebody without glasses or beard; to be looked at, not changed."""
    return build_person(without_extras(draw_identity(np.random.default_rng(seed))))


def _scene(shot: Shot) -> Scene:
    return Scene(gaze=tuple(shot.labels[:2].tolist()), head=tuple(shot.labels[2:4].tolist()))


def _render(person: Person, scene: Scene, view) -> ndarray:
    backdrop = np.full((view.size, view.size, 3), 0.2, np.float32)
    return develop(paint(person, scene, view, backdrop), scene, view.scale)


def photograph(person: Person, shot: Shot) -> ndarray:
    """The shot as the camera takes it, (height, width, 3) RGB uint8; beyond the head and shoulders all is grey."""
    camera, scene = shot.camera, _scene(shot)
    scale = np.diag([1, 1, np.linalg.norm(shot.centre) / DISTANCE])
    matrix = camera.matrix @ shot.to_normalized.T @ scale
    middle = matrix @ [0, 0, 1]
    side = int(1.5 * 153.6 * camera.matrix[0, 0] / np.linalg.norm(shot.centre))
    corner = np.round(middle[:2] / middle[2] - side / 2)
    moved = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]], [0, 0, 1]])
    plain = make_view(scene, side, kappa=person.identity.kappa)
    picture = _render(
        person, scene, AlignedView(side, plain.rotation, plain.gaze_directions, plain.pupil_axes, moved @ matrix)
    )
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    if camera.distortion is not None:
        pixels = cv2.undistortPoints(pixels, camera.matrix, camera.distortion, P=camera.matrix)
    x, y = (pixels[:, 0] - corner).reshape(camera.height, camera.width, 2).astype(np.float32).transpose(2, 0, 1)
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(115, 115, 115))


def patch_of(person: Person, shot: Shot, size: int = 128) -> ndarray:
    """What the normalised camera takes of the shot, (size, size, 3) RGB uint8."""
    scene = _scene(shot)
    return _render(person, scene, make_view(scene, size, kappa=person.identity.kappa))


def write_image(path: Path, rgb: ndarray, quality: int = 95) -> None:
    """JPEG or PNG, by the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
    encoded = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(rgb[..., ::-1]), options)[1]
    path.write_bytes(encoded.tobytes())


def write_landmarks(folder: Path, name: str, landmarks: ndarray) -> None:
    """A landmark file as `--landmarks DIR` reads it; name: of the sample, such as `p00/day01/0005.jpg`."""
    path = folder / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, landmarks)


def degrees_apart(a: ndarray, b: ndarray) -> ndarray:
    """(n,) angles between the directions of labels (n, 2), degrees."""
    a, b = (np.stack([pitchyaw_to_direction(*label) for label in np.asarray(labels, float)]) for labels in (a, b))
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=1) / 2, 0, 1)))


def run_converter(
    command: str, raw: Path, *more: str, out: str = "out.h5", landmarks: bool = True, code: int = 0
) -> Path:
    """`python -m preprocess COMMAND` with the landmarks beside `raw`, if asked; returns the output, beside it, too."""
    given = ["--raw", str(raw), "--out", str(raw.parent / out), "--workers", "1"]
    given += ["--landmarks", str(raw.parent / "landmarks")] if landmarks else []
    assert main([*command.split(), *given, *more]) == code
    return raw.parent / out


def assert_samples(
    found: dict[str, ndarray], shots: list[Shot], *, apart: float, angles: float, border: int, grey: float
) -> None:
    """A person's labels and patches are those of the shots.

    apart, angles: degrees between the directions of gaze and of heads, and between single labels, at most.
    grey: levels between the patches without their border, at most; with red and blue swapped they are more.
    """
    expected = np.stack([shot.labels for shot in shots])
    assert degrees_apart(found["labels"][:, :2], expected[:, :2]).max() < apart
    assert degrees_apart(found["labels"][:, 2:4], expected[:, 2:4]).max() < apart
    assert np.degrees(found["labels"]) == pytest.approx(np.degrees(expected), abs=angles)
    inside = slice(border, -border)
    for pixels, shot in zip(found["pixels"].astype(float), shots, strict=True):
        patch = patch_of(make_person(), shot).astype(float)
        assert np.abs(pixels - patch)[inside, inside].mean() < grey < np.abs(pixels[..., ::-1] - patch).mean()


def assert_same_aligned(aligned: Path, patches: Path, person: str, grey: float = 5) -> None:
    """The person's samples are in both files, and the homographies lead from the faces to the patches."""
    large, small = read_person(aligned, person), read_person(patches, person)
    assert large["name"] == small["name"]
    np.testing.assert_array_equal(large["labels"], small["labels"])
    inside = slice(16, -16)
    for face, homography, patch in zip(large["pixels"], large["homography"], small["pixels"], strict=True):
        found = cv2.warpPerspective(face, homography, (128, 128)).astype(float)
        assert np.abs(found - patch)[inside, inside].mean() < grey


def read_person(out: Path, person: str) -> dict[str, ndarray]:
    """A person's data sets, `name` as a list of strings."""
    with h5py.File(out) as file:
        found = {key: data[()] for key, data in file[person].items()}
    return found | {"name": [name.decode() for name in found["name"]]}


def left_out(out: Path) -> dict[str, int]:
    """How many were left out, by reason."""
    return json.loads(read_attributes(out)["left_out"])


def notes(out: Path) -> dict[str, int]:
    """How many samples have a note, by note."""
    return json.loads(read_attributes(out)["notes"])


def read_attributes(out: Path) -> dict:
    """Root attributes."""
    with h5py.File(out) as file:
        return dict(file.attrs)
