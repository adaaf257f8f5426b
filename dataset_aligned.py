"""FFHQ-aligned faces with the way to their normalised patch: what a redirector around a face generator reads.

A file is laid out as `dataset` says, with the root attributes `view` 'ffhq-aligned' and `patch_size`, and with
`homography` (N, 3, 3) and `points` (N, 5, 2) for each person: `preprocess/synthetic/dataset.py` describes. A file of
normalised patches will do, too, used as the published pipeline did: the patch itself is then the face.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from core.hdf5 import ALIGNMENT, FACES, layout_problems, read_attribute, reading
from dataset import GazeDataset

VIEW = "ffhq-aligned"
# Eyes, nose tip and mouth corners of an average head, image left first: mm to the right of, below and behind the
# middle between the eyes. Ours, the mean of the embedded data set's persons.
_HEAD_POINTS = np.array(
    [[-32.5, -0.5, -3], [32.5, -0.5, -3], [0, 36, -38], [-23.5, 60, -10], [23.5, 60, -10]], np.float64
)
_FACE_CENTRE, _DISTANCE, _FOCAL = np.array([0.0, 30.0, 0.0]), 600.0, 500 / 128  # focal length in picture widths


class AlignedDataset(GazeDataset):
    """One HDF5 file of aligned faces, or of normalised patches: arguments, index and errors are GazeDataset's.

    is_aligned: False for a file of patches. Its pictures show less than the generator knows of a face and have
    the eyes and the mouth elsewhere; callers should log it.
    """

    is_aligned: bool

    def __init__(
        self,
        path: str | Path,
        *,
        name: str = "",
        persons: Sequence[str] | None = None,
        is_bgr: bool | None = None,
        default_is_bgr: bool = False,
        image_size: int | None = None,
        pick_at_least_per_person: int | None = None,
    ) -> None:
        self._crops: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        super().__init__(
            path,
            name=name,
            persons=persons,
            is_bgr=is_bgr,
            default_is_bgr=default_is_bgr,
            image_size=image_size,
            pick_at_least_per_person=pick_at_least_per_person,
            equalize=False,  # encoders of natural faces were trained on such
        )

    def entry(self, index: int) -> dict[str, Tensor]:
        """As GazeDataset gives it, the image not equalised, with `crop` and `points`.

        crop: (3, 3) float32, homogeneous coordinates in the normalised patch to those in the image, both from -1 to
        1 between the outer edges of the pixels at the rim: the sampling grid of `models.recrop.warp`. The identity
        for a file of patches.
        points: (5, 2) float32, eyes, nose tip and mouth corners in the image's pixels (column, row), image left
        first; integers are at pixel centres. For a file of patches those of an average head with the label's pose.
        Raises as GazeDataset does, and UserError where a homography is not invertible.
        """
        return super().entry(index)

    def _inspect(self, file: h5py.File, counts: dict[str, int]) -> list[str]:
        view = read_attribute(file, "view")
        with reading(self.path):
            groups = {person: file[person] for person in counts}
            has_homographies = any("homography" in group for group in groups.values())
        self.is_aligned, self._patch_size = view == VIEW, read_attribute(file, "patch_size")
        if view is None and not has_homographies:
            return []
        if not self.is_aligned:
            return [f"attribute view is {view!r}, expected {VIEW!r}, or none and no homographies"]
        problems = []
        if not isinstance(self._patch_size, int) or self._patch_size < 1:
            problems.append(f"attribute patch_size is {self._patch_size!r}, expected the patch's pixels a side")
        for person, group in groups.items():
            with reading(self.path):
                wrong = layout_problems(group, FACES | ALIGNMENT)
            problems += [f"person {person!r}: {what}" for what in wrong]
        return problems

    def entry_with(self, index: int, label: np.ndarray) -> dict[str, Tensor]:
        """An entry that has this label (4,), radians, in place of the file's."""
        entry = super().entry_with(index, label)
        person, sample = int(self.person_of[index]), int(self.sample_of[index])
        if self.is_aligned:
            if person not in self._crops:
                self._crops[person] = self._load_crops(person)
            crop, points = (rows[sample] for rows in self._crops[person])
        else:
            crop, points = np.eye(3), average_points(label[2:])
        points = (points + 1) * (self.image_size / 2) - 0.5
        return entry | {
            "crop": torch.from_numpy(crop.astype(np.float32)),
            "points": torch.from_numpy(points.astype(np.float32)),
        }

    def _load_crops(self, person: int) -> tuple[np.ndarray, np.ndarray]:
        """All of a person's crops and points, both in coordinates from -1 to 1."""
        name = self.person_ids[person]
        homography = self.file.rows(name, "homography").astype(np.float64)
        points = self.file.rows(name, "points").astype(np.float64)
        size = self.file.shape(name, "pixels")[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = homography / np.linalg.norm(homography, axis=(1, 2), keepdims=True)
            volume = np.abs(np.linalg.det(scaled))
        self._require(person, "homographies that cannot be inverted", np.asarray(~(volume > 1e-12)))  # NaN, too
        is_odd = np.asarray(~np.isfinite(points).all(axis=(1, 2)))
        self._require(person, "points that are not finite", is_odd)
        crop = _to_unit(size) @ np.linalg.inv(homography) @ np.linalg.inv(_to_unit(int(self._patch_size)))
        return crop / crop[:, 2:, 2:], (2 * points + 1) / size - 1


def average_points(head: np.ndarray) -> np.ndarray:
    """(5, 2): where an average head of this pitch and yaw (radians) has eyes, nose tip and mouth corners in its
    normalised patch, from -1 to 1 over the picture; to a few hundredths for most faces.
    """
    (sin_p, sin_y), (cos_p, cos_y) = np.sin(head), np.cos(head)
    about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    about_x = np.array([[1, 0, 0], [0, cos_p, sin_p], [0, -sin_p, cos_p]])
    camera = (_HEAD_POINTS - _FACE_CENTRE) @ (about_y @ about_x).T + (0, 0, _DISTANCE)
    return 2 * _FOCAL * camera[:, :2] / camera[:, 2:]


def moved_crop(crop: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The crop of an aligned face whose head turns: alignment follows eyes and mouth, and the patch the head.

    crop: (B, 3, 3), at the pose `before`.  before, after: (B, 2) head pitch and yaw, radians.  Returns (B, 3, 3),
    by the change that the alignment of an average head sees: exact for none, near for all; to the bit where
    nothing turns.
    """
    moves = [_alignment(b) @ np.linalg.inv(_alignment(a)) for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    change = torch.from_numpy(np.stack(moves)).to(crop)
    same = (before == after).all(dim=1)
    return torch.where(same[:, None, None], crop, change @ crop)


def _alignment(head: Sequence[float]) -> np.ndarray:
    """(3, 3): an average head's normalised patch to its FFHQ-aligned face, both from -1 to 1 over the picture."""
    left, right, _, *mouth = average_points(np.asarray(head))
    eyes, along, down = (left + right) / 2, right - left, np.mean(mouth, axis=0) - (left + right) / 2
    x = along - np.array([-down[1], down[0]])
    x *= max(2.0 * np.hypot(*along), 1.8 * np.hypot(*down)) / np.hypot(*x)
    y, centre = np.array([-x[1], x[0]]), eyes + 0.1 * down
    return np.linalg.inv(np.array([[x[0], y[0], centre[0]], [x[1], y[1], centre[1]], [0, 0, 1]]))


def _to_unit(size: int) -> np.ndarray:
    """(3, 3): pixel coordinates of a picture to -1 to 1."""
    return np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])
