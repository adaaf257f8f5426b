"""Columbia Gaze from its official tree: `python -m preprocess columbia --raw DIR --out Columbia_128.h5`.

A folder a person, `0001/0001_2m_-15P_10V_-5H.jpg`: the head is turned by P, the target is V up and H to the side, all
in degrees and all seen from the camera, so that 0V 0H looks into it whatever the head does. Taken here: V > 0 is up,
H > 0 and P > 0 are towards image right. The data's own page does not say so; three independent readers agree. The
head's pose comes from landmarks, and an image whose head is not turned as its name says is left out.

Target: 2.5 m from the eyes, where the wall was; half a metre more or less changes the gaze by less than 0.2 degrees.
Intrinsics: the focal length in EXIF and the 22.3 mm wide sensor of the camera, a Canon EOS Rebel T3i; 85 mm is taken
where EXIF says nothing. The face must come out about 2 m away, else the samples are noted. Distortion is taken as none.
Source: Smith et al., "Gaze Locking", UIST 2013, and the names of the files.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from core.command import UserError
from preprocess.commands import COMMANDS
from preprocess.conversion import Conversion, add_converter, check_arguments
from preprocess.face_model import HeadPose
from preprocess.face_patches import FaceCutter, LeftOut, Sample, cutter_from
from preprocess.image_files import FOCAL_MM, read_exif, read_image
from preprocess.normalization import label_to_vector, vector_to_label

NAME = "columbia"
PATTERN = re.compile(r"(\d{4})_2m_(-?\d+)P_(-?\d+)V_(-?\d+)H\.jpg", re.IGNORECASE)
HEADS, PITCHES, SIDES = (-30, -15, 0, 15, 30), (-10, 0, 10), (-15, -10, -5, 0, 5, 10, 15)
IMAGES = len(HEADS) * len(PITCHES) * len(SIDES)  # of a person
WALL = 2500.0  # mm from the eyes to the target
SENSOR_WIDTH, USUAL_FOCAL, ASPECT = 22.3, 85.0, 3 / 2  # mm, mm, width by height
NEAR, FAR = 1500.0, 2600.0  # mm, where a face 2 m away may come out: people's faces differ in size
MAX_TURN_OFF = 20.0  # degrees between the head's turn and what the file's name says


@dataclass(frozen=True)
class Name:
    """What a file's name says. head, pitch, side: P, V and H, degrees."""

    file: str
    person: str
    head: int
    pitch: int
    side: int

    @property
    def order(self) -> tuple[int, int, int]:
        """By head, then pitch, then side."""
        return self.head, self.pitch, self.side


def parse_name(file: str) -> Name:
    """Raises ValueError that says what is wrong with the name."""
    match = PATTERN.fullmatch(file)
    if match is None:
        raise ValueError("expected a name like 0001_2m_-15P_10V_-5H.jpg")
    head, pitch, side = (int(number) for number in match.groups()[1:])
    for letter, value, known in (("P", head, HEADS), ("V", pitch, PITCHES), ("H", side, SIDES)):
        if value not in known:
            raise ValueError(f"found {value}{letter}, expected one of {', '.join(map(str, known))}")
    return Name(file, match[1], head, pitch, side)


def seen_from_camera(point: ndarray) -> ndarray:
    """Axes (3, 3), in columns, of one who looks from the camera to a point (3,): right, down, forward."""
    forward = point / np.linalg.norm(point)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    return np.column_stack([right, np.cross(forward, right), forward])


def target_mm(eyes: ndarray, pitch_deg: float, side_deg: float) -> ndarray:
    """(3,) mm in the camera's frame, of what somebody looks at. eyes: (3,) mm, their middle; angles: V and H."""
    return eyes - WALL * seen_from_camera(eyes) @ label_to_vector(np.deg2rad([pitch_deg, -side_deg]))


def head_turn(pose: HeadPose) -> float:
    """The head's yaw as P counts it, towards image right, degrees."""
    into = seen_from_camera(pose.centre).T @ pose.rotation[:, 2]
    return float(-np.degrees(vector_to_label(into)[1]))


def read_focal_mm(path: Path) -> float | None:
    """Focal length by EXIF, mm; None where it says none."""
    [focal] = read_exif(path, FOCAL_MM)
    return focal if 10 <= focal <= 300 else None


