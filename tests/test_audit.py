"""`verify --detect`: labels are compared with faces found in the images, through whatever leads to the patch."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy import ndarray

from preprocess.__main__ import main
from preprocess.face_model import GENERIC
from preprocess.inspect.audit import audit, compare_faces, find_mesh, head_label, iris_offsets
from preprocess.inspect.scan import scan_file
from preprocess.landmarks import MESH_TO_68, detect
from preprocess.normalization import ST_ED, apply_homography, label_to_rotation
from preprocess.synthetic.dataset import make_dataset

COUNT = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    make_dataset(out, persons=4, samples=12, seed=2, image_size=64, aligned_size=64, workers=1, progress=False)
    return out


def mesh_of(label: ndarray) -> ndarray:
    """(478, 2) pixels of the patch: the generic face's points, and irises a tenth of an eye's width for 10 degrees."""
    points = (GENERIC.points - GENERIC.centre) @ label_to_rotation(label[2:4]).T + (0, 0, 600)
    seen = apply_homography(ST_ED.camera_matrix, points[:, :2] / points[:, 2:])
    mesh = np.full((478, 2), np.nan)
    for landmark, point in zip(GENERIC.landmarks, seen, strict=True):
        mesh[list(MESH_TO_68[landmark])] = point
    turned = -np.degrees(label[1::-1] - label[3:1:-1]) / 100  # yaw, pitch
    for iris, left, right in ((468, 33, 133), (473, 362, 263)):
        width = np.linalg.norm(mesh[right] - mesh[left])
        mesh[iris] = (mesh[left] + mesh[right]) / 2 + turned * width
    return mesh


def detector_of(path: Path, leave_out: int = 10**9) -> Callable[[ndarray], ndarray | None]:
    """Finds the faces of a file that is asked for all of them in order; none in each `leave_out`th."""
    found = []
    with h5py.File(path) as file:
        for group in file.values():
            doubled = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])  # 64 pixels to 128
            to_patch = group["homography"][()] if "homography" in group else [doubled] * len(group["labels"])
            for label, matrix in zip(group["labels"][()], to_patch, strict=True):
                found.append(apply_homography(np.linalg.inv(matrix), mesh_of(label)))
    calls = iter(range(len(found)))

    def detector(image: ndarray) -> ndarray | None:
        at, times = next(calls), len(image) / 64
        assert image.shape == (512, 512, 3) and image.dtype == np.uint8
        return None if at % leave_out == leave_out - 1 else (found[at] + 0.5) * times - 0.5

    return detector


def levels(path: Path, detector: Callable) -> dict[str, str]:
    return {check.name: check.level for check in audit(path, scan_file(path), COUNT, detector)}


@pytest.mark.parametrize("name", ["GazeCapture_64.h5", "GazeCapture_aligned_64.h5"])
def test_labels_that_are_right_go_with_the_faces(folder: Path, name: str):
    path = folder / name
    found = {check.name: check for check in audit(path, scan_file(path), COUNT, detector_of(path))}
    assert {name: check.level for name, check in found.items()} == {"faces found": "ok", "irises": "ok", "heads": "ok"}
    assert "pitch +1.00, yaw +1.00" in found["irises"].found
    assert "pitch +1.00, yaw +1.00, 0.0 degrees apart" in found["heads"].found


@pytest.mark.parametrize(
    ("columns", "failing"),
    [((0,), "irises"), ((1,), "irises"), ((2,), "heads"), ((0, 2), "irises heads"), ((1, 3), "irises heads")],
    ids=["gaze pitch", "gaze yaw", "head pitch", "pitch", "yaw"],
)
def test_a_flipped_sign_fails(folder: Path, tmp_path: Path, columns: tuple[int, ...], failing: str):
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    detector = detector_of(path)
    with h5py.File(path, "a") as file:
        for group in file.values():
            labels = group["labels"][()]
            labels[:, list(columns)] *= -1
            group["labels"][...] = labels
    found = levels(path, detector)
    assert [name for name, level in found.items() if level == "FAIL"] == failing.split()


def test_gaze_and_heads_that_have_nothing_to_do_with_the_faces_fail():
    rng = np.random.default_rng(0)
    heads, turned = rng.uniform(-0.6, 0.6, (200, 2)), rng.uniform(-0.2, 0.2, (200, 2))
    labels = np.concatenate([heads + turned, heads], axis=1)
    assert [check.level for check in compare_faces(labels, -turned[:, ::-1], heads)] == ["ok", "ok"]
    assert [check.level for check in compare_faces(labels, -turned[::-1, ::-1], heads)] == ["FAIL", "ok"]
    assert [check.level for check in compare_faces(labels, -turned[:, ::-1], heads[::-1])] == ["ok", "FAIL"]
    assert [check.level for check in compare_faces(labels, -turned[:, ::-1], heads + 0.5)] == ["ok", "FAIL"]


def test_too_few_faces_only_warn(folder: Path):
    path = folder / "GazeCapture_64.h5"
    assert levels(path, detector_of(path, leave_out=2)) == {"faces found": "warning"}


def test_what_does_not_change_is_not_judged():
    rng = np.random.default_rng(0)
    labels = rng.uniform(-0.4, 0.4, (60, 4))
    labels[:, 2] = 0
    turned = labels[:, :2] - labels[:, 2:]
    checks = compare_faces(labels, -turned[:, ::-1], labels[:, 2:] + rng.normal(0, 0.01, (60, 2)))
    assert [check.level for check in checks] == ["ok", "note"]
    assert checks[1].found.startswith("correlate with the labels, pitch not judged (it hardly changes), yaw +")
    wrong = compare_faces(labels, -turned[:, ::-1], -labels[:, 2:])[1]
    assert wrong.level == "FAIL" and wrong.found.endswith("the yaw of the labels is of another sign, frame or image")


def test_unknown_gaze_is_not_judged():
    labels = np.random.default_rng(0).uniform(-0.4, 0.4, (60, 4))
    checks = compare_faces(labels, np.zeros((60, 2)), labels[:, 2:], gaze_known=False)
    assert [(check.name, check.level) for check in checks] == [("heads", "ok")]


def test_a_face_by_hand():
    """Gaze 20 degrees to image left of a frontal head: both irises are a fifth of an eye's width to the left."""
    mesh = mesh_of(np.radians([0, 20, 0, 0]))
    assert iris_offsets(mesh) == pytest.approx((-0.2, 0), abs=1e-9)
    assert head_label(mesh_of(np.radians([0, 0, 10, -25]))) == pytest.approx(np.radians([10, -25]), abs=1e-4)


