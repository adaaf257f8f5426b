"""ETH-XGaze, from the raw images or from the HDF5 release of patches of 448 or 224 pixels.

`python -m preprocess eth-xgaze --raw DIR --out ETH-XGaze_128.h5`; DIR holds `data` and `calibration`, or subjects'
.h5 files in it or in its `train` (see `eth_xgaze_normalized`, which reads these).

Raw: `data/annotation_train/subject0000.csv` has 149 columns an image: frame, camera, target in mm, pose of the head
and 68 landmarks, all in the frame of the image's own camera; `calibration/cam_calibration/camNN.xml` its matrix and
distortion. --updated takes `data/annotation_updated` and `avg_cams_final/subject0000`, which correct many of these.
Cameras 3, 6 and 13 hang upside down: their images are turned by 180 degrees, which is what their numbers are about.
The head's pose is the given one, turned by 6.2 degrees about x from the axes of `calibration/face_model.txt` to those
of the generic face; --pose-from-landmarks finds it anew from the given landmarks. No detector is needed.
Source: Zhang et al., ETH-XGaze, ECCV 2020, and the notes that come with the data.
"""

import argparse
import csv
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import read_bytes, read_json, read_text
from preprocess.commands import COMMANDS
from preprocess.conversion import Conversion, add_converter, check_arguments
from preprocess.datasets import eth_xgaze_normalized as normalized
from preprocess.datasets.eth_xgaze_normalized import EYES_50, TO_GENERIC
from preprocess.face_model import HeadPose, make_pose
from preprocess.face_patches import FaceCutter, LeftOut, Sample, cutter_from
from preprocess.image_files import read_image
from preprocess.normalization import undistort_image
from preprocess.person_file import DamagedPerson

NAME = "eth-xgaze"
UPSIDE_DOWN = (3, 6, 13)
NUM_CAMERAS = 18
COLUMNS = (149, 249)  # published; updated, with 50 points more
FINE = 4.0  # pixels a mm at the face that are kept at least: five times those of the patch
_SUBJECT = re.compile(r"subject\d{4}")


@dataclass(frozen=True)
class Camera:
    """matrix (3, 3), distortion (n,), pixels."""

    matrix: ndarray
    distortion: ndarray
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """A line of a subject's .csv file, in mm and in the frame of its camera."""

    frame: str
    image: str
    target: ndarray  # (3,)
    rotation: ndarray  # (3,): of the head, a rotation vector
    translation: ndarray  # (3,)
    landmarks: ndarray  # (68, 2) pixels of the image as taken, upright

    @property
    def camera(self) -> int:
        """Its number, 0 to 17."""
        return int(self.image[3:5])


def parse_row(cells: list[str]) -> Row:
    """Raises ValueError that says what is wrong with the line."""
    if len(cells) not in COLUMNS:
        raise ValueError(f"found {len(cells)} columns, expected {' or '.join(map(str, COLUMNS))}")
    frame, image = cells[0].strip(), cells[1].strip()
    if not re.fullmatch(r"frame\d+", frame) or not re.fullmatch(r"cam(0\d|1[0-7])\.(jpg|JPG)", image):
        raise ValueError(f"begins with {frame!r}, {image!r}, expected such as 'frame0000', 'cam00.JPG' to 'cam17.JPG'")
    try:
        values = np.array([float(cell) for cell in cells[2:149]])
    except ValueError as error:
        raise ValueError(f"found a field that is no number ({error})") from error
    if not np.isfinite(values[:11]).all():
        raise ValueError("found a field that is not finite")
    return Row(frame, image, values[2:5], values[5:8], values[8:11], values[11:147].reshape(68, 2))


