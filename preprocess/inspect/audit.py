"""Labels against the images themselves: faces are found anew, and their heads and irises compared with the labels.

It needs nothing but the file. Irises tell only roughly how the eyes are turned in the head, so what counts is whether
the two go together over many faces. That finds a flipped sign or a swapped axis, but only along an axis in which the
data set's labels change; one along which they hardly do is named as not judged. A wrong colour order it does not find:
faces are found in blue skin, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from tqdm import tqdm

from core.hdf5 import open_hdf5, reading
from preprocess.face_model import head_pose
from preprocess.inspect.scan import Check, Scan
from preprocess.landmarks import detect, to_68
from preprocess.normalization import ST_ED, apply_homography, normalized_head, normalizing_rotation

ENOUGH = 40  # faces from which the correlation means something
SEEN_AT = 512  # pixels a side that a picture is enlarged to: the detector overlooks small faces
EYE, HEAD, HEAD_DEG = 0.2, 0.5, 15.0  # the least correlations, and the largest median difference
# FaceMesh's iris and corners of the eye at image left, and at image right.
_EYES = ((468, 33, 133), (473, 362, 263))
Detector = Callable[[ndarray], ndarray | None]


def find_mesh(image: ndarray, detector: Detector = detect) -> ndarray | None:
    """FaceMesh's points (478, 2), in pixels of the RGB image (S, S, 3); None if no face is found."""
    times = max(1.0, SEEN_AT / len(image))
    side = round(times * len(image))
    large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) if times > 1 else image
    mesh = detector(np.ascontiguousarray(large))
    return None if mesh is None or len(mesh) < 478 else (mesh + 0.5) * (len(image) / side) - 0.5


def iris_offsets(mesh: ndarray) -> ndarray:
    """(2,): how far the irises are right of and below the middle between the eyes' corners, in widths of an eye."""
    offsets = []
    for iris, *corners in _EYES:
        left, right = mesh[corners]
        offsets.append((mesh[iris] - (left + right) / 2) / np.linalg.norm(right - left))
    return np.mean(offsets, axis=0)


def head_label(mesh: ndarray) -> ndarray:
    """(2,): pitch and yaw of the head in an ST-ED patch of 128 pixels. Raises ValueError if no pose fits."""
    pose = head_pose(to_68(mesh), ST_ED.camera_matrix)
    return normalized_head(normalizing_rotation(pose.centre, pose.rotation), pose.rotation)


def compare_faces(labels: ndarray, offsets: ndarray, heads: ndarray, gaze_known: bool = True) -> list[Check]:
    """Checks of labels (N, 4), radians, against `iris_offsets` (N, 2) and `head_label` (N, 2) of the images."""
    checks = []
    if gaze_known:
        # Pitch is up and yaw to image left, rows run down and columns to image right: hence the signs.
        turned = -(labels[:, :2] - labels[:, 2:4])
        together = {
            "pitch": _correlation(turned[:, 0], offsets[:, 1]),
            "yaw": _correlation(turned[:, 1], offsets[:, 0]),
        }
        checks.append(_judge("irises", together, EYE, ""))
    together = {name: _correlation(labels[:, 2 + i], heads[:, i]) for i, name in enumerate(("pitch", "yaw"))}
    apart = np.degrees(np.median(np.abs(labels[:, 2:4] - heads).max(axis=1)))
    level = _judge("heads", together, HEAD, f", {apart:.1f} degrees apart (median)")
    return [*checks, Check("heads", "FAIL", level.found) if apart > HEAD_DEG else level]


def _correlation(a: ndarray, b: ndarray) -> float:
    """nan where one of them hardly changes, as pitch in some data sets."""
    return float(np.corrcoef(a, b)[0, 1]) if np.std(a) > np.deg2rad(2) and np.std(b) > 0 else float("nan")


def _judge(name: str, together: dict[str, float], least: float, more: str) -> Check:
    wrong = [axis for axis, value in together.items() if value < least]
    unknown = [axis for axis, value in together.items() if np.isnan(value)]
    values = ", ".join(
        f"{axis} {'not judged (it hardly changes)' if axis in unknown else f'{value:+.2f}'}"
        for axis, value in together.items()
    )
    why = f": the {' and the '.join(wrong)} of the labels is of another sign, frame or image" if wrong else ""
    level = "FAIL" if wrong else "note" if unknown else "ok"
    return Check(name, level, f"correlate with the labels, {values}{more}{why}")


def audit(path: str | Path, scan: Scan, count: int, detector: Detector = detect, progress: bool = False) -> list[Check]:
    """Finds about `count` faces, evenly over the file's samples, and compares them with their labels.

    scan: of the file.  detector: RGB image -> FaceMesh's 478 points or None.
    """
    usable = np.flatnonzero(np.isfinite(scan.labels[:, :4]).all(axis=1))
    if not len(usable):
        return []
    chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(int))]
    starts = np.searchsorted(scan.owner, np.arange(len(scan.counts)))
    rows, offsets, heads = [], [], []
    with open_hdf5(path) as file:
        for row in tqdm(chosen, "detect", unit="face", disable=not progress):
            with reading(path):
                group, at = file[scan.persons[scan.owner[row]]], row - starts[scan.owner[row]]
                image = group["pixels"][at]
            mesh = find_mesh(image[..., ::-1] if scan.attributes.get("color_order") == "BGR" else image, detector)
            if mesh is None:
                continue
            if scan.is_aligned:
                mesh = apply_homography(group["homography"][at], mesh)
            else:
                mesh = (mesh + 0.5) * (ST_ED.size / len(image)) - 0.5
            try:
                heads.append(head_label(mesh))
            except ValueError:  # no pose fits: the detector saw something else
                continue
            rows.append(row)
            offsets.append(iris_offsets(mesh))
    found = f"{len(rows)} of {len(chosen)}"
    if len(rows) < ENOUGH:
        return [
            Check("faces found", "warning", f"{found}, at least {ENOUGH} are needed to compare them with the labels")
        ]
    known = scan.attributes.get("gaze_known", True)
    checks = compare_faces(scan.labels[rows], np.array(offsets), np.array(heads), known)
    return [Check("faces found", "ok" if len(rows) > len(chosen) / 2 else "warning", found), *checks]
