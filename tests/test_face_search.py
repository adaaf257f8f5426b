"""Finding all faces of a photograph, with a stand-in for MediaPipe to which bright squares are faces."""

import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy import ndarray

from preprocess import landmarks
from preprocess.face_patches import FaceCutter
from preprocess.landmarks import detect, detect_all

Place = tuple[int, int, int]  # left, top, side
FACE, BUTTON = 255, 150  # grey levels; a detector is as sure as a square is bright
CROWD = [(1000, 100, 700), (300, 1500, 150), (60, 60, 40), (2500, 1700, 40), (2590, 1700, 40)]


def squares(image: ndarray, smallest: float) -> Iterator[tuple[ndarray, ndarray, float]]:
    """Place and size, parts of the image's, and brightness of those that fill this part of its longest side or more."""
    for left, top, width, height, _ in cv2.connectedComponentsWithStats((image[..., 0] > 100).astype(np.uint8))[2][1:]:
        whole = np.array(image.shape[1::-1])
        if min(width, height) >= smallest * whole.max() and abs(width - height) <= 2:
            level = image[top : top + height, left : left + width, 0].max()
            yield np.array((left, top)) / whole, np.array((width, height)) / whole, level / 255


class FaceMesh:
    """Points from corner to corner of squares that fill a fifth of the picture."""

    def __init__(self, **options: object) -> None:
        pass

    def process(self, image: ndarray) -> SimpleNamespace:
        faces = [np.linspace(low, low + size, 478) for low, size, _ in squares(image, 1 / 5)]
        meshes = [SimpleNamespace(landmark=[SimpleNamespace(x=x, y=y) for x, y in face]) for face in faces]
        return SimpleNamespace(multi_face_landmarks=meshes or None)


class FaceDetection:
    """Boxes of squares that fill a tenth of the picture."""

    def __init__(self, **options: object) -> None:
        pass

    def process(self, image: ndarray) -> SimpleNamespace:
        boxes = []
        for low, size, score in squares(image, 1 / 10):
            box = SimpleNamespace(xmin=low[0], ymin=low[1], width=size[0], height=size[1])
            boxes.append(SimpleNamespace(score=[score], location_data=SimpleNamespace(relative_bounding_box=box)))
        return SimpleNamespace(detections=boxes or None)


def stand_in(monkeypatch: pytest.MonkeyPatch, mesh: type, detection: type) -> None:
    modules: dict[str, Any] = {"face_mesh": SimpleNamespace(FaceMesh=mesh)}
    modules["face_detection"] = SimpleNamespace(FaceDetection=detection)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"mediapipe.python.solutions.{name}", module)
    landmarks._mediapipe.cache_clear()


@pytest.fixture(autouse=True)
def mediapipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stand_in(monkeypatch, FaceMesh, FaceDetection)
    yield
    landmarks._mediapipe.cache_clear()


def photograph(*places: Place, level: int = FACE) -> ndarray:
    image = np.zeros((2000, 3000, 3), np.uint8)
    for left, top, side in places:
        image[top : top + side, left : left + side] = level
    return image


def found(image: ndarray) -> list[Place]:
    corners = [(*mesh.min(axis=0), np.ptp(mesh, axis=0).max()) for mesh in detect_all(image)]
    return [(left, top, side) for left, top, side in corners]


@pytest.mark.parametrize("place", [(60, 60, 40), (1490, 990, 40), (2960, 1960, 40)])
def test_a_face_of_40_pixels_is_found_wherever_it_is_in_a_large_picture(place: Place) -> None:
    image = photograph(place)
    assert detect(image) is None
    assert found(image) == [pytest.approx(place, abs=1)]


def test_each_face_of_a_crowd_is_offered_once_the_largest_first() -> None:
    image = photograph(*CROWD)
    places = found(image)
    assert places[:2] == [pytest.approx(place, abs=3) for place in CROWD[:2]]
    assert sorted(places[2:]) == [pytest.approx(place, abs=1) for place in CROWD[2:]]
    assert len(FaceCutter().find_faces(image, "crowd.jpg")) == len(CROWD)


def test_what_is_hardly_a_face_is_not_offered() -> None:
    assert found(photograph((60, 60, 40), level=BUTTON)) == []


def test_a_box_beside_a_face_does_not_offer_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = (1480, 980, 40)
    box = np.array([(1521.0, 955.0), (1611.0, 1045.0)])  # nothing is there, and the next face is this one
    monkeypatch.setattr(landmarks, "_search", lambda image: [np.array([(1480.0, 980.0), (1520.0, 1020.0)]), box])
    assert found(photograph(place)) == [pytest.approx(place, abs=1)]


REMARKS = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1700000000.000001 1 gl_context.cc:357] GL version: 3.0\n"
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
    b"W0000 00:00:1700000000.000002 1 inference_feedback_manager.cc:114] Feedback manager requires one signature.\n"
)
ERROR = b"E0000 00:00:1700000000.000003 1 graph.cc:1] no model\n"


class Talkative(FaceDetection):
    """It logs as MediaPipe does: as C does, while it is made and while it looks."""

    def __init__(self, **options: object) -> None:
        os.write(2, REMARKS)

    def process(self, image: ndarray) -> SimpleNamespace:
        os.write(2, REMARKS + (ERROR if image.any() else b""))
        return SimpleNamespace(detections=None)


def test_remarks_of_the_detector_are_kept_from_the_terminal_and_errors_are_not(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, FaceMesh, Talkative)
    assert detect(np.zeros((64, 64, 3), np.uint8)) is None
    assert capfd.readouterr().err == ""
    assert detect(np.full((64, 64, 3), 9, np.uint8)) is None
    assert capfd.readouterr().err == ERROR.decode()
