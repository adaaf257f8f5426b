"""MPIIFaceGaze from generated trees in the official layout: raw images and normalised .mat files."""

import json
import re
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from numpy import ndarray

from dataset import GazeDataset
from preprocess import conversion
from preprocess.datasets.mpiifacegaze import GIVEN, parse_row
from preprocess.datasets.mpiifacegaze_normalized import measure_field
from preprocess.face_model import head_pose
from preprocess.normalization import (
    View,
    normalized_gaze,
    normalized_head,
    normalizing_rotation,
    undistort_points,
)
from tests.face_geometry import normalize_image
from tests.raw_trees import (
    Camera,
    Shot,
    assert_samples,
    degrees_apart,
    lay_out,
    left_out,
    make_person,
    notes,
    patch_of,
    photograph,
    random_shots,
    read_attributes,
    read_person,
    run_converter,
    write_image,
    write_landmarks,
)

DISTORTION = np.array([-0.16, 0.67, -0.0012, -0.003, -1.02])
CAMERA = Camera(np.array([[250.0, 0, 156], [0, 251, 91], [0, 0, 1]]), 320, 180, DISTORTION)
SCREEN = {"width_pixel": 1280, "height_pixel": 800, "width_mm": 286, "height_mm": 179}
# The screen's first pixel is at the user's top left, which is at image right; its y points down.
MONITOR = {"rvects": np.array([[0], [np.pi], [0]]), "tvecs": np.array([[143.0], [12], [0]])}
# A line of the published text files, and the camera that took the image.
LINE = (
    "day01/0005.jpg 476 758 594 366 637 365 719 366 762 368 626 495 726 496 -0.232179 0.055685 0.018205 28.351504 "
    "1.174807 529.783734 27.792112 23.422692 524.537075 11.040978 166.869249 -27.728178 right"
)
LINE_CAMERA = np.array([[994.735, 0, 624.663], [0, 998.166, 364.087], [0, 0, 1]])
LINE_DISTORTION = np.array([-0.16322, 0.66783, -0.00122, -0.00303, -1.02160])


def shots_of(count: int, seed: int) -> list[Shot]:
    return random_shots(CAMERA, count, seed, distance=(480, 560), spread=0.04)


def line_of(image: str, shot: Shot) -> str:
    """28 fields; the centre is that of the six-point model, 6 mm above the face centre."""
    point = (np.array([143.0, -12]) + shot.target[:2] * [-1, 1]) * np.array([1280 / 286, 800 / 179])
    six, centre = shot.landmarks()[list(GIVEN)].ravel(), shot.centre - shot.rotation @ (0, 6.2, 0)
    numbers = [*point, *np.round(six), 0, 0, 0, *shot.translation, *centre, *shot.target]
    return " ".join([image, *(f"{number:.6f}" for number in numbers), "left"])


def write_person(root: Path, name: str, shots: list[Shot], seed: int = 1) -> Path:
    """A person as published; the exact landmarks go to landmarks/ beside `root`."""
    folder, person, lines = root / name, make_person(seed), []
    for i, shot in enumerate(shots):
        image = f"day{1 + i // 2:02d}/{5 + 3 * i:04d}.jpg"
        write_image(folder / image, photograph(person, shot))
        write_landmarks(root.parent / "landmarks", f"{name}/{image}", shot.landmarks())
        lines.append(line_of(image, shot))
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    calibration = folder / "Calibration"
    calibration.mkdir()
    camera = {"cameraMatrix": CAMERA.matrix, "distCoeffs": DISTORTION[None], "retval": [[0.3]]}
    scipy.io.savemat(calibration / "Camera.mat", camera | {"rvecs": np.zeros((9, 3)), "tvecs": np.zeros((9, 3))})
    scipy.io.savemat(calibration / "monitorPose.mat", MONITOR)
    scipy.io.savemat(calibration / "screenSize.mat", SCREEN)
    return folder


