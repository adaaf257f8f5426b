"""GazeCapture from its official tree: `python -m preprocess gazecapture --raw DIR --out GazeCapture_128.h5`.

A folder a recording, `00002/frames/00000.jpg` and JSON files whose arrays run parallel to frames.json; a recording is
a person. Beside the output, gazecapture_split.json takes train, val and test from each recording's info.json.

Target: dotInfo.json gives it in cm from the camera, right and up as the user sees the screen; frames are not mirrored,
so it is (-10 XCam, -10 YCam, 0) mm in the camera's frame, whatever the orientation of the device.
Intrinsics are not published. The focal length is taken as 600 pixels for frames of 640, which is what phones of these
years report about their cameras; a wrong one scales the distance of the face (10% are up to 3 degrees of gaze) and
not the patch. --focal-lengths takes better ones by device. Distortion is taken as none.
Frames are taken to be stored upright for the orientation of the device; those that are not are left out.
Source: Krafka et al., CVPR 2016, and the notes that come with the data.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from tqdm import tqdm

from core.command import UserError
from core.files import read_json
from preprocess.commands import COMMANDS
from preprocess.conversion import Conversion, add_converter, check_arguments
from preprocess.face_patches import (
    FaceCutter,
    LeftOut,
    Sample,
    cutter_from,
)
from preprocess.image_files import read_image
from preprocess.person_file import DamagedPerson

NAME = "gazecapture"
SPLIT_FILE = "gazecapture_split.json"
PARTS = ("train", "val", "test")
FOCAL = 600 / 640  # of the frame's longer side
_LARGEST = 1e9  # of any number in the data: JSON has integers that no float holds
MAX_ROLL = np.deg2rad(45.0)
DEVICES = (
    *("iPhone 4S", "iPhone 5", "iPhone 5C", "iPhone 5S", "iPhone 6", "iPhone 6 Plus", "iPhone 6s", "iPhone 6s Plus"),
    *("iPad 2", "iPad 3", "iPad 4", "iPad Air", "iPad Air 2", "iPad Mini", "iPad Pro"),
)
_FOUND = {"appleFace": "face", "appleLeftEye": "left eye", "appleRightEye": "right eye", "faceGrid": "face grid"}
_COLUMNS = {
    **{name: ("IsValid",) for name in _FOUND},
    "appleFace": ("X", "Y", "W", "H", "IsValid"),
    "dotInfo": ("XCam", "YCam", "Time"),
    "screen": ("Orientation",),
}


def intrinsics(width: int, height: int, focal: float | None = None) -> ndarray:
    """Camera matrix (3, 3) of frames of this size. focal: pixels for a longer side of 640; None for the assumed one."""
    pixels = max(width, height) * (FOCAL if focal is None else focal / 640)
    return np.array([[pixels, 0, width / 2 - 0.5], [0, pixels, height / 2 - 0.5], [0, 0, 1]])


def target_mm(x_cam: float, y_cam: float) -> ndarray:
    """(3,) mm in the camera's frame, of a dot in cm from the camera as the user sees it, right and up."""
    return np.array([-10 * x_cam, -10 * y_cam, 0.0])


