"""`python -m preprocess ffhq-aligned NAME ...`: FFHQ-aligned faces with the way to the normalised patch.

NAME is another command that starts from photographs, such as `gazecapture` or `images`, and takes its options. The
samples, labels and persons are those that the command itself would give; the pixels are the face as FFHQ crops it,
which is what a redirector around a face generator reads (`dataset_aligned.py`). To each person's group come
`homography` (N, 3, 3) and `points` (N, 5, 2), to the root `view` and `patch_size`: see `synthetic/dataset.py`.

The alignment takes the landmarks of the eyes and the mouth, in the undistorted image. Where only the corners of the
eyes are known their middles serve, and what is missing beside is put where the head's pose has it.
"""

import argparse
from dataclasses import dataclass, fields, is_dataclass, replace
from types import ModuleType

import numpy as np
from numpy import ndarray

from core.command import UserError
from preprocess.commands import COMMANDS
from preprocess.conversion import Conversion, run_conversion
from preprocess.datasets import columbia, eth_xgaze, eyediap, gazecapture, images, mpiifacegaze
from preprocess.face_model import RIGID, HeadPose
from preprocess.face_patches import FaceCutter, LeftOut, Sample
from preprocess.inspect.scan import ALIGNED
from preprocess.normalization import (
    apply_homography,
    ffhq_align,
    ffhq_quad,
    homography_aligned_to_patch,
    normalizing_rotation,
    undistort_points,
    warp_matrix,
)
from preprocess.synthetic.aligned import five_points

NAME = "ffhq-aligned"
SIZE = 256
SOURCES: tuple[ModuleType, ...] = (
    gazecapture,
    mpiifacegaze,
    columbia,
    eyediap,
    eth_xgaze,
    images,
)  # modules with NAME, add_parser and conversion_from(arguments)
_EYES = ((36, (37, 38), (40, 41), 39), (42, (43, 44), (46, 47), 45))  # corner, upper lid, lower lid, corner
_NEEDED = (30, 36, 39, 42, 45, 48, 54)


@dataclass(frozen=True)
class AlignedPose(HeadPose):
    """A head's pose with the landmarks (68, 2) that it came from.

    landmarks: x / z and y / z in the camera's frame, because the image may be made smaller before it is cut.
    """

    landmarks: ndarray


@dataclass(frozen=True)
class AlignedCutter(FaceCutter):
    """Cuts out faces of `size` pixels as FFHQ does, in the place of normalised patches."""

    size: int = SIZE

    def options(self) -> dict[str, object]:
        """See FaceCutter."""
        return {**super().options(), "aligned_size": self.size}

    def pose(
        self,
        landmarks: ndarray,
        name: str,
        camera_matrix: ndarray,
        distortion: ndarray | None = None,
        use: tuple[int, ...] = RIGID,
    ) -> HeadPose | LeftOut:
        """See FaceCutter; the pose keeps the landmarks."""
        pose = super().pose(landmarks, name, camera_matrix, distortion, use)
        if isinstance(pose, LeftOut):
            return pose
        values = {field.name: getattr(pose, field.name) for field in fields(HeadPose)}
        straight = undistort_points(landmarks, camera_matrix, distortion)
        return AlignedPose(**values, landmarks=apply_homography(np.linalg.inv(camera_matrix), straight))

    def cut(
        self, image: ndarray, name: str, camera_matrix: ndarray, pose: HeadPose, target: ndarray, note: str = ""
    ) -> Sample | LeftOut:
        """The aligned face with the labels of its patch, from an undistorted image, RGB uint8."""
        patch = super().cut(image, name, camera_matrix, pose, target, note)
        if isinstance(patch, LeftOut):
            return patch
        landmarks = self.complete(pose, camera_matrix)
        try:
            quad = ffhq_quad(landmarks)
            pixels, to_face = ffhq_align(image, landmarks, self.size)
        except ValueError as error:
            return LeftOut(name, "face cannot be aligned", str(error))
        if not note and np.linalg.norm(quad[3] - quad[0]) < self.size / 2:
            note = "face is enlarged more than twofold"
        to_patch = warp_matrix(self.view, camera_matrix, pose.centre, normalizing_rotation(pose.centre, pose.rotation))
        extra = {
            **patch.extra,
            "homography": homography_aligned_to_patch(to_face, to_patch),
            "points": five_points(apply_homography(to_face, landmarks)),
        }
        return replace(patch, pixels=pixels, note=note, extra=extra)

    def complete(self, pose: HeadPose, camera_matrix: ndarray) -> ndarray:
        """(68, 2) pixels: the landmarks, with those that the alignment takes filled in where they are not known."""
        known = getattr(pose, "landmarks", None)
        landmarks = np.full((68, 2), np.nan) if known is None else apply_homography(camera_matrix, known)
        missing = [i for i in _NEEDED if not np.isfinite(landmarks[i]).all() and i in self.model.landmarks]
        if missing:
            points = self.model[tuple(missing)] @ pose.rotation.T + pose.translation
            landmarks[missing] = apply_homography(camera_matrix, points[:, :2] / points[:, 2:])
        for corner, upper, lower, other in _EYES:
            if not np.isfinite(landmarks[[*upper, *lower]]).all():
                landmarks[[*upper, *lower]] = (landmarks[corner] + landmarks[other]) / 2
        return landmarks


def aligned_conversion(conversion: Conversion, size: int = SIZE) -> Conversion:
    """The conversion to aligned faces of `size` pixels instead of patches.

    Raises UserError if it does not start from photographs.
    """
    convert = conversion.convert
    cutter = getattr(convert, "cutter", None)
    if not (isinstance(cutter, FaceCutter) and is_dataclass(convert) and not isinstance(convert, type)):
        raise UserError(
            f"{conversion.dataset}: aligned faces show more than a normalised patch does; they need the photographs, "
            "not a release of patches. A redirector around a face generator reads files of patches, too, at a cost.",
            remedy="Name the folder of the photographs with --raw.",
        )
    values = {field.name: getattr(cutter, field.name) for field in fields(FaceCutter)}
    aligned = AlignedCutter(**values, size=size)
    return replace(
        conversion,
        convert=replace(convert, cutter=aligned),
        options={**aligned.options(), **conversion.options},
        facts={**conversion.facts, "view": ALIGNED, "patch_size": cutter.view.size},
    )


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `ffhq-aligned` to `python -m preprocess`."""
    parser = subparsers.add_parser(
        NAME,
        help=COMMANDS[NAME].help,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", dest="aligned_size", type=int, default=SIZE, help="pixels a side (%(default)s)")
    sources = parser.add_subparsers(dest="source", required=True, metavar="NAME")
    for module in SOURCES:
        module.add_parser(sources)
        sources.choices[module.NAME].set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if not 32 <= arguments.aligned_size <= 1024:
        raise UserError(f"--size: found {arguments.aligned_size}, expected 32 to 1024.")
    conversion = aligned_conversion(arguments.conversion_from(arguments), arguments.aligned_size)
    run_conversion(conversion, arguments)
