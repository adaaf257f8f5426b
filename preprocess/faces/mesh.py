"""The 478 landmarks of a face around which a box is known: FaceMesh's, with irises."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy import ndarray

from preprocess.faces.detector import Box, near_faces
from preprocess.faces.networks import MeshNetwork, load, one_thread

MARGIN = 1.5  # side of the crop by the longer one of the box
LEAST = 0.5  # how sure the network must be that it sees a face
OUTER_CORNERS = (33, 263)  # of the eyes, image left first


@dataclass(frozen=True)
class Face:
    """A face in an image.

    score: of its detector, 0.5 to 1.  landmarks: (478, 2) pixels (column, row; the first pixel's middle is 0, 0): the
    468 of FaceMesh's mesh, then five of each iris, its middle first.
    """

    score: float
    landmarks: ndarray

    @property
    def box(self) -> ndarray:
        """Corners (2, 2) of the box around the landmarks, pixels, the lower ones first."""
        return np.stack([self.landmarks.min(axis=0), self.landmarks.max(axis=0)])

    @property
    def irises(self) -> ndarray:
        """(2, 5, 2): landmarks of the irises, image left first, of each its middle and four on its rim."""
        return self.landmarks[468:].reshape(2, 5, 2)


def large_faces(image: ndarray) -> list[Face]:
    """Faces that fill a tenth or more of an image (H, W, 3) uint8 RGB."""
    return measure(image, near_faces([image])[0])


def measure(image: ndarray, boxes: Sequence[Box]) -> list[Face]:
    """The faces in boxes of an image; no face where there is none after all."""
    if not boxes:
        return []
    to_image = np.stack([_crop_to_image(box) for box in boxes])
    size, flags = (MeshNetwork.SIZE,) * 2, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crops = [cv2.warpPerspective(image, m, size, flags=flags, borderMode=cv2.BORDER_REPLICATE) for m in to_image]
    with one_thread():
        found, logits = _network()(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255)
    points = found.double().numpy() @ to_image[:, :2, :2].transpose(0, 2, 1) + to_image[:, None, :2, 2] - 0.5
    faces = zip(boxes, points, torch.sigmoid(logits).tolist(), strict=True)
    return [Face(box.score, landmarks) for box, landmarks, sure in faces if sure >= LEAST]


def follow(image: ndarray, face: Face) -> Face | None:
    """A face about where it was a moment ago, as in a clip's next frame, without a search; None if it is gone."""
    found = measure(image, [Box(face.score, face.box, face.landmarks[list(OUTER_CORNERS)])])
    return found[0] if found else None


@functools.cache
def _network() -> MeshNetwork:
    return load(MeshNetwork(), "mesh.npz")


def _crop_to_image(box: Box) -> ndarray:
    """(3, 3): pixels of a square crop, in which the eyes are level, to those of the image."""
    right, down = box.eyes[1] - box.eyes[0]
    scale = MARGIN * float((box.corners[1] - box.corners[0]).max()) / MeshNetwork.SIZE
    turn = scale * np.array([[right, -down], [down, right]]) / max(float(np.hypot(right, down)), 1e-9)
    shift = box.corners.mean(axis=0) + 0.5 - turn.sum(axis=1) * MeshNetwork.SIZE / 2
    return np.vstack([np.column_stack([turn, shift]), [0, 0, 1]])