run = partial(run_converter, "mpiifacegaze")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_person(tmp_path / "raw", "p00", shots_of(3, seed=0))
    write_person(tmp_path / "raw", "p01", shots_of(2, seed=1), seed=2)
    return tmp_path / "raw"


# Raw images.


def test_labels_are_found_again(tmp_path: Path):
    shots = shots_of(8, seed=2)
    write_person(tmp_path / "raw", "p00", shots)
    found = read_person(run(tmp_path / "raw"), "p00")
    assert found["name"][:3] == ["p00/day01/0005.jpg", "p00/day01/0008.jpg", "p00/day02/0011.jpg"]
    assert_samples(found, shots, apart=0.05, angles=0.05, border=10, grey=5)


def test_the_distortion_is_taken_out_once(tmp_path: Path):
    """Near the corner of the image, where the distortion moves pixels by some of them."""
    shot = lay_out(CAMERA, distance=560, gaze=(-8, 5), head=(3, 12), at=(-0.42, 0.12), roll=5)
    moved = shot.landmarks() - undistort_points(shot.landmarks(), CAMERA.matrix, DISTORTION)
    assert np.nanmax(np.abs(moved)) > 1
    write_person(tmp_path / "raw", "p00", [shot])
    found = read_person(run(tmp_path / "raw", "--min-coverage", "0.8"), "p00")
    assert np.degrees(found["labels"][0]) == pytest.approx(np.degrees(shot.labels), abs=0.05)
    patch = patch_of(make_person(), shot).astype(float)
    assert np.abs(found["pixels"][0].astype(float) - patch)[30:-10, 45:-10].mean() < 5


def test_the_six_landmarks_of_the_data_set_need_no_detector(tmp_path: Path):
    """They are whole pixels of a small image here, 2 mm at the face: a tenth of the published precision."""
    shots = shots_of(8, seed=3)
    write_person(tmp_path / "raw", "p00", shots)
    out = run(tmp_path / "raw", "--given-landmarks", landmarks=False)
    found, expected = read_person(out, "p00")["labels"], np.stack([shot.labels for shot in shots])
    assert len(found) == 8 and json.loads(read_attributes(out)["options"])["landmarks"] == "given"
    assert degrees_apart(found[:, :2], expected[:, :2]).max() < 1.5
    assert np.median(degrees_apart(found[:, 2:4], expected[:, 2:4])) < 2


def test_where_no_face_or_another_one_is_found_the_six_landmarks_serve(tree: Path):
    landmarks = tree.parent / "landmarks/p00/day01"
    np.save(landmarks / "0005.jpg.npy", [])
    np.save(landmarks / "0008.jpg.npy", np.load(landmarks / "0008.jpg.npy") * 0.7 + 20)
    out = run(tree)
    assert len(read_person(out, "p00")["labels"]) == 3
    assert notes(out) == {
        "head pose from the data set's six landmarks: face found is not the annotated one": 1,
        "head pose from the data set's six landmarks: no face found": 1,
    }


def test_a_published_line_is_read_and_its_landmarks_give_its_face_centre():
    row = parse_row(LINE)
    assert row.image == "day01/0005.jpg" and row.screen_point.tolist() == [476, 758]
    assert row.landmarks[36].tolist() == [594, 366] and row.landmarks[54].tolist() == [726, 496]
    assert row.target == pytest.approx([11.040978, 166.869249, -27.728178])
    pose = head_pose(undistort_points(row.landmarks, LINE_CAMERA, LINE_DISTORTION), LINE_CAMERA, use=GIVEN)
    assert np.linalg.norm(pose.centre - row.centre) < 25 and pose.relative_error < 0.05
    rotation = normalizing_rotation(pose.centre, pose.rotation)
    pitch, yaw = np.degrees(normalized_gaze(rotation, row.target - pose.centre))
    assert -25 < pitch < -5 and abs(yaw) < 10  # the screen is below the camera


