"""MPIIFaceGaze, from the raw images or from the normalised .mat release.

`python -m preprocess mpiifacegaze --raw DIR --out MPIIFaceGaze_128.h5`; DIR holds p00 ... p14, or p00.mat ... p14.mat
(see `mpiifacegaze_normalized`, which reads these).

Raw: `pXX/pXX.txt` has a line of 28 fields an image, of which the six landmarks, the face centre and the target in mm
in the camera's frame are used; `pXX/Calibration/Camera.mat` has intrinsics and distortion. The head's pose comes from
landmarks that are detected, or given by --landmarks, because that of the data set is in the axes of another face model.
Where this finds no face (part of the image is blacked out), or one more than 50 mm from the annotated face centre,
the six landmarks of the data set serve; --given-landmarks takes these alone and needs no detector.
The target is checked against the point on the screen by monitorPose.mat and screenSize.mat; a person without them is
named.
Source: Zhang et al., "It's written all over your face", CVPRW 2017, and the notes that come with the data.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import read_text
from preprocess.commands import COMMANDS
from preprocess.conversion import Conversion, add_converter, check_arguments
from preprocess.datasets import mpiifacegaze_normalized as normalized
from preprocess.datasets.matlab import read_numbers
from preprocess.face_model import EYE_CORNERS, HeadPose
from preprocess.face_patches import FaceCutter, LeftOut, Sample, cutter_from
from preprocess.image_files import read_image
from preprocess.normalization import undistort_image
from preprocess.person_file import DamagedPerson

NAME = "mpiifacegaze"
NUM_FIELDS = 28
GIVEN = (*EYE_CORNERS, 48, 54)  # the six landmarks of the data set, in its order
MAX_APART = 50.0  # mm between our face centre and the annotated one: further off, it is another face
MAX_OFF_SCREEN = 20.0  # mm between the annotated target and that of the point on the screen


@dataclass(frozen=True)
class Calibration:
    """A person's laptop: camera matrix (3, 3), distortion, and the screen's pixels -> mm in the camera's frame."""

    matrix: ndarray
    distortion: ndarray
    screen: ndarray | None  # (3, 3), of (x pixels, y pixels, 1); None if it is not known
    problem: str  # why it is not

    def on_screen(self, point: ndarray) -> ndarray | None:
        """(3,) mm in the camera's frame of a point (2,) in pixels of the screen."""
        return None if self.screen is None else self.screen @ [*point, 1.0]


@dataclass(frozen=True)
class Row:
    """A line of pXX.txt."""

    image: str
    screen_point: ndarray  # (2,) pixels
    landmarks: ndarray  # (68, 2) pixels of the image as taken, NaN but for GIVEN
    centre: ndarray  # (3,) mm, of the face, by the six-point model
    target: ndarray  # (3,) mm, camera frame


def parse_row(line: str) -> Row:
    """Raises ValueError that says what is wrong with the line."""
    cells = line.split()
    if len(cells) != NUM_FIELDS:
        raise ValueError(f"found {len(cells)} fields, expected {NUM_FIELDS}")
    try:
        values = np.array([float(cell) for cell in cells[1:27]])
    except ValueError as error:
        raise ValueError(f"found a field that is no number ({error})") from error
    if not np.isfinite(values).all():
        raise ValueError("found a field that is not finite")
    landmarks = np.full((68, 2), np.nan)
    landmarks[list(GIVEN)] = values[2:14].reshape(6, 2)
    return Row(cells[0], values[:2], landmarks, values[20:23], values[23:26])


def read_calibration(folder: Path) -> Calibration:
    """From a person's Calibration folder. Raises DamagedPerson if the camera's cannot be used."""
    matrix, distortion = _load_mat(folder / "Camera.mat", {"cameraMatrix": (9,), "distCoeffs": (4, 5, 8, 12, 14)})
    matrix = matrix.reshape(3, 3)
    if not min(matrix[0, 0], matrix[1, 1]) > 0 or tuple(matrix[2]) != (0, 0, 1):
        raise DamagedPerson(f"Camera.mat: cameraMatrix {matrix.tolist()} is that of no camera")
    try:
        return Calibration(matrix, distortion, _read_screen(folder), "")
    except DamagedPerson as error:  # it only serves as a check
        return Calibration(matrix, distortion, None, str(error))


