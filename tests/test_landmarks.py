"""Landmarks from files and from the detector, the face model, and the pose of a head from landmarks."""

import codecs
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from core.command import UserError
from preprocess.face_model import EYE_CORNERS, GENERIC, RIGID, HeadPose, head_pose, load_face_model, make_pose
from preprocess.face_patches import FaceCutter, LeftOut, Sample
from preprocess.landmarks import (
    MESH_TO_68,
    BadLandmarks,
    detect,
    detect_all,
    landmark_folder,
    landmark_source,
    read_landmarks,
    to_68,
)
from preprocess.normalization import ST_ED, label_to_rotation, normalized_head, normalizing_rotation
from preprocess.synthetic.drawn.head import build_person
from preprocess.synthetic.drawn.person import draw_identity, without_extras
from preprocess.synthetic.drawn.render import render
from preprocess.synthetic.scene import Scene

CAMERA = np.array([[620.0, 0, 325], [0, 615, 236], [0, 0, 1]])
FIXED = settings(deadline=None, derandomize=True, database=None, max_examples=60)
ROOT = Path(__file__).resolve().parent.parent

poses = st.tuples(st.floats(-0.8, 0.8), st.floats(-1.4, 1.4), st.floats(-0.7, 0.7)).map(np.array)
places = st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(250, 2500)).map(
    lambda c: np.array([c[0] * c[2], c[1] * c[2], c[2]])
)


def turned(pose: ndarray) -> ndarray:
    return cv2.Rodrigues(np.array([0, 0, pose[2]]))[0] @ label_to_rotation(pose[:2])


def seen(rotation: ndarray, translation: ndarray, camera: ndarray = CAMERA) -> ndarray:
    """(68, 2): the generic face's landmarks in a photograph, NaN where it has none."""
    points = GENERIC.points @ rotation.T + translation
    landmarks = np.full((68, 2), np.nan)
    landmarks[list(GENERIC.landmarks)] = (points[:, :2] / points[:, 2:]) * np.diag(camera)[:2] + camera[:2, 2]
    return landmarks


def degrees_between(a: ndarray, b: ndarray) -> float:
    return float(np.degrees(np.linalg.norm(cv2.Rodrigues(a.T @ b)[0])))


# The pose of a head.


@FIXED
@given(poses, places)
def test_exact_landmarks_give_the_exact_pose(pose: ndarray, place: ndarray):
    rotation = turned(pose)
    found = head_pose(seen(rotation, place), CAMERA)
    assert degrees_between(found.rotation, rotation) < 0.01
    assert found.translation == pytest.approx(place, rel=1e-4, abs=0.01)
    assert found.error_px < 1e-3 and found.outliers == ()
    assert found.centre == pytest.approx(place + rotation @ (0, 30, 0), rel=1e-4, abs=0.01)


@FIXED
@given(poses, places)
def test_exact_landmarks_give_the_exact_labels(pose: ndarray, place: ndarray):
    rotation = turned(pose)
    exact, found = make_pose(rotation, place), head_pose(seen(rotation, place), CAMERA)
    labels = [normalized_head(normalizing_rotation(p.centre, p.rotation), p.rotation) for p in (exact, found)]
    assert np.degrees(labels[1]) == pytest.approx(np.degrees(labels[0]), abs=0.05)


def noisy_poses(outliers: int, count: int = 60) -> list[tuple[float, HeadPose]]:
    """Errors in degrees, and poses found, for half a pixel of noise and some landmarks 20 to 80 mm off."""
    rng, results = np.random.default_rng(0), []
    for _ in range(count):
        rotation = turned(rng.uniform((-0.6, -1, -0.4), (0.6, 1, 0.4)))
        place = np.array([*rng.uniform(-80, 80, 2), rng.uniform(300, 400)])
        landmarks = seen(rotation, place) + rng.normal(0, 0.5, (68, 2))
        for i in rng.choice(RIGID, outliers, replace=False):
            landmarks[i] += rng.choice([-1, 1], 2) * rng.uniform(15, 60, 2) * CAMERA[0, 0] / place[2]
        found = head_pose(landmarks, CAMERA)
        results.append((degrees_between(found.rotation, rotation), found))
    return results


