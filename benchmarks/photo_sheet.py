"""A sheet of faces with arrows of head and gaze: the reference's beside those of each kind of estimator."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy import ndarray

from benchmarks.photo_faces import Faces
from core.redirection import arrows
from core.redirection.arrows import GAZE, HEAD

SIDE, LENGTH = 192, 0.4  # pixels of a face, part of them that an arrow across the line of sight is long


def draw_arrow(picture: ndarray, label: ndarray, start: tuple[float, float], rgb: tuple[int, int, int]) -> None:
    """Onto a picture (S, S, 3), where a label (2,) points; start: parts of the side, right and down."""
    side = len(picture)
    arrows.draw_arrow(picture, label, side * np.array(start), LENGTH * side, rgb)


def draw_face(pixels: ndarray, label: ndarray, title: str) -> ndarray:
    """One face (SIDE, SIDE, 3) with its arrows. label: (4,) gaze, head."""
    picture = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    draw_arrow(picture, label[2:4], (0.5, 0.62), HEAD)
    draw_arrow(picture, label[:2], (0.5, 0.36), GAZE)
    cv2.putText(picture, title[:30], (4, SIDE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def draw_sheet(faces: Faces, estimates: Mapping[str, Sequence[ndarray]]) -> ndarray:
    """A row a face: the reference, then the mean over the runs of each kind."""
    columns = {"reference": faces.labels} | {kind: np.mean(runs, axis=0) for kind, runs in estimates.items()}
    rows = [
        np.hstack(
            [draw_face(pixels, labels[i], name if kind == "reference" else kind) for kind, labels in columns.items()]
        )
        for i, (pixels, name) in enumerate(zip(faces.pixels, faces.names, strict=True))
    ]
    return np.vstack(rows)