def test_training_reads_the_file(tree: Path):
    out = run(tree, "--frames-every", "2")
    data = GazeDataset(out)
    assert data.person_ids == ["p00", "p01"] and len(data) == 3
    found = read_attributes(out)
    assert found["dataset"] == "MPIIFaceGaze" and json.loads(found["split"]) == {"test": ["p00", "p01"]}


def test_two_workers_write_the_same_file_as_one(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion, "_now", lambda: "2026-01-02T03:04:05Z")
    assert run(tree).read_bytes() == run(tree, "--workers", "2", out="two.h5").read_bytes()


def test_a_data_folder_in_between_is_accepted(tmp_path: Path):
    write_person(tmp_path / "raw" / "Data", "p00", shots_of(1, seed=0))
    (tmp_path / "raw" / "landmarks").rename(tmp_path / "landmarks")
    assert GazeDataset(run(tmp_path / "raw")).person_ids == ["p00"]


def test_lines_and_images_that_cannot_be_used_are_left_out_for_a_reason(tmp_path: Path, capsys):
    shots = shots_of(7, seed=4)
    folder = write_person(tmp_path / "raw", "p00", shots)
    lines = (folder / "p00.txt").read_text().splitlines()
    lines[0] = lines[0].rsplit(" ", 3)[0]
    lines[1] = lines[1].replace(" left", " left extra")
    lines[2] = lines[2].replace(lines[2].split()[5], "x", 1)
    fields = lines[3].split()
    fields[1] = "900"
    lines[3] = " ".join(fields)
    (folder / "day03/0017.jpg").unlink()
    (folder / "day03/0020.jpg").write_bytes(b"no image")
    write_image(folder / "day09/0001.jpg", np.zeros((8, 8, 3), np.uint8))
    (folder / "p00.txt").write_text("\n".join(lines) + "\n")
    out = run(tmp_path / "raw")
    assert read_person(out, "p00")["name"] == ["p00/day04/0023.jpg"]
    assert left_out(out) == {
        "image cannot be read": 1,
        "image without annotation": 1,
        "line cannot be read": 3,
        "no such image": 1,
        "target is not at the point on the screen": 1,
    }
    said = capsys.readouterr().out
    assert "p00/p00.txt:1: line cannot be read (found 25 fields, expected 28)\n" in said
    assert "p00/p00.txt:2: line cannot be read (found 29 fields, expected 28)\n" in said


def no_camera(folder: Path) -> None:
    (folder / "Calibration/Camera.mat").unlink()


def damaged_camera(folder: Path) -> None:
    path = folder / "Calibration/Camera.mat"
    path.write_bytes(path.read_bytes()[:200])


def other_camera(folder: Path) -> None:
    scipy.io.savemat(folder / "Calibration/Camera.mat", {"cameraMatrix": np.eye(2), "distCoeffs": DISTORTION})


def camera_of(folder: Path, **values: object) -> None:
    given = {"cameraMatrix": CAMERA.matrix, "distCoeffs": DISTORTION}
    scipy.io.savemat(folder / "Calibration/Camera.mat", given | values)


def three_distortions(folder: Path) -> None:
    camera_of(folder, distCoeffs=DISTORTION[:3])


def no_distortions(folder: Path) -> None:
    camera_of(folder, distCoeffs=np.zeros((0, 0)))


def no_focal_length(folder: Path) -> None:
    camera_of(folder, cameraMatrix=np.diag([0.0, 250, 1]))


def no_text(folder: Path) -> None:
    (folder / "p00.txt").unlink()