def test_half_a_pixel_of_noise_costs_less_than_half_a_degree():
    errors, found = zip(*noisy_poses(outliers=0), strict=True)
    assert np.median(errors) < 0.45 and np.percentile(errors, 95) < 1.0
    assert all(0.2 < pose.error_px < 1.2 and pose.relative_error < 0.03 for pose in found)


def test_one_landmark_far_off_has_no_say():
    errors, found = zip(*noisy_poses(outliers=1), strict=True)
    assert np.median(errors) < 0.5 and max(errors) < 2
    assert all(len(pose.outliers) == 1 and pose.relative_error < 0.03 for pose in found)


def test_the_error_is_that_of_a_face_of_another_shape():
    """Eye corners 3 mm too far out, a fifth of a centimetre at 620 mm: pixels, and parts of the eyes' 64.5 mm."""
    rotation, place = np.eye(3), np.array([0, 0, 620.0])
    landmarks = seen(rotation, place)
    landmarks[[36, 45]] += [[-3, 0], [3, 0]]
    found = head_pose(landmarks, CAMERA)
    assert 0.3 < found.error_px < 1.5
    assert found.relative_error == pytest.approx(found.error_px / 64.5, rel=0.1)  # 1 pixel is 1 mm here


def test_six_landmarks_will_do():
    rotation, place = turned(np.array([0.2, -0.5, 0.1])), np.array([30.0, -40, 600])
    six = (*EYE_CORNERS, 48, 54)
    landmarks = np.full((68, 2), np.nan)
    landmarks[list(six)] = seen(rotation, place)[list(six)]
    assert degrees_between(head_pose(landmarks, CAMERA, use=six).rotation, rotation) < 0.01
    with pytest.raises(ValueError, match="found 4 usable landmarks, expected at least 6"):
        head_pose(landmarks, CAMERA)


def test_mirrored_landmarks_are_refused_as_a_flipped_face():
    landmarks = seen(turned(np.array([0.1, 0.3, 0])), np.array([0, 0, 600.0]))
    swapped = landmarks.copy()
    swapped[[36, 39, 42, 45, *range(31, 36)]] = landmarks[[45, 42, 39, 36, *range(35, 30, -1)]]
    with pytest.raises(ValueError, match="mirrored"):
        head_pose(swapped, CAMERA)


@pytest.mark.parametrize("points", [np.full((68, 2), 100.0), np.random.default_rng(1).uniform(0, 600, (68, 2))])
def test_points_that_are_no_face_are_refused(points: ndarray):
    with pytest.raises(ValueError, match="no face|faces|behind"):
        head_pose(points, CAMERA)


def test_the_same_landmarks_give_the_same_pose():
    landmarks = seen(turned(np.array([0.1, 0.3, 0])), np.array([0, 0, 600.0]))
    landmarks += np.random.default_rng(0).normal(0, 3, (68, 2))
    first, second = (head_pose(landmarks, CAMERA) for _ in range(2))
    assert (first.rotation == second.rotation).all() and first.error_px == second.error_px


def test_roll_is_clockwise_and_near_zero_for_an_upright_face():
    for roll in (0.0, 0.6, -2.8):
        assert make_pose(turned(np.array([0, 0, roll])), np.array([0, 0, 500.0])).roll == pytest.approx(roll)


@pytest.mark.parametrize(("degrees", "kept"), [(79, True), (81, False)])
def test_gaze_of_more_than_80_degrees_is_left_out(degrees: float, kept: bool):
    """From the face's centre, 600 mm before the camera, to a target 500 mm away."""
    for side, down in ((0, 1), (1, 0)):
        turn = np.deg2rad(degrees)
        target = np.array([0, 0, 600]) - 500 * np.array([side * np.sin(turn), down * np.sin(turn), np.cos(turn)])
        pose = make_pose(np.eye(3), np.array([0, -30, 600.0]))
        found = FaceCutter().cut(np.zeros((480, 640, 3), np.uint8), "a", CAMERA, pose, target)
        assert isinstance(found, Sample if kept else LeftOut)
        assert kept or found.reason == "gaze is more than 80 degrees from the camera"


# The face model.


def test_the_face_centre_is_30_mm_below_the_eyes():
    assert GENERIC.eyes.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-9)
    assert GENERIC.centre.tolist() == [0, 30, 0]
    assert GENERIC.eyes[0, 0] == pytest.approx(-32.25)