def test_images_are_enlarged_and_meshes_come_back_to_their_pixels():
    image = np.zeros((128, 128, 3), np.uint8)
    mesh = np.full((478, 2), (511.5, -0.5))  # the outermost corner of the enlarged image
    assert find_mesh(image, lambda large: mesh)[0] == pytest.approx((127.5, -0.5))
    assert find_mesh(image, lambda large: mesh[:468]) is None and find_mesh(image, lambda large: None) is None


def test_the_detector_sees_rgb(folder: Path, tmp_path: Path):
    path, seen = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path)), []
    with h5py.File(path, "a") as file:
        file.attrs["color_order"] = "BGR"
        first = file["00000"]["pixels"][0]
    audit(path, scan_file(path), 1, lambda image: seen.append(image))
    assert np.abs(seen[0].mean(axis=(0, 1)) - first[..., ::-1].mean(axis=(0, 1))).max() < 2


def test_a_wrong_number_of_faces_is_one_line(folder: Path, capsys: pytest.CaptureFixture):
    assert main(["verify", str(folder / "GazeCapture_64.h5"), "--detect", "-1"]) == 2
    assert "--detect: found -1" in capsys.readouterr().err


def test_faces_are_found(folder: Path):
    assert levels(folder / "GazeCapture_64.h5", detect) == {"faces found": "ok", "irises": "ok", "heads": "ok"}
