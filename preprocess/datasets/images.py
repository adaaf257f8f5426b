"""`python -m preprocess images DIR --out FILE.h5`: a folder of one's own photographs -> normalised patches.

Each folder in DIR is a person; photographs in DIR itself are one person, named as DIR. With --each every photograph
is a person of its own. Of several faces in a photograph the largest is taken and the others are counted; --faces all
takes them, too, the second face of NAME as NAME#2. Faces are found from 40 pixels up, unless they are seen from the
side. Transparent parts of a picture show mid grey.

Nobody knows where the people look. The head's pose comes from landmarks, and all gaze labels repeat it: the root
attribute `gaze_known` is False. Such a file serves to redirect faces, where gaze and head are estimated from the
image; it must not be trained on or evaluated with. Besides `name`, a person's group has what it takes to put a changed
patch back: `image_to_patch` (N, 3, 3), pixels of the upright photograph to those of the patch, and `image_shape`
(N, 2), height and width.

Camera: --focal, else what EXIF says, else as many pixels as the photograph is long (a field of view of 53 degrees). A
wrong one changes distance and, a little, the head's pose. Distortion is taken as none.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from tqdm import tqdm

from core.command import UserError
from preprocess.commands import COMMANDS
from preprocess.conversion import Conversion, run_arguments
from preprocess.face_patches import FaceCutter, LeftOut, Sample, add_face_arguments, cutter_from
from preprocess.image_files import FOCAL_35MM, ORIENTATION, read_exif, read_image
from preprocess.landmarks import landmark_file
from preprocess.normalization import normalizing_rotation, warp_matrix

NAME = "images"
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
UNREADABLE = (".heic", ".heif", ".avif")
SMALLER = "smaller face of a photograph, see --faces all"
FILM_DIAGONAL = float(np.hypot(36, 24))  # mm, to which EXIF's equivalent focal length belongs
_TURNS = {  # EXIF orientation -> (transposed first, then flipped as OpenCV counts)
    2: (False, 1), 3: (False, -1), 4: (False, 0), 5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0),
}  # fmt: skip


def upright(image: ndarray, orientation: int) -> ndarray:
    """An image as it is stored, turned as EXIF's orientation (1 to 8) says."""
    transposed, flipped = _TURNS.get(orientation, (False, None))
    image = cv2.transpose(image) if transposed else image
    return image if flipped is None else cv2.flip(image, flipped)


def photo_camera(shape: tuple[int, ...], focal: float | None, film: float) -> tuple[ndarray, str]:
    """Camera matrix (3, 3) of a photograph (height, width, ...), and where its focal length is from.

    focal: pixels, if known.  film: mm as on 35 mm film; 0 if not known.
    """
    height, width = shape[:2]
    if focal is not None:
        pixels, source = focal, ""
    elif film > 0:
        pixels, source = film / FILM_DIAGONAL * float(np.hypot(height, width)), "focal length from EXIF"
    else:
        pixels, source = float(max(height, width)), "focal length assumed"
    return np.array([[pixels, 0, width / 2 - 0.5], [0, pixels, height / 2 - 0.5], [0, 0, 1]]), source


def open_photograph(folder: Path, name: str) -> tuple[ndarray, float] | LeftOut:
    """The upright image, RGB uint8, and its focal length in mm as on 35 mm film, 0 if not known."""
    path = folder / name
    if path.suffix.lower() in UNREADABLE:
        return LeftOut(name, "format cannot be read", "save it as JPEG or PNG", damaged=True)
    image = read_image(path, name)
    if isinstance(image, LeftOut):
        return image
    orientation, film = read_exif(path, ORIENTATION, FOCAL_35MM)
    return upright(image, int(orientation)), film


@dataclass(frozen=True)
class Photographs:
    """Converts a person's photographs.

    names: by person, relative to `folder`.  focal: pixels; None if not known.  all_faces: not the largest alone.
    """

    folder: Path
    cutter: FaceCutter
    names: Mapping[str, tuple[str, ...]]
    focal: float | None
    all_faces: bool = False

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a person, by name; a second face of NAME is NAME#2."""
        for name in self.names[person]:
            opened = open_photograph(self.folder, name)
            yield from [opened] if isinstance(opened, LeftOut) else self._faces(name, *opened)

    def _faces(self, name: str, image: ndarray, film: float) -> Iterator[Sample | LeftOut]:
        faces = self.cutter.find_faces(image, name)
        if isinstance(faces, LeftOut):
            yield faces
            return
        for number, landmarks in enumerate(faces, 1):
            face_name = name if number == 1 else f"{name}#{number}"
            if number == 1 or self.all_faces:
                yield self._face(image, face_name, landmarks, film)
            else:
                yield LeftOut(face_name, SMALLER, f"one of {len(faces)} faces")

    def _face(self, image: ndarray, name: str, landmarks: ndarray, film: float) -> Sample | LeftOut:
        camera_matrix, note = photo_camera(image.shape, self.focal, film)
        pose = self.cutter.pose(landmarks, name, camera_matrix)
        if isinstance(pose, LeftOut):
            return pose
        # Any target will do: its labels are overwritten. The camera is one that every face may look at.
        sample = self.cutter.cut(image, name, camera_matrix, pose, np.zeros(3), note)
        if isinstance(sample, LeftOut):
            return sample
        rotation = normalizing_rotation(pose.centre, pose.rotation)
        extra = {
            **sample.extra,
            "image_to_patch": warp_matrix(self.cutter.view, camera_matrix, pose.centre, rotation),
            "image_shape": np.array(image.shape[:2], np.int32),
        }
        return replace(sample, labels=np.tile(sample.labels[2:4], 4), extra=extra)