def test_the_face_is_symmetric():
    swap = {31: 35, 32: 34, 36: 45, 39: 42, 48: 54}
    for i, j in {**swap, 27: 27, 28: 28, 29: 29, 30: 30, 33: 33, 8: 8}.items():
        assert GENERIC[(i,)][0] == pytest.approx(GENERIC[(j,)][0] * (-1, 1, 1))


def test_published_14_points_are_read_in_their_order(tmp_path: Path):
    np.save(tmp_path / "face.npy", np.vstack([GENERIC[RIGID], [0.0, 31.0, 1.0]]))
    model = load_face_model(tmp_path / "face.npy")
    assert model.landmarks == (27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45)
    assert model.eyes == pytest.approx(GENERIC.eyes) and model.centre.tolist() == [0, 31, 1]


def test_68_points_may_have_any_origin(tmp_path: Path):
    points = np.random.default_rng(0).uniform(-40, 40, (68, 3))
    points[list(GENERIC.landmarks)] = GENERIC.points
    np.save(tmp_path / "face.npy", points + (5, -70, 200))
    model = load_face_model(tmp_path / "face.npy")
    assert model[RIGID] == pytest.approx(GENERIC[RIGID]) and model.centre.tolist() == [0, 30, 0]


def test_the_50_points_of_eth_xgaze_are_turned_to_the_published_frame(tmp_path: Path):
    """Their six used points; the centre of eyes and nostrils lies (0, 23.6, -8.3) from the eyes, 1 % more or less."""
    points = np.zeros((50, 3))
    used = {20: (-46.51, -38.33, 36.42), 23: (-17.76, -32.59, 29.08), 26: (18.04, -30.96, 29.06)}
    used |= {29: (44.74, -34.11, 36.73), 15: (-10.61, 12.96, 21.62), 19: (11.29, 13.86, 21.84), 14: (0, 3, 0)}
    points[list(used)] = list(used.values())
    np.save(tmp_path / "face.npy", points)
    model = load_face_model(tmp_path / "face.npy")
    centre = (model[EYE_CORNERS].mean(axis=0) + model[(31, 35)].mean(axis=0)) / 2
    assert centre == pytest.approx([0.36, 23.0, -8.1], abs=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p / 1000, "0.091 apart, expected 70 to 120"),
        (lambda p: p * (1, -1, -1), "y must point down.*z must point into the head"),
        (lambda p: p * (-1, 1, 1), "smaller x"),
        (lambda p: p[:13], "found shape"),
        (lambda p: p[:, :2], "found shape"),
    ],
)
def test_a_face_model_in_another_frame_is_refused(tmp_path: Path, change, message: str):
    np.save(tmp_path / "face.npy", change(np.vstack([GENERIC[RIGID], [0, 30, 0]])))
    with pytest.raises(UserError, match=f"face.npy.*{message}"):
        load_face_model(tmp_path / "face.npy")


def test_a_missing_or_damaged_face_model_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="none.npy"):
        load_face_model(tmp_path / "none.npy")
    (tmp_path / "face.npy").write_text("v 1 2 3")
    with pytest.raises(UserError, match="face.npy: not a .npy file"):
        load_face_model(tmp_path / "face.npy")


# Landmarks from files.


def test_meshes_become_68_landmarks():
    mesh = np.random.default_rng(0).uniform(0, 500, (478, 3))
    points = to_68(mesh)
    assert points.shape == (68, 2) and len(MESH_TO_68) == 68
    assert points[36] == pytest.approx(mesh[33, :2]) and points[45] == pytest.approx(mesh[263, :2])
    assert points[28] == pytest.approx((mesh[6, :2] + mesh[197, :2]) / 2)
    assert to_68(points) == pytest.approx(points)
    with pytest.raises(ValueError, match=r"\(5, 2\), expected \(68, 2\)"):
        to_68(np.zeros((5, 2)))


def written(path: Path, points: ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, points)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"landmarks": points.tolist()} if "key" in path.stem else points.tolist()))
    else:
        header = "x,y\n" if "header" in path.stem else ""
        path.write_text(header + "\n".join(f"{x},{y}" for x, y in points) + "\n")
    return path


POINTS = np.random.default_rng(3).uniform(10, 600, (68, 2))


@pytest.mark.parametrize("name", ["a.npy", "a.json", "a_key.json", "a.csv", "a_header.csv"])
def test_every_format_of_landmarks_reads_the_same(tmp_path: Path, name: str):
    assert read_landmarks(written(tmp_path / name, POINTS)) == pytest.approx(POINTS)


