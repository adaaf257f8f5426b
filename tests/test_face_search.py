"""Finding all faces of a photograph, with stand-ins for the networks, to which bright squares are faces."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest
from numpy import ndarray

from core.redirection.faces import find
from preprocess.face_patches import FaceCutter, LeftOut
from preprocess.faces import detector, mesh, search
from preprocess.faces.detector import Box
from preprocess.faces.mesh import Face
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


def large_faces(image: ndarray) -> list[Face]:
    """Points from corner to corner of squares that fill a fifth of the picture."""
    whole = image.shape[1::-1]
    return [Face(score, np.linspace(low, low + size, 478) * whole - 0.5) for low, size, score in squares(image, 1 / 5)]


def near_faces(images: Sequence[ndarray]) -> list[list[Box]]:
    """Boxes of squares that fill a tenth of their picture."""
    return [
        [
            Box(score, np.array([low, low + size]) * image.shape[1::-1] - 0.5, np.zeros((2, 2)))
            for low, size, score in seen
        ]
        for image, seen in ((image, squares(image, 1 / 10)) for image in images)
    ]


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "large_faces", large_faces)
    monkeypatch.setattr(detector, "near_faces", near_faces)
    monkeypatch.setattr(detector, "far_faces", lambda image: near_faces([image])[0])


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


def test_where_the_largest_face_cannot_be_measured_the_next_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = search.face_in
    monkeypatch.setattr(search, "face_in", lambda image, region: measure(image, region) if region.min() > 500 else None)
    face = search.find_largest(photograph((200, 100, 700), (1500, 900, 650)))
    assert face is not None and face.box[0] == pytest.approx([1500, 900], abs=3)


def test_what_is_hardly_a_face_is_not_offered() -> None:
    assert found(photograph((60, 60, 40), level=BUTTON)) == []


def test_a_box_beside_a_face_does_not_offer_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = (1480, 980, 40)
    box = np.array([(1521.0, 955.0), (1611.0, 1045.0)])  # nothing is there, and the next face is this one
    boxes = [(0.9, np.array([(1480.0, 980.0), (1520.0, 1020.0)])), (0.9, box)]
    monkeypatch.setattr(search, "_search", lambda image: boxes)
    assert found(photograph(place)) == [pytest.approx(place, abs=1)]
    assert search.search(photograph(place)).unmeasured == []


@pytest.mark.parametrize("level, told", [(210, 1), (180, 0)])
def test_a_sure_face_that_cannot_be_measured_is_told_of(level: int, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = search.face_in
    monkeypatch.setattr(search, "face_in", lambda image, region: measure(image, region) if region.min() > 500 else None)
    image = photograph((1500, 900, 650)) + photograph((60, 60, 40), level=level)
    seen = search.search(image)
    assert [face.box[0] for face in seen.faces] == [pytest.approx([1500, 900], abs=3)]
    assert [box[0] for box in seen.unmeasured] == [pytest.approx([60, 60], abs=1)] * told
    names = [face.name for face in find(image) if isinstance(face, LeftOut) and "not seen" in face.reason]
    assert names == ["face 2"] * told