def _read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of the lines of a .csv file that are not empty. Raises DamagedPerson."""
    try:
        for number, cells in enumerate(csv.reader(read_text(path).splitlines()), 1):
            if cells:
                yield number, cells
    except (OSError, csv.Error) as error:
        raise DamagedPerson(f"{path.name} cannot be read: {error}") from error


def read_camera(path: Path) -> Camera:
    """From an OpenCV XML file. Raises ValueError that says what is wrong with it."""
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except FileNotFoundError as error:
        raise ValueError(f"no {path.name}") from error
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:  # the last two: of its encoding
        raise ValueError(f"{path.name} cannot be read as XML: {error}") from error
    try:
        matrix, distortion = (_numbers(root, f"{name}/data") for name in ("Camera_Matrix", "Distortion_Coefficients"))
        width, height = (int(_numbers(root, name)[0]) for name in ("image_Width", "image_Height"))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    if len(matrix) != 9 or len(distortion) not in (4, 5, 8):
        raise ValueError(f"{path.name} has {len(matrix)} and {len(distortion)} numbers for a camera, expected 9 and 5")
    if not min(matrix[0], matrix[4]) > 0 or tuple(matrix[6:]) != (0, 0, 1):
        raise ValueError(f"{path.name}: Camera_Matrix {matrix.tolist()} is that of no camera")
    return Camera(matrix.reshape(3, 3), distortion, width, height)


def _numbers(root: ElementTree.Element, name: str) -> ndarray:
    text = root.findtext(name)
    if not text or not text.strip():
        raise ValueError(f"no {name}")
    values = np.array([float(cell) for cell in text.split()])
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite")
    return values


def read_eyes(path: Path) -> ndarray:
    """(3,) mm: the middle of the eyes' corners in the face model's file. Raises UserError that names it."""
    try:
        points = np.loadtxt(read_text(path).splitlines(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--raw: {path} cannot be read as 50 points in mm ({error}).", remedy="Copy it from the download again."
        ) from error
    if points.shape != (50, 3) or not np.isfinite(points).all():
        raise UserError(f"--raw: {path}: found shape {points.shape}, expected 50 points in mm (50, 3).")
    return points[list(EYES_50)].mean(axis=0)


def shrink(image: ndarray, matrix: ndarray, times: int) -> tuple[ndarray, ndarray]:
    """The image so many times smaller, and its camera matrix (3, 3); what does not fill a pixel is cut off."""
    if times <= 1:
        return image, matrix
    height, width = (length // times for length in image.shape[:2])
    small = cv2.resize(image[: height * times, : width * times], (width, height), interpolation=cv2.INTER_AREA)
    middle = (1 / times - 1) / 2  # pixels are counted by their middles
    return small, np.array([[1 / times, 0, middle], [0, 1 / times, middle], [0, 0, 1]]) @ matrix


@dataclass(frozen=True)
class XGaze:
    """Converts a subject.

    eyes: (3,) mm, the middle of the eyes' corners in the face model of the given poses.  every: take each Nth frame.
    cameras: numbers to take.  updated: take the corrected annotation.  from_landmarks: find head poses anew.
    """

    raw: Path
    cutter: FaceCutter
    eyes: tuple[float, ...]
    every: int
    cameras: tuple[int, ...]
    updated: bool
    from_landmarks: bool

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a subject, in the order of the .csv file."""
        path = annotation(self.raw, person, self.updated)
        frames: dict[str, int] = {}
        cameras: dict[int, Camera | str] = {}
        listed: set[str] = set()
        for number, cells in _read_lines(path):
            listed.add("/".join(cell.strip() for cell in cells[:2]))
            try:
                row = parse_row(cells)
            except ValueError as error:
                yield LeftOut(f"{path.name}:{number}", "line cannot be read", str(error), damaged=True)
                continue
            wanted = frames.setdefault(row.frame, len(frames)) % self.every == 0
            if wanted and row.camera in self.cameras:
                yield self._row(person, row, cameras)
        folder = self.raw / "data" / "train" / person
        for image in sorted(folder.glob("frame*/cam*.[jJ][pP][gG]")):
            if image.relative_to(folder).as_posix() not in listed:
                yield LeftOut(image.relative_to(folder.parent).as_posix(), "image without annotation")

    def _row(self, person: str, row: Row, cameras: dict[int, Camera | str]) -> Sample | LeftOut:
        name, new = f"{person}/{row.frame}/{row.image}", row.camera not in cameras
        if new:
            cameras[row.camera] = self._camera(person, row.camera)
        camera = cameras[row.camera]
        if isinstance(camera, str):
            return LeftOut(name, "camera without calibration", camera, damaged=new)
        image = read_image(self.raw / "data" / "train" / name, name)
        if isinstance(image, LeftOut):
            return image
        if image.shape[:2] != (camera.height, camera.width):
            detail = f"{image.shape[1]}x{image.shape[0]}, expected {camera.width}x{camera.height}"
            return LeftOut(name, "image is of another size than its calibration", detail, damaged=True)
        if row.camera in UPSIDE_DOWN:
            image = cv2.rotate(image, cv2.ROTATE_180)
        if self.from_landmarks:
            pose = self.cutter.pose(row.landmarks, name, camera.matrix, camera.distortion)
        else:
            pose = self.given_pose(row)
        if isinstance(pose, LeftOut):
            return pose
        if not pose.centre[2] > 0:
            return LeftOut(name, "head is behind the camera", f"{pose.centre.round(1)} mm", damaged=True)
        times = int(camera.matrix[0, 0] / np.linalg.norm(pose.centre) / FINE)
        # Taking the distortion out of all published pixels would take as long as reading them.
        image, matrix = shrink(image, camera.matrix, times)
        return self.cutter.cut(undistort_image(image, matrix, camera.distortion), name, matrix, pose, row.target)

    def _camera(self, person: str, number: int) -> Camera | str:
        """The camera's calibration, or why there is none."""
        folder = self.raw / ("avg_cams_final/" + person if self.updated else "calibration/cam_calibration")
        try:
            return read_camera(folder / f"cam{number:02d}.xml")
        except ValueError as error:
            return str(error)

    def given_pose(self, row: Row) -> HeadPose:
        """The annotated pose of the head in the axes of the generic face."""
        rotation = cv2.Rodrigues(row.rotation)[0]
        return make_pose(rotation @ TO_GENERIC.T, rotation @ self.eyes + row.translation, self.cutter.model)