def empty(folder: Path) -> None:
    (folder / "p00.txt").write_text("\n")
    for path in folder.glob("day*/*.jpg"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (no_camera, "p00: person cannot be converted (no Calibration/Camera.mat)"),
        (damaged_camera, "p00: person cannot be converted (Calibration/Camera.mat cannot be read"),
        (other_camera, "p00: person cannot be converted (Camera.mat: cameraMatrix is (2, 2)"),
        (three_distortions, "p00: person cannot be converted (Camera.mat: distCoeffs is (1, 3) or not finite"),
        (no_distortions, "p00: person cannot be converted (Camera.mat: distCoeffs is (0, 0) or not finite"),
        (no_focal_length, "p00: person cannot be converted (Camera.mat: cameraMatrix [[0.0, 0.0, 0.0], [0.0, 250.0, "),
        (no_text, "p00: person cannot be converted (p00.txt cannot be read"),
        (empty, "p00: person without samples (nothing there)"),
    ],
)
def test_a_damaged_person_gives_one_line_and_the_other_is_converted(tree: Path, damage, line: str, capsys):
    damage(tree / "p00")
    out = run(tree)
    said = [text for text in capsys.readouterr().out.splitlines() if text.startswith("p00")]
    assert len(said) == 1 and said[0].startswith(line)
    assert GazeDataset(out).person_ids == ["p01"]


@pytest.mark.parametrize(
    ("file", "values", "problem"),
    [
        ("monitorPose", None, "no Calibration/monitorPose.mat"),
        ("screenSize", None, "no Calibration/screenSize.mat"),
        ("monitorPose", {"tvecs": [1, 2, 3]}, "Calibration/monitorPose.mat has no rvects or rvecs"),
        ("monitorPose", MONITOR | {"rvects": np.ones((2, 1))}, "monitorPose.mat: rvects or rvecs is (2, 1) or not"),
        ("monitorPose", MONITOR | {"rvects": np.eye(3)}, "monitorPose.mat: rvects or rvecs is (3, 3) or not finite"),
        ("monitorPose", MONITOR | {"tvecs": [1, 2]}, "monitorPose.mat: tvecs is (1, 2) or not finite, expected 3"),
        ("screenSize", SCREEN | {"width_pixel": 0}, "screenSize.mat: width_mm, width_pixel, height_mm, height_pixel"),
    ],
)
def test_without_the_screen_s_calibration_the_targets_are_not_checked(
    tree: Path, file: str, values: dict | None, problem: str, capsys
):
    path = tree / f"p00/Calibration/{file}.mat"
    path.unlink()
    if values:
        scipy.io.savemat(path, values)
    out = run(tree)
    assert len(GazeDataset(out)) == 5
    assert left_out(out) == {"screen calibration cannot be used, targets are not checked": 1}
    said = f"p00: screen calibration cannot be used, targets are not checked ({problem}"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize("name", ["rvects", "rvecs"])
def test_targets_that_are_not_at_the_point_on_the_screen_are_left_out(tmp_path: Path, name: str):
    """By either name that the turn of the screen has in the publication."""
    folder = write_person(tmp_path / "raw", "p00", shots_of(3, seed=0))
    scipy.io.savemat(folder / "Calibration/monitorPose.mat", {name: MONITOR["rvects"], "tvecs": MONITOR["tvecs"]})
    lines = [line.split() for line in (folder / "p00.txt").read_text().splitlines()]
    lines[1][24] = "400"
    (folder / "p00.txt").write_text("\n".join(map(" ".join, lines)) + "\n")
    out = run(tmp_path / "raw")
    assert read_person(out, "p00")["name"] == ["p00/day01/0005.jpg", "p00/day02/0011.jpg"]
    assert left_out(out) == {"target is not at the point on the screen": 1}


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("Data/Original/p00/day01/annotation.txt", "."),
        ("Data/Original/p00/day01/annotation.txt", "Data/Original"),
        ("Data/Normalized/p00/day01.mat", "Data/Normalized"),
    ],
)
def test_the_eyes_only_release_is_refused(tmp_path: Path, file: str, named: str, capsys):
    path = tmp_path / "raw" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    run(tmp_path / "raw" / named, "--given-landmarks", landmarks=False, code=2)
    assert "This is MPIIGaze, whose images show the eyes alone: faces are in MPIIFaceGaze." in capsys.readouterr().err