def intrinsics(width: int, height: int, focal_mm: float) -> ndarray:
    """Camera matrix (3, 3) of whole photographs of this size."""
    focal = focal_mm * width / SENSOR_WIDTH
    return np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])


@dataclass(frozen=True)
class Columbia:
    """Converts a person. every: take each Nth image, by head, pitch and side."""

    raw: Path
    cutter: FaceCutter
    every: int

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a person, by head, pitch and side."""
        names, problems = list_images(self.raw / person)
        yield from problems
        if names and len(names) < IMAGES:
            yield LeftOut(person, "images of the person are missing", f"{len(names)} of {IMAGES} found", damaged=True)
        yield from map(self._image, names[:: self.every])

    def _image(self, parsed: Name) -> Sample | LeftOut:
        name = f"{parsed.person}/{parsed.file}"
        image = read_image(self.raw / name, name)
        if isinstance(image, LeftOut):
            return image
        height, width = image.shape[:2]
        if abs(width / height / ASPECT - 1) > 0.01:
            detail = f"{width}x{height}, expected the shape of 5184x3456"
            return LeftOut(name, "not the whole photograph", detail, damaged=True)
        focal = read_focal_mm(self.raw / name)
        note = "" if focal else f"no focal length in EXIF, taken as {USUAL_FOCAL:g} mm"
        camera_matrix = intrinsics(width, height, focal or USUAL_FOCAL)
        pose = self.cutter.find_pose(image, name, camera_matrix)
        if isinstance(pose, LeftOut):
            return pose
        if abs(head_turn(pose) - parsed.head) > MAX_TURN_OFF:
            detail = f"found {head_turn(pose):.0f} degrees"
            return LeftOut(name, "head is not turned as the file's name says", detail)
        if not NEAR < np.linalg.norm(pose.centre) < FAR:
            note = "face is not about 2 m away: the focal length may be another"
        target = target_mm(pose.eyes.mean(axis=0), parsed.pitch, parsed.side)
        return self.cutter.cut(image, name, camera_matrix, pose, target, note)


def list_images(folder: Path) -> tuple[list[Name], list[LeftOut]]:
    """What a person's folder has, in order, and images whose names say nothing."""
    names, problems = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() != ".jpg":
            continue
        try:
            name = parse_name(path.name)
            if name.person != folder.name:
                raise ValueError(f"it is in the folder of {folder.name}")
            names.append(name)
        except ValueError as error:
            where = f"{folder.name}/{path.name}"
            problems.append(LeftOut(where, "name of the file cannot be understood", str(error), damaged=True))
    return sorted(names, key=lambda name: name.order), problems


def find_persons(raw: Path) -> tuple[Path, list[str]]:
    """The folder that the persons are in, and who is there. Raises UserError."""
    for folder in (raw, raw / "Columbia Gaze Data Set"):
        if folder.is_dir():
            found = sorted(
                path.name for path in folder.iterdir() if re.fullmatch(r"\d{4}", path.name) and path.is_dir()
            )
            if found:
                return folder, found
    raise UserError(
        f"--raw: {raw} holds no persons, expected folders 0001 ... 0056 with images such as 0001_2m_-15P_10V_-5H.jpg, "
        "or 'Columbia Gaze Data Set' with these."
    )


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `columbia` to `python -m preprocess`."""
    add_converter(subparsers, NAME, COMMANDS[NAME].help, __doc__, conversion_from)


def conversion_from(arguments: argparse.Namespace) -> Conversion:
    """What the options of `add_parser` ask for. Raises UserError for what cannot be."""
    check_arguments(arguments)
    cutter = cutter_from(arguments)
    raw, persons = find_persons(arguments.raw)
    cutter.check()
    return Conversion(
        dataset="Columbia",
        persons=persons,
        convert=Columbia(raw, cutter, arguments.frames_every),
        options={**cutter.options(), "frames_every": arguments.frames_every},
        facts={
            "intrinsics": f"focal length from EXIF, else {USUAL_FOCAL:g} mm; sensor {SENSOR_WIDTH:g} mm wide",
            "distortion": "assumed: none",
            "head_pose": "from landmarks",
            "gaze": f"angles in the file names, target {WALL:g} mm from the eyes",
        },
        split={"test": persons},
    )