def annotation(raw: Path, person: str, updated: bool) -> Path:
    """A subject's .csv file."""
    data = raw / "data"
    return data / f"annotation_updated/{person}_update.csv" if updated else data / f"annotation_train/{person}.csv"


def find_persons(raw: Path, updated: bool) -> list[str]:
    """Subjects with an annotation. Raises UserError if there are none."""
    folder = annotation(raw, "", updated).parent
    names = [path.stem.removesuffix("_update") for path in folder.glob("*.csv")] if folder.is_dir() else []
    found = sorted(name for name in names if _SUBJECT.fullmatch(name))
    if not found:
        raise UserError(
            f"--raw: {raw} holds neither {folder.relative_to(raw)}/subject0000.csv and so on nor subjects' .h5 files.",
            remedy="Name the folder of the download that holds them.",
        )
    return found


def read_split(raw: Path, persons: list[str]) -> Mapping[str, list[str]]:
    """Part -> subjects by train_test_split.json; without this file all are 'train'. Raises UserError.

    The release has it beside its folder `train`, which may be `raw`.
    """
    path = raw / "train_test_split.json"
    if not path.is_file() and raw.resolve().name == "train":
        path = raw.resolve().parent / path.name
    if not path.is_file():
        return {"train": persons}
    try:
        return {part: [Path(name).stem for name in names] for part, names in read_json(path).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} is no split such as {{'train': ['subject0000.h5', ...]}} ({error}).",
            remedy="Copy it from the download again.",
        ) from error


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `eth-xgaze` to `python -m preprocess`."""
    parser = add_converter(
        subparsers,
        NAME,
        COMMANDS[NAME].help,
        f"{__doc__}\n{normalized.__doc__}",
        conversion_from,
    )
    parser.add_argument(
        "--cameras", type=int, nargs="+", metavar="N", default=list(range(NUM_CAMERAS)), help="0 to 17; default: all"
    )
    parser.add_argument("--updated", action="store_true", help="raw: the corrected annotation and calibration")
    parser.add_argument("--pose-from-landmarks", action="store_true", help="raw: head poses from given landmarks")


def conversion_from(arguments: argparse.Namespace) -> Conversion:
    """What the options of `add_parser` ask for. Raises UserError for what cannot be."""
    check_arguments(arguments)
    if arguments.landmarks:
        raise UserError("--landmarks: this data set brings its head poses and its landmarks; leave it out.")
    wrong = [number for number in arguments.cameras if not 0 <= number < NUM_CAMERAS]
    if wrong:
        raise UserError(f"--cameras: found {wrong[0]}, expected 0 to {NUM_CAMERAS - 1}.")
    raw, cutter = arguments.raw, cutter_from(arguments)
    cameras = tuple(sorted(set(arguments.cameras)))
    own = {"frames_every": arguments.frames_every, "cameras": cameras}
    folder, persons = normalized.find_persons(raw)
    if persons:
        limits = (cutter.max_pose_error, cutter.min_coverage) != (FaceCutter.max_pose_error, FaceCutter.min_coverage)
        if arguments.updated or arguments.pose_from_landmarks or limits:
            raise UserError(
                "--updated, --pose-from-landmarks, --max-pose-error and --min-coverage are for the raw images; --raw "
                "has patches.",
                remedy="Leave them out, or name the folder of the raw images.",
            )
        options = {key: value for key, value in cutter.options().items() if key in ("face_model", "view")}
        convert = normalized.NormalizedXGaze(folder, cutter.model, cutter.view, arguments.frames_every, cameras)
        split = read_split(raw, persons)
        return Conversion(
            "ETH-XGaze", persons, convert, {**options, **own, "release": "normalized"}, normalized.FACTS, split
        )
    persons = find_persons(raw, arguments.updated)
    eyes = tuple(read_eyes(raw / "calibration" / "face_model.txt").tolist())
    pose = "from the given landmarks" if arguments.pose_from_landmarks else "given, in the axes of the generic face"
    own |= {"release": "updated" if arguments.updated else "raw", "landmarks": "given", "head_pose": pose}
    flags = arguments.frames_every, cameras, arguments.updated, arguments.pose_from_landmarks
    return Conversion(
        dataset="ETH-XGaze",
        persons=persons,
        convert=XGaze(raw, cutter, eyes, *flags),
        options={**cutter.options(), **own},
        facts={"intrinsics": "calibrated", "distortion": "calibrated, removed", "head_pose": pose},
        split=read_split(raw, persons),
    )