def find_photographs(folder: Path, each: bool = False) -> tuple[dict[str, tuple[str, ...]], Counter[str]]:
    """Person -> names relative to `folder`, sorted; and how many other files there are, by suffix.

    each: every photograph is a person of its own. A person's name has stray bytes as backslash escapes.
    Raises UserError if there are none, or if two persons would have one name.
    """
    names, others = _list_files(folder)
    if not names:
        found = f" ({_counted(others)})" if others else ""
        raise UserError(f"{folder}: no photographs in it{found}, expected {', '.join(SUFFIXES)}.")
    persons: dict[str, list[str]] = {}
    for name in names:
        path = Path(name)
        inside = path.parts[0] if len(path.parts) > 1 else folder.resolve().name
        person = path.with_suffix("").as_posix().replace("/", "_") if each else inside
        persons.setdefault(person.encode("utf-8", "backslashreplace").decode(), []).append(name)
    double = [found for found in persons.values() if each and len(found) > 1]
    if double:
        raise UserError(f"--each: {double[0][0]} and {double[0][1]} would be one person; rename one of them.")
    return {person: tuple(found) for person, found in sorted(persons.items())}, others


def _list_files(folder: Path) -> tuple[list[str], Counter[str]]:
    """Names of photographs, sorted, and how many other files there are, by suffix; hidden ones do not count."""
    names, others = [], Counter[str]()
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        suffix = path.suffix.lower()
        if suffix in SUFFIXES or suffix in UNREADABLE:
            names.append(relative.as_posix())
        else:
            others[suffix or "without suffix"] += 1
    return sorted(names), others


def _counted(others: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))


def _fingerprint(folder: Path, names: Mapping[str, tuple[str, ...]]) -> str:
    """Of names and sizes, so that other photographs are not taken for these."""
    told = "".join(f"{name} {(folder / name).stat().st_size}\n" for found in names.values() for name in found)
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def photo_conversion(
    folder: Path, cutter: FaceCutter, *, each: bool = False, focal: float | None = None, all_faces: bool = False
) -> Conversion:
    """The conversion of a folder of photographs. focal: pixels of the upright photographs; None if not known."""
    names, others = find_photographs(folder, each)
    if others:
        tqdm.write(f"{folder}: {others.total()} files are passed over, no photographs by name: {_counted(others)}.")
    own = {"each": each, "focal": focal, "photographs": _fingerprint(folder, names)}
    own |= {"faces": "all"} if all_faces else {}
    return Conversion(
        dataset="photographs",
        persons=list(names),
        convert=Photographs(folder, cutter, names, focal, all_faces),
        options={**cutter.options(), **own},
        facts={
            "gaze_known": False,
            "intrinsics": "from EXIF or assumed" if focal is None else f"given: {focal:g} pixels",
            "distortion": "assumed: none",
            "head_pose": "from landmarks",
            "passed_over": json.dumps(dict(sorted(others.items()))),
        },
    )


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `images` to `python -m preprocess`."""
    parser = subparsers.add_parser(
        NAME,
        help=COMMANDS[NAME].help,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="photographs, or a folder of them for each person")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5")
    parser.add_argument("--each", action="store_true", help="every photograph is a person of its own")
    parser.add_argument("--faces", choices=("largest", "all"), default="largest", help="of a photograph (%(default)s)")
    parser.add_argument("--focal", type=float, metavar="PIXELS", help="focal length of the photographs, all alike")
    parser.add_argument("--persons", nargs="+", metavar="ID", help="only these; default: all")
    parser.add_argument("--workers", type=int, help="processes; default: one a CPU")
    parser.add_argument("--compression", choices=["lzf"], help="default: none, which reads faster")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_face_arguments(parser)
    parser.set_defaults(
        run=run_arguments, conversion_from=conversion_from, min_coverage=0.8
    )  # faces fill one's own photographs


def conversion_from(arguments: argparse.Namespace) -> Conversion:
    """What the options of `add_parser` ask for. Raises UserError for what cannot be."""
    folder, landmarks = arguments.folder, arguments.landmarks
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of photographs.", remedy="Name one.")
    if arguments.focal is not None and not 50 <= arguments.focal <= 50_000:
        raise UserError(f"--focal: found {arguments.focal:g}, expected pixels, 50 to 50000.")
    all_faces = arguments.faces == "all"
    if all_faces and landmarks:
        raise UserError("--faces all: a folder of landmarks (--landmarks) holds one face a photograph; leave out one.")
    cutter = cutter_from(arguments)
    cutter.check()
    conversion = photo_conversion(folder, cutter, each=arguments.each, focal=arguments.focal, all_faces=all_faces)
    assert isinstance(conversion.convert, Photographs)
    names = [name for found in conversion.convert.names.values() for name in found]
    if landmarks and not any(landmark_file(landmarks, name) for name in names):
        raise UserError(f"--landmarks: {landmarks} has nothing of the photographs, expected such as {names[0]}.npy.")
    return conversion