@dataclass(frozen=True)
class GazeCapture:
    """Converts a recording.

    every: take each Nth frame.  settle: seconds since the dot appeared that are left out, for the eyes to get there.
    focal_lengths: pixels for a longer side of 640, by device, in lower case.
    """

    raw: Path
    cutter: FaceCutter
    every: int
    settle: float
    focal_lengths: Mapping[str, float]

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a recording, in the order of frames.json."""
        frames, table, device = _read_recording(self.raw / person)
        for i in range(0, len(frames), self.every):
            yield self._frame(person, frames[i], {column: values[i] for column, values in table.items()}, device)

    def _frame(self, person: str, frame: str, row: Mapping[str, Any], device: str) -> Sample | LeftOut:
        name = f"{person}/frames/{frame}"
        missing = [what for file, what in _FOUND.items() if row[f"{file}.IsValid"] != 1]
        if missing:
            return LeftOut(name, "face or eyes not found by the device", ", ".join(missing))
        if row["dotInfo.Time"] < self.settle:
            return LeftOut(name, "dot appeared just before", f"{row['dotInfo.Time']:.2f} s")
        image = read_image(self.raw / name, name)
        if isinstance(image, LeftOut):
            return image
        height, width = image.shape[:2]
        if (width < height) != (row["screen.Orientation"] in (1, 2)):
            detail = f"{width}x{height}, orientation {row['screen.Orientation']}"
            return LeftOut(name, "frame is not upright for the device's orientation", detail)
        camera_matrix = intrinsics(width, height, self.focal_lengths.get(device.lower()))
        pose = self.cutter.find_pose(image, name, camera_matrix)
        if isinstance(pose, LeftOut):
            return pose
        if abs(pose.roll) > MAX_ROLL:
            return LeftOut(name, "face is not upright", f"turned by {np.degrees(pose.roll):.0f} degrees")
        between = camera_matrix @ pose.eyes.mean(axis=0)
        if not _in_box(between[:2] / between[2], *(row[f"appleFace.{key}"] for key in "XYWH")):
            return LeftOut(name, "face found is not the one that the device found")
        return self.cutter.cut(image, name, camera_matrix, pose, target_mm(row["dotInfo.XCam"], row["dotInfo.YCam"]))


def _in_box(point: ndarray, x: float, y: float, width: float, height: float, margin: float = 0.25) -> bool:
    """Whether a point (2,) is in a box made wider on all sides by a part of its size."""
    low = np.array([x - margin * width, y - margin * height])
    return bool(((point >= low) & (point <= low + (1 + 2 * margin) * np.array([width, height]))).all())


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise DamagedPerson(f"no {path.name}") from error
    except (OSError, ValueError) as error:
        raise DamagedPerson(f"{path.name} cannot be read: {error}") from error


def _read_recording(folder: Path) -> tuple[list[str], dict[str, list], str]:
    """Names of the frames, `file.column` -> values in their order, and the device. Raises DamagedPerson."""
    frames, info = _read_json(folder / "frames.json"), _read_json(folder / "info.json")
    if not isinstance(frames, list) or not all(isinstance(frame, str) for frame in frames):
        raise DamagedPerson("frames.json is not a list of file names")
    if not isinstance(info, dict) or info.get("Dataset") not in PARTS:
        found = info.get("Dataset") if isinstance(info, dict) else info
        raise DamagedPerson(f"info.json has Dataset {found!r}, expected one of {', '.join(PARTS)}")
    table: dict[str, list] = {}
    problems = []
    for file, columns in _COLUMNS.items():
        content = _read_json(folder / f"{file}.json")
        for column in columns:
            values = content.get(column) if isinstance(content, dict) else None
            if not isinstance(values, list) or len(values) != len(frames):
                found = f"{len(values)} values" if isinstance(values, list) else "no list"
                problems.append(f"{file}.json: {column} has {found}, expected {len(frames)} as in frames.json")
            elif not all(isinstance(value, int | float) and not abs(value) > _LARGEST for value in values):
                problems.append(f"{file}.json: {column} has values that are not numbers")
            else:
                table[f"{file}.{column}"] = values
    if problems:
        raise DamagedPerson("; ".join(problems))
    return frames, table, str(info.get("DeviceName", ""))


def find_persons(raw: Path) -> list[str]:
    """Recordings under `raw`, as published: five digits; says which are still packed.

    Raises UserError if there are none.
    """
    found = sorted(path.name for path in raw.iterdir() if path.is_dir() and re.fullmatch(r"\d{5}", path.name))
    packed = sorted({path.name[:5] for path in raw.glob(f"{'[0-9]' * 5}.tar.gz")} - set(found))
    if found and packed:
        some = ", ".join(packed[:3]) + ", ..." * (len(packed) > 3)
        tqdm.write(f"--raw: {len(packed)} recordings are left aside because they are still packed: {some}")
    if not found:
        raise UserError(
            f"--raw: {raw} holds no recordings, expected folders such as 00002 with frames/ and info.json. "
            "Unpack the .tar.gz files and name the folder that they are in."
        )
    return found


def read_split(raw: Path, persons: list[str]) -> dict[str, list[str]]:
    """Part -> persons, by the recordings' info.json; those without one are in none."""
    split: dict[str, list[str]] = {part: [] for part in PARTS}
    for person in tqdm(persons, "reading the split", unit="person", leave=False, disable=None):
        try:
            part = _read_json(raw / person / "info.json")["Dataset"]
            split[part].append(person)
        except (DamagedPerson, KeyError, TypeError):
            continue  # the conversion of this person says so
    return split


def read_focal_lengths(path: Path | None) -> dict[str, float]:
    """Focal lengths by device, in lower case, from a JSON file {"iPhone 6": 610, ...}. Raises UserError."""
    if path is None:
        return {}
    try:
        found = read_json(path)
        lengths = {str(device).lower(): float(pixels) for device, pixels in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise UserError(
            f'--focal-lengths: {path} is no JSON file such as {{"iPhone 6": 610}} ({error}).', remedy="Write it so."
        ) from error
    known = {device.lower() for device in DEVICES}
    problems = [f"{device!r} is no device of the data" for device in lengths if device not in known]
    problems += [f"{device!r} has {pixels:g}" for device, pixels in lengths.items() if not 300 < pixels < 1500]
    if problems:
        raise UserError(
            f"--focal-lengths: {path}: {'; '.join(problems)}. Expected pixels for frames of 640, 300 to 1500, for "
            f"{', '.join(DEVICES)}."
        )
    return lengths


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `gazecapture` to `python -m preprocess`."""
    parser = add_converter(subparsers, NAME, COMMANDS[NAME].help, __doc__, conversion_from)
    parser.add_argument(
        "--settle",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="leave out frames taken sooner than this after the dot appeared (%(default)s, as published)",
    )
    parser.add_argument(
        "--focal-lengths", type=Path, metavar="JSON", help="focal length by device, pixels for frames of 640"
    )


def conversion_from(arguments: argparse.Namespace) -> Conversion:
    """What the options of `add_parser` ask for. Raises UserError for what cannot be."""
    check_arguments(arguments)
    lengths = read_focal_lengths(arguments.focal_lengths)
    cutter = cutter_from(arguments)
    persons = find_persons(arguments.raw)
    cutter.check()
    assumed = f"assumed: {FOCAL * 640:g} pixels for frames of 640" + (", given for some devices" if lengths else "")
    own = {"frames_every": arguments.frames_every, "settle": arguments.settle, "focal_lengths": lengths}
    return Conversion(
        dataset="GazeCapture",
        persons=persons,
        convert=GazeCapture(arguments.raw, cutter, arguments.frames_every, arguments.settle, lengths),
        options={**cutter.options(), **own},
        facts={"intrinsics": assumed, "distortion": "assumed: none", "head_pose": "from landmarks"},
        split=read_split(arguments.raw, persons),
        split_file=SPLIT_FILE,
    )