@pytest.mark.parametrize("name", ["a.json", "a_key.json", "a.csv", "a_header.csv"])
def test_landmarks_are_read_with_a_byte_order_mark(tmp_path: Path, name: str):
    path = written(tmp_path / name, POINTS)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert read_landmarks(path) == pytest.approx(POINTS)


@pytest.mark.parametrize(("name", "text"), [("a.json", "null"), ("a.json", "[]"), ("a.csv", ""), ("a.csv", "x,y\n")])
def test_a_file_can_say_that_there_is_no_face(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    assert read_landmarks(tmp_path / name) is None


HEADER = "\x93NUMPY\1\0\x76\0{:<117}\n"  # 118 bytes of header, in Latin 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "cannot be read as landmarks"),
        ("a.json", '{"points": []}', "cannot be read as landmarks.*landmarks"),
        ("a.csv", "1,2\n3\n", "cannot be read as landmarks"),
        ("a.csv", "1,2\n3,4\n", r"shape \(2, 2\), expected \(68, 2\)"),
        ("a.csv", "0.5,0.4\n" * 68, "parts of the image's size; expected pixels"),
        ("a.csv", "inf,4\n" * 68, "infinite"),
        ("a.npy", "no numpy", "cannot be read as landmarks"),
        ("a.npy", "PK\3\4no archive", "cannot be read as landmarks"),
        ("a.npy", "\x93NUMPY", "cannot be read as landmarks"),
        ("a.npy", HEADER.format("(" * 50), "cannot be read as landmarks"),
        ("a.npy", HEADER.format("{'descr': '<f8', 'fortran_order': False, 'shape': (10**9,)}"), "cannot be read"),
        ("a.npy", HEADER.format("{'descr': '<f8', 'fortran_order': False, 'shape': (9000000000000, 2)}"), "cannot be"),
        ("a.json", "[" * 100_000, "cannot be read as landmarks.*nested too deep"),
        ("a.json", "[[1" + "0" * 400 + ", 2]]", "cannot be read as landmarks"),
        ("a.json", "[[1" + "0" * 5000 + ", 2]]", "cannot be read as landmarks"),
        ("a.json", "[[1e400, 2]]", "expected"),
    ],
)
def test_a_damaged_file_of_landmarks_is_named(tmp_path: Path, name: str, text: str, message: str):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadLandmarks, match=f"{name}: .*{message}"):
        read_landmarks(tmp_path / name)


def test_a_folder_of_landmarks_mirrors_the_images(tmp_path: Path):
    (tmp_path / "p00" / "day01").mkdir(parents=True)
    written(tmp_path / "p00" / "day01" / "0005.csv", POINTS)
    written(tmp_path / "p00" / "day01" / "0006.jpg.npy", POINTS + 1)
    source, image = landmark_source(tmp_path), np.zeros((4, 4, 3), np.uint8)
    assert source(image, "p00/day01/0005.jpg") == pytest.approx(POINTS)
    assert source(image, "p00/day01/0006.jpg") == pytest.approx(POINTS + 1)
    with pytest.raises(FileNotFoundError, match=r"p00/day01/0007.jpg.npy, .json, .csv"):
        source(image, "p00/day01/0007.jpg")


def test_a_missing_file_of_landmarks_is_not_taken_for_no_face(tmp_path: Path):
    written(tmp_path / "b.csv", POINTS)
    (tmp_path / "c.json").write_text("null")
    cutter, image = FaceCutter(tmp_path), np.zeros((4, 4, 3), np.uint8)
    missing, none = (cutter.find_pose(image, name, CAMERA) for name in ("a.jpg", "c.jpg"))
    assert (missing.reason, none.reason) == ("no landmark file", "no face found")
    assert missing.detail == f"{tmp_path}/a.jpg.npy, .json, .csv"


def test_a_folder_without_landmarks_is_refused(tmp_path: Path):
    (tmp_path / "p00").mkdir()
    (tmp_path / "p00" / "0005.jpg").write_bytes(b"image")
    with pytest.raises(UserError, match=f"--landmarks: {tmp_path} holds no landmark file, .npy"):
        FaceCutter(tmp_path).check()


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="--landmarks: .*nowhere"):
        landmark_folder(tmp_path / "nowhere")


