"""Faces and their landmarks, found by MediaPipe's networks in PyTorch: as MediaPipe 0.10.21 itself finds them.

`goldens/faces.png` shows two rendered faces of the embedded data set; `goldens/faces.npz` has what MediaPipe (with
OpenCV 4.11) found in it, and in the astronaut of scikit-image: boxes of both detectors, and landmarks.
"""

import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy import ndarray

from preprocess.faces import detector, networks
from preprocess.faces.detector import far_faces, near_faces
from preprocess.faces.mesh import follow, large_faces, measure
from preprocess.faces.networks import DATA, FarDetector, MeshNetwork, NearDetector
from preprocess.faces.search import find_faces, find_largest

GOLDENS = Path(__file__).parent / "goldens"
with np.load(GOLDENS / "faces.npz") as arrays:
    SEEN = dict(arrays)


@pytest.fixture(scope="module", params=["faces", "astronaut"])
def picture(request: pytest.FixtureRequest) -> tuple[str, ndarray]:
    """A name, and a picture, RGB."""
    if request.param == "astronaut":
        return request.param, pytest.importorskip("skimage.data").astronaut()
    return request.param, two_faces()


def two_faces() -> ndarray:
    return cv2.cvtColor(cv2.imread(str(GOLDENS / "faces.png")), cv2.COLOR_BGR2RGB)


def test_both_detectors_draw_mediapipes_boxes(picture: tuple[str, ndarray]):
    name, image = picture
    for kind, found in (("near", near_faces([image])[0]), ("far", far_faces(image))):
        assert [box.score for box in found] == pytest.approx(SEEN[f"{name}_{kind}_scores"].tolist(), abs=0.01)
        assert np.stack([box.corners for box in found]) == pytest.approx(SEEN[f"{name}_{kind}_corners"], abs=2)


def test_landmarks_are_mediapipes_within_a_pixel(picture: tuple[str, ndarray]):
    name, image = picture
    found = np.stack([face.landmarks for face in find_faces(image)])
    apart = np.linalg.norm(found - SEEN[f"{name}_landmarks"], axis=2)
    assert np.median(apart) < 0.25 and np.percentile(apart, 95) < 0.5 and apart.max() < 1


def test_a_face_has_a_score_a_box_and_irises_between_its_lids():
    for face in find_faces(two_faces()):
        assert 0.5 < face.score <= 1 and face.landmarks.shape == (478, 2)
        assert face.box.tolist() == [face.landmarks.min(axis=0).tolist(), face.landmarks.max(axis=0).tolist()]
        for iris, corners in zip(face.irises, ((33, 133), (362, 263)), strict=True):
            left, right = face.landmarks[list(corners), 0]
            assert left < iris[0, 0] < right
            assert np.abs(iris[1:].mean(axis=0) - iris[0]).max() < 0.1 * (right - left)


@pytest.mark.parametrize("degrees", [-40, 25])
def test_landmarks_turn_with_the_picture(degrees: float):
    image = two_faces()[:, 272:368]
    image = cv2.copyMakeBorder(cv2.resize(image, None, fx=2, fy=2), 60, 60, 60, 60, cv2.BORDER_REPLICATE)
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    turned = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    before, after = find_largest(image), find_largest(turned)
    assert before is not None and after is not None
    apart = np.linalg.norm(before.landmarks @ turn[:, :2].T + turn[:, 2] - after.landmarks, axis=1)
    assert np.median(apart) < 2  # of 190 pixels


def test_a_face_that_moved_a_little_is_followed_and_one_that_left_is_not():
    image = two_faces()
    moved = cv2.warpAffine(
        image, np.array([[1.0, 0, 6], [0, 1, 4]]), image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )
    for face in find_faces(image):
        again = follow(moved, face)
        assert again is not None
        apart = np.linalg.norm(again.landmarks - face.landmarks - (6, 4), axis=1) / np.ptp(face.landmarks[:, 0])
        assert np.median(apart) < 0.02
        assert follow(np.full_like(image, 120), face) is None


def test_a_batch_is_seen_as_one_by_one():
    one, other = two_faces(), two_faces()[:, ::-1]
    together, alone = near_faces([one, other]), [near_faces([image])[0] for image in (one, other)]
    for some, same in zip(together, alone, strict=True):
        assert np.stack([box.corners for box in some]) == pytest.approx(np.stack([b.corners for b in same]), abs=0.01)


def test_landmarks_do_not_depend_on_the_number_of_threads():
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(np.stack([face.landmarks for face in find_faces(two_faces())]))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)


def test_more_images_than_go_at_once_keep_their_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(detector, "AT_ONCE", 2)
    nothing = np.zeros((64, 64, 3), np.uint8)
    found = near_faces([nothing, nothing, two_faces(), nothing, two_faces()])
    assert [len(boxes) for boxes in found] == [0, 0, 2, 0, 2]
    assert near_faces([]) == []


def test_boxes_of_one_face_are_averaged_by_their_scores():
    places = np.array([[[0, 0], [0.5, 0.5]], [[0, 0.1], [0.5, 0.6]], [[0.6, 0.6], [0.9, 0.9]], [[0, 0], [0.1, 0.1]]])
    eyes = np.repeat(places.mean(axis=1, keepdims=True), 2, axis=1)
    image, scores = np.zeros((50, 100, 3), np.uint8), np.array([0.6, 0.9, 0.7, 0.4])
    boxes = detector._in_image(image, scores, np.concatenate([places, eyes], axis=1), least=0.5)
    assert [box.score for box in boxes] == [0.9, 0.7]
    # 0.06 of the square's 100 pixels, of which 25 are the black band above the image
    assert boxes[0].corners == pytest.approx(np.array([[-0.5, -19.5], [49.5, 30.5]]))


def test_a_box_without_a_face_gives_none():
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    box = detector.Box(0.9, np.array([[50.0, 50], [150, 150]]), np.array([[80.0, 80], [120, 80]]))
    assert measure(noise, [box]) == [] and measure(noise, []) == [] and large_faces(noise) == []
    assert find_largest(noise) is None and find_faces(noise) == []


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 700), (40, 40)])
def test_pictures_of_any_shape_are_searched(height: int, width: int):
    assert find_faces(np.full((height, width, 3), 90, np.uint8)) == []


def test_another_kind_of_picture_is_refused():
    with pytest.raises(ValueError, match=r"found an image \(20, 20\) uint8, expected \(height, width, 3\) uint8 RGB"):
        find_faces(np.zeros((20, 20), np.uint8))


def test_networks_return_what_their_docstrings_say():
    with torch.inference_mode():
        for kind, file, proposals in ((NearDetector, "near.npz", 896), (FarDetector, "far.npz", 2304)):
            boxes, logits = networks.load(kind(), file)(torch.zeros(2, 3, kind.SIZE, kind.SIZE))
            assert boxes.shape == (2, proposals, 16) and logits.shape == (2, proposals)
        points, logits = networks.load(MeshNetwork(), "mesh.npz")(torch.zeros(3, 3, 192, 192))
    assert points.shape == (3, 478, 2) and logits.shape == (3,)


def test_the_notice_names_every_file_with_its_source():
    page = (DATA / "NOTICE.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| `(\w+\.npz)` \| `([0-9a-f]{64})` .*`face_\w+/\w+\.tflite` \| `[0-9a-f]{64}` \|$", page, re.M)
    )
    assert rows == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in DATA.glob("*.npz")}
    assert "Apache License" in (DATA / "LICENSE").read_text(encoding="utf-8")