def test_another_level_of_the_data_is_told_which_to_name(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "data/MPII/p00/day01").mkdir(parents=True)
    (tmp_path / "data/MPII/p00.txt").write_text("")
    for wrong in ("data", "data/MPII/p00"):
        run(tmp_path / wrong, "--given-landmarks", landmarks=False, code=2)
        assert f"Name the folder that holds p00: {tmp_path / 'data/MPII'}.\n" in capsys.readouterr().err
    run(tmp_path / "data/MPII/p00/day01", "--given-landmarks", landmarks=False, code=2)
    assert "Name the folder that holds p00.\n" in capsys.readouterr().err


# Normalised .mat files.

SIZE = 96


def published_patch(shot: Shot, field: float, person) -> tuple[ndarray, ndarray]:
    """(3, SIZE, SIZE) uint8 BGR and (16,) labels with the six landmarks, about the six-point model's centre."""
    centre = shot.centre - shot.rotation @ (0, 6.2, 0)
    view = View(SIZE * 600 / field, 600, SIZE, principal=SIZE / 2)
    patch, rotation, matrix = normalize_image(photograph(person, shot), CAMERA.matrix, centre, shot.rotation, view)
    six = shot.landmarks()[list(GIVEN)] @ matrix[:, :2].T + matrix[:, 2]
    gaze = normalized_gaze(rotation, shot.target - centre)
    label = [*gaze, *normalized_head(rotation, shot.rotation), *(six[:, :2] / six[:, 2:]).ravel()]
    return patch[..., ::-1].transpose(2, 0, 1), np.array(label)


def normalized_shots(count: int, seed: int) -> list[Shot]:
    """Looking down, from 600 mm, by a camera without distortion."""
    rng, plain, shots = np.random.default_rng(seed), Camera(CAMERA.matrix, 320, 180), []
    for _ in range(count):
        head, at = rng.uniform(-15, 15, 2), tuple(rng.uniform(-0.03, 0.03, 2))
        gaze = (-8 + rng.uniform(-6, 6), head[1] + rng.uniform(-10, 10))
        shots.append(lay_out(plain, distance=600, gaze=gaze, head=tuple(head), at=at, roll=rng.uniform(-9, 9)))
    return shots


def write_mat(root: Path, name: str, shots: list[Shot], field: float = 140, sign: int = 1, columns: int = 16) -> None:
    root.mkdir(exist_ok=True)
    patches, labels = zip(*(published_patch(shot, field, make_person()) for shot in shots), strict=True)
    labels = np.stack(labels)[:, :columns] * ([sign, sign] + [1] * (columns - 2))
    with h5py.File(root / f"{name}.mat", "w") as file:
        file["Data/data"], file["Data/label"] = np.stack(patches).astype(np.float32), labels


@pytest.mark.parametrize(("field", "sign"), [(140, 1), (280, 1), (140, -1)])
def test_normalised_patches_are_normalised_again(tmp_path: Path, field: float, sign: int):
    shots = normalized_shots(20, seed=5)
    write_mat(tmp_path / "raw", "p00", shots, field, sign)
    out = run(tmp_path / "raw", *["--opposite-gaze"] * (sign < 0), landmarks=False)
    found = read_person(out, "p00")
    expected = np.stack([shot.labels for shot in shots])
    assert degrees_apart(found["labels"][:, :2], expected[:, :2]).max() < 0.1
    assert degrees_apart(found["labels"][:, 2:4], expected[:, 2:4]).max() < 0.1
    assert np.degrees(np.abs(found["labels"] - expected)).max() < 0.3
    differences = [
        np.abs(pixels.astype(float) - patch_of(make_person(), shot))[16:-16, 12:-12].mean()
        for pixels, shot in zip(found["pixels"], shots, strict=True)
    ]
    assert np.mean(differences) < 5
    attributes = read_attributes(out)
    assert json.loads(attributes["options"])["field_mm"] == field
    padded = {"padded with the border of the published patch": 20} if field == 140 else {}
    assert notes(out) == padded
    assert attributes["field_of_view"].startswith("patches show 140 of 153.6 mm" if field == 140 else "whole")
    assert GazeDataset(out).person_ids == ["p00"] and attributes["color_order"] == "RGB"