def _read_screen(folder: Path) -> ndarray:
    """See Calibration. Raises DamagedPerson."""
    turn, move = _load_mat(folder / "monitorPose.mat", {"rvects or rvecs": (3,), "tvecs": (3,)})
    names = ("width_mm", "width_pixel", "height_mm", "height_pixel")
    sizes = np.concatenate(_load_mat(folder / "screenSize.mat", dict.fromkeys(names, (1,))))
    if not sizes.min() > 0:
        raise DamagedPerson(f"screenSize.mat: {', '.join(names)} are {sizes.tolist()}, expected to be above 0")
    scale = np.diag([sizes[0] / sizes[1], sizes[2] / sizes[3], 1.0])
    return np.column_stack([cv2.Rodrigues(turn)[0][:, :2], move]) @ scale


def _load_mat(path: Path, expected: dict[str, tuple[int, ...]]) -> list[ndarray]:
    """Arrays (n,). expected: their names, 'a or b' where the publication has both -> how many numbers there may be."""
    if not path.is_file():
        raise DamagedPerson(f"no {path.parent.name}/{path.name}")
    try:
        found, arrays = read_numbers(path), []
        for names in expected:
            name = next(name for name in names.split(" or ") if name in found)
            arrays.append(found[name])
    except StopIteration as error:
        raise DamagedPerson(f"{path.parent.name}/{path.name} has no {names}") from error
    except (OSError, ValueError) as error:
        raise DamagedPerson(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    for (names, counts), array in zip(expected.items(), arrays, strict=True):
        if array.size not in counts or not np.isfinite(array).all():
            numbers = " or ".join(map(str, counts))
            raise DamagedPerson(f"{path.name}: {names} is {array.shape} or not finite, expected {numbers} numbers")
    return [array.ravel() for array in arrays]


@dataclass(frozen=True)
class MPIIFaceGaze:
    """Converts a person. given: use the data set's own landmarks only.  every: take each Nth line."""

    raw: Path
    cutter: FaceCutter
    every: int
    given: bool

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a person, in the order of the text file."""
        folder = self.raw / person
        text, calibration = folder / f"{person}.txt", read_calibration(folder / "Calibration")
        try:
            lines = read_text(text).splitlines()
        except (OSError, ValueError) as error:
            raise DamagedPerson(f"{text.name} cannot be read: {error}") from error
        if calibration.problem:
            reason = "screen calibration cannot be used, targets are not checked"
            yield LeftOut(person, reason, calibration.problem, damaged=True)
        listed = set()
        for number, line in enumerate(lines, 1):
            listed.update(line.split()[:1])
            if line.strip() and (number - 1) % self.every == 0:
                yield self._line(person, f"{person}/{text.name}:{number}", line, calibration)
        for path in sorted(folder.glob("day*/*.jpg")):
            if path.relative_to(folder).as_posix() not in listed:
                yield LeftOut(path.relative_to(self.raw).as_posix(), "image without annotation")

    def _line(self, person: str, where: str, line: str, calibration: Calibration) -> Sample | LeftOut:
        try:
            row = parse_row(line)
        except ValueError as error:
            return LeftOut(where, "line cannot be read", str(error), damaged=True)
        name = f"{person}/{row.image}"
        expected = calibration.on_screen(row.screen_point)
        if expected is not None and np.linalg.norm(row.target - expected) > MAX_OFF_SCREEN:
            apart = f"{np.linalg.norm(row.target - expected):.0f} mm apart"
            return LeftOut(name, "target is not at the point on the screen", apart, damaged=True)
        image = read_image(self.raw / name, name)
        if isinstance(image, LeftOut):
            return image
        pose, note = self._pose(image, name, row, calibration)
        if isinstance(pose, LeftOut):
            return pose
        image = undistort_image(image, calibration.matrix, calibration.distortion)
        return self.cutter.cut(image, name, calibration.matrix, pose, row.target, note)

    def _pose(self, image: ndarray, name: str, row: Row, calibration: Calibration) -> tuple[HeadPose | LeftOut, str]:
        """The head's pose, and a note if it comes from the six landmarks though it was not asked to."""
        camera, note = (calibration.matrix, calibration.distortion), ""
        if not self.given:
            pose = self.cutter.find_pose(image, name, *camera)
            if isinstance(pose, HeadPose) and np.linalg.norm(pose.centre - row.centre) < MAX_APART:
                return pose, ""
            if isinstance(pose, LeftOut) and pose.damaged:
                return pose, ""
            why = pose.reason if isinstance(pose, LeftOut) else "face found is not the annotated one"
            note = f"head pose from the data set's six landmarks: {why}"
        return self.cutter.pose(row.landmarks, name, *camera, use=GIVEN), note


def find_persons(raw: Path) -> tuple[Path, list[str]]:
    """The folder that the persons are in, `raw` or its Data, and who is there. Raises UserError."""
    for folder in (raw, raw / "Data", raw / "MPIIFaceGaze"):
        found = _persons_in(folder)
        if found:
            return folder, found
    if _shows_eyes(raw) or any((raw / part).is_dir() for part in ("Data/Original", "Original", "Evaluation Subset")):
        raise UserError(
            f"--raw: {raw}: This is MPIIGaze, whose images show the eyes alone: faces are in MPIIFaceGaze.",
            remedy="Name the folder of that.",
        )
    around = (raw.resolve().parent, *sorted(path for path in raw.iterdir() if path.is_dir()))
    near = [folder for folder in around if _persons_in(folder) or normalized.find_persons(folder)]
    raise UserError(
        f"--raw: {raw} holds neither folders p00 ... p14 nor files p00.mat ... p14.mat. Name the folder that holds "
        f"p00{f': {near[0]}' if near else ''}."
    )


def _persons_in(folder: Path) -> list[str]:
    """Persons' folders, unless they are those of MPIIGaze."""
    return [] if _shows_eyes(folder) else sorted(path.name for path in folder.glob("p[0-9][0-9]") if path.is_dir())


def _shows_eyes(folder: Path) -> bool:
    """Whether these are the persons of MPIIGaze, its Original or its Normalized."""
    return any(any(folder.glob(f"p[0-9][0-9]/day{part}")) for part in ("*/annotation.txt", "*.mat"))


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `mpiifacegaze` to `python -m preprocess`."""
    parser = add_converter(
        subparsers,
        NAME,
        COMMANDS[NAME].help,
        f"{__doc__}\n{normalized.__doc__}",
        conversion_from,
    )
    parser.add_argument("--given-landmarks", action="store_true", help="use the data set's own six landmarks only")
    normalized.add_arguments(parser)


def conversion_from(arguments: argparse.Namespace) -> Conversion:
    """What the options of `add_parser` ask for. Raises UserError for what cannot be."""
    check_arguments(arguments)
    if normalized.find_persons(arguments.raw):
        return normalized.conversion_from(arguments)
    if arguments.field is not None or arguments.opposite_gaze:
        raise UserError(
            "--field and --opposite-gaze are for the normalised .mat files; --raw has images.", remedy="Leave them out."
        )
    raw, persons = find_persons(arguments.raw)
    cutter = cutter_from(arguments)
    if not arguments.given_landmarks:
        cutter.check()
    landmarks = {"landmarks": "given"} if arguments.given_landmarks else {}
    return Conversion(
        dataset="MPIIFaceGaze",
        persons=persons,
        convert=MPIIFaceGaze(raw, cutter, arguments.frames_every, arguments.given_landmarks),
        options={**cutter.options(), **landmarks, "frames_every": arguments.frames_every, "release": "raw"},
        facts={"intrinsics": "calibrated", "distortion": "calibrated, removed", "head_pose": "from landmarks"},
        split={"test": persons},
    )