# The detector.


def test_the_options_say_whose_networks_found_the_landmarks_so_that_older_files_go_on():
    assert FaceCutter().options()["landmarks"] == "MediaPipe 0.10.21"
    assert FaceCutter(Path("landmarks")).options()["landmarks"] == "folder"


@pytest.fixture(scope="module")
def person():
    return build_person(without_extras(draw_identity(np.random.default_rng(1))))


@pytest.mark.parametrize("head", [(0.0, 0.0), (0.2, 0.3), (-0.2, -0.3)])
def test_a_drawn_face_is_found_and_its_pose_read(person, head: tuple):
    points = detect(render(person, Scene(head=head), 256))
    assert points.shape == (478, 2)
    pose = head_pose(to_68(points), ST_ED.resized(256).camera_matrix)
    label = normalized_head(normalizing_rotation(pose.centre, pose.rotation), pose.rotation)
    assert np.degrees(label) == pytest.approx(np.degrees(head), abs=8)
    assert pose.relative_error < 0.08


@pytest.mark.parametrize(("height", "width", "at"), [(3000, 4000, (2200, 900)), (450, 1400, (950, 25))])
def test_landmarks_are_pixels_of_the_whole_picture(person, height: int, width: int, at: tuple):
    """A face of 400 pixels, small in a photograph of 12 megapixels or large in a wide one, as if it were alone."""
    face = cv2.resize(render(person, Scene(), 256), (400, 400))
    photograph = np.full((height, width, 3), 127, np.uint8)
    photograph[at[1] : at[1] + 400, at[0] : at[0] + 400] = face
    apart = np.abs(to_68(detect(photograph)) - at - to_68(detect(face)))
    assert apart.max() < 6 and apart.mean() < 2


def crowd(person) -> tuple[ndarray, list[tuple[int, int, int]]]:
    """A photograph of 12 megapixels with a face of each size, and its (left, top, side); faces fill 0.85 of it."""
    rng, photograph = np.random.default_rng(0), np.full((3000, 4000, 3), 127, np.uint8)
    photograph = np.clip(photograph + rng.integers(-5, 6, photograph.shape), 0, 255).astype(np.uint8)
    places = [(400, 300, 50), (3700, 2800, 50), (1500, 1200, 120), (2500, 300, 240), (200, 1900, 900)]
    for left, top, side in places:
        face = cv2.resize(render(person, Scene(head=(0.05, 0.1)), 256), (side, side), interpolation=cv2.INTER_AREA)
        photograph[top : top + side, left : left + side] = face
    return photograph, places


def test_all_faces_from_40_pixels_up_are_found_in_12_megapixels(person):
    photograph, places = crowd(person)
    found = [to_68(mesh) for mesh in detect_all(photograph)]
    assert len(found) == len(places)
    for landmarks in found:
        eyes = landmarks[list(EYE_CORNERS)].mean(axis=0)
        off = [np.abs((eyes - (left, top)) / side - (0.5, 0.31)).max() for left, top, side in places]
        assert min(off) < 0.03
        places.pop(int(np.argmin(off)))


def test_the_largest_face_is_the_first_of_all(person):
    photograph = np.full((600, 900, 3), 127, np.uint8)
    photograph[100:500, 400:800] = cv2.resize(render(person, Scene(), 256), (400, 400))
    [only] = detect_all(photograph)
    np.testing.assert_array_equal(only, detect(photograph))


def test_the_detector_says_nothing_of_its_own():
    code = (
        "import cv2, numpy as np\nfrom preprocess.landmarks import detect, detect_all\n"
        "from preprocess.synthetic.drawn.head import build_person\n"
        "from preprocess.synthetic.drawn.person import draw_identity, without_extras\n"
        "from preprocess.synthetic.drawn.render import render\nfrom preprocess.synthetic.scene import Scene\n"
        "person = build_person(without_extras(draw_identity(np.random.default_rng(1))))\n"
        "assert detect(np.zeros((64, 64, 3), np.uint8)) is None\n"
        "assert len(detect_all(render(person, Scene(), 256))) == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_face_is_none():
    assert detect(np.full((200, 300, 3), 90, np.uint8)) is None


def test_the_detector_takes_8_bit_colour():
    with pytest.raises(ValueError, match="uint8 RGB"):
        detect(np.zeros((20, 20), np.uint8))