def test_rows_are_chosen_and_named(tmp_path: Path):
    write_mat(tmp_path / "raw", "p03", normalized_shots(7, seed=6))
    out = run(tmp_path / "raw", "--frames-every", "3", landmarks=False)
    whole = run(tmp_path / "raw", landmarks=False, out="whole.h5")
    assert read_person(out, "p03")["name"] == ["p03.mat:0", "p03.mat:3", "p03.mat:6"]
    assert (read_person(out, "p03")["pixels"] == read_person(whole, "p03")["pixels"][::3]).all()


@pytest.mark.parametrize(
    ("written", "asked", "message"),
    [
        ({"sign": -1}, [], "degrees upwards, but the screen is below the camera.*Pass --opposite-gaze"),
        ({}, ["--opposite-gaze"], "Leave out --opposite-gaze"),
        ({"field": 200}, [], "not known .it measures 20. mm.. Pass --field MM"),
        ({"columns": 4}, [], "there are no landmarks to measure it.. Pass --field MM"),
        ({}, ["--field", "280"], "--field: 280 mm, but by the landmarks in the files it is about 1[34]. mm"),
        ({}, ["--given-landmarks"], "are for the raw images"),
        ({}, ["--max-pose-error", "0.01"], "--max-pose-error and --min-coverage are for the raw images"),
        ({}, ["--min-coverage", "0.5"], "--max-pose-error and --min-coverage are for the raw images"),
    ],
)
def test_where_going_on_would_be_wrong_it_stops(tmp_path: Path, written: dict, asked: list, message: str, capsys):
    write_mat(tmp_path / "raw", "p00", normalized_shots(8, seed=7), **written)
    run(tmp_path / "raw", *asked, landmarks=False, code=2)
    captured = capsys.readouterr().err
    assert re.search(message, captured), captured
    assert not (tmp_path / "out.h5").exists()


def test_the_field_is_measured_on_turned_heads_too():
    """100 pixels of 140 mm: eyes' outer corners 91 mm apart, of a head turned by 40 degrees, are 50 pixels apart."""
    labels = np.zeros((5, 16))
    labels[:, 3] = np.deg2rad([-40, -40, 40, 40, 40])
    labels[:, [4, 5, 10, 11]] = 20, 40, 20 + 100 * 91 / 140 * np.cos(np.deg2rad(40)), 40
    assert measure_field(labels, 100) == pytest.approx(140, abs=0.01)


def test_the_field_can_be_given(tmp_path: Path):
    write_mat(tmp_path / "raw", "p00", normalized_shots(4, seed=8), field=200, columns=4)
    out = run(tmp_path / "raw", "--field", "200", landmarks=False)
    assert json.loads(read_attributes(out)["options"])["field_mm"] == 200


def test_a_damaged_mat_file_gives_one_line_and_the_other_is_converted(tmp_path: Path, capsys):
    write_mat(tmp_path / "raw", "p00", normalized_shots(4, seed=9))
    (tmp_path / "raw/p01.mat").write_bytes((tmp_path / "raw/p00.mat").read_bytes()[:5000])
    with h5py.File(tmp_path / "raw/p02.mat", "w") as file:
        file["Data/data"], file["Data/label"] = np.zeros((3, 3, 8, 8)), np.zeros((2, 16))
    out = run(tmp_path / "raw", landmarks=False)
    said = capsys.readouterr().out
    assert said.count("p01: person cannot be converted (p01.mat cannot be read as MATLAB 7.3") == 1
    assert "p02: person cannot be converted (p02.mat: 3 images but 2 labels)" in said
    assert GazeDataset(out).person_ids == ["p00"]
