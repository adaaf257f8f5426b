"""The measuring of estimators on photographs: geometry of the irises, agreement, and the file of faces."""

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from numpy import ndarray

from benchmarks import photo_faces, photographs
from benchmarks.agreement import AIMS, Agreement, Aim, agreement, agreements, is_met, quantities, table
from benchmarks.known_irises import Irises, iris_table, known_irises
from benchmarks.photo_faces import Faces, made_from, read_faces, see_patches
from benchmarks.photo_sheet import draw_arrow
from core.command import UserError
from core.redirection import measure
from core.redirection.iris import (
    CLOSED,
    CORNERS,
    FROM_CORNERS,
    IRISES,
    LIDS,
    LIMBUS,
    eye_in_head,
    lids_apart,
    looked_at,
)
from core.redirection.measure import mesh_of
from dataset import GazeDataset
from preprocess.face_model import GENERIC, HeadPose, make_pose
from preprocess.face_patches import FaceCutter
from preprocess.normalization import ST_ED, label_to_rotation, label_to_vector, normalized_labels
from preprocess.synthetic.dataset import make_dataset

CAMERA = np.array([[900.0, 0, 400], [0, 900.0, 300], [0, 0, 1]])


def project(points: ndarray) -> ndarray:
    seen = points @ CAMERA.T
    return seen[..., :2] / seen[..., 2:]


def made_up_mesh(pose: HeadPose, gaze: ndarray, distance: float) -> ndarray:
    """FaceMesh's points, of which those of the eyes are where eyeballs have them that look at one target."""
    mesh = np.full((478, 2), np.nan)
    target = pose.centre - distance * label_to_vector(gaze)
    centres = pose.eyes + pose.rotation @ FROM_CORNERS
    for eye, (pair, iris) in enumerate(zip(CORNERS, IRISES, strict=True)):
        mesh[list(pair)] = project(pose.eyes[eye])
        axis = (target - centres[eye]) / np.linalg.norm(target - centres[eye])
        mesh[iris] = project(centres[eye] + LIMBUS * axis)
    return mesh


def head_before_camera(head: tuple[float, float], distance: float) -> HeadPose:
    rotation = label_to_rotation(np.deg2rad(head))
    return make_pose(rotation, np.array([0, 0, distance]) - rotation @ GENERIC.centre)


@pytest.mark.parametrize("head", [(0, 0), (15, 0), (0, -30), (-10, 25)])
@pytest.mark.parametrize("gaze", [(0, 0), (12, 0), (-12, 8), (5, -20)])
def test_the_gaze_of_eyeballs_is_found_from_their_irises(head: tuple[float, float], gaze: tuple[float, float]):
    pose, distance = head_before_camera(head, 700.0), 700.0
    mesh = made_up_mesh(pose, np.deg2rad(gaze), distance)
    target = looked_at(mesh, pose, CAMERA)
    labels = np.degrees(normalized_labels(np.eye(3), pose.rotation, pose.centre, pose.eyes, target))
    assert labels[2:4] == pytest.approx(head, abs=1e-6)
    assert labels[:2] == pytest.approx(gaze, abs=0.6)  # corners of a turned head are taken at the middle's depth


def test_irises_at_image_left_are_a_positive_yaw_and_higher_ones_a_positive_pitch():
    pose = head_before_camera((0, 0), 600.0)
    straight = made_up_mesh(pose, np.zeros(2), 600.0)
    for step, sign in (((-2.0, 0.0), (0, 1)), ((0.0, -2.0), (1, 0))):
        moved = straight.copy()
        moved[468:] += step
        target = looked_at(moved, pose, CAMERA)
        gaze = normalized_labels(np.eye(3), pose.rotation, pose.centre, pose.eyes, target)[:2]
        assert np.degrees(gaze) @ sign > 5 and np.abs(np.degrees(gaze) * (1 - np.array(sign))).max() < 1


def test_an_iris_off_its_ball_counts_as_on_the_rim():
    pose = head_before_camera((0, 0), 600.0)
    mesh = made_up_mesh(pose, np.zeros(2), 600.0)
    mesh[468:, 0] -= 60
    assert np.isfinite(looked_at(mesh, pose, CAMERA)).all()


def test_closed_eyes_are_known_by_their_lids():
    mesh = np.zeros((478, 2))
    for (outer, inner), (upper, lower) in zip(CORNERS, LIDS, strict=True):
        mesh[[outer, inner, upper, lower]] = [[0, 0], [20, 0], [10, -4], [10, 2]]
    assert lids_apart(mesh) == pytest.approx(0.3)
    mesh[[upper for upper, _ in LIDS]] = [10, 1]
    assert lids_apart(mesh) < CLOSED


def test_eye_in_head_is_the_gaze_in_the_frame_of_the_head():
    gaze, head = np.deg2rad([[10.0, 30], [0, 20], [12, 0]]), np.deg2rad([[10.0, 30], [0, -10], [0, 0]])
    found = np.degrees(eye_in_head(gaze, head))
    assert found[0] == pytest.approx([0, 0], abs=1e-9)
    assert found[1] == pytest.approx([0, 30], abs=1e-9)
    assert found[2] == pytest.approx([12, 0])


def test_agreement_of_known_numbers():
    reference = np.array([-10.0, 0, 10, 20])
    found = agreement(reference, 0.5 * reference + 1)
    assert found == Agreement(pytest.approx(1), pytest.approx(0.5), pytest.approx(-1.5), pytest.approx(5))
    assert agreement(reference, -reference).correlation == pytest.approx(-1)


def test_too_few_or_equal_samples_have_no_correlation():
    assert np.isnan(agreement(np.array([0.0, 5]), np.array([0.0, 5])).correlation)
    alike = agreement(np.array([0.0, 5, 9]), np.ones(3))
    assert np.isnan(alike.correlation) and alike.slope == pytest.approx(0)
    assert not is_met(Aim(0.0), alike)


def test_each_quantity_is_measured_by_its_own_columns():
    """Labels have the gaze before the head; a change of one angle of the head moves it and the eye in the head."""
    rng = np.random.default_rng(0)
    labels = np.deg2rad(rng.uniform(-20, 20, (50, 4)))
    other = labels.copy()
    other[:, 3] = -other[:, 3]
    found = agreements(labels, other)
    assert found["head yaw"].correlation == pytest.approx(-1) and found["head pitch"].correlation == pytest.approx(1)
    assert found["gaze yaw"].difference == 0 and found["eye-in-head yaw"].correlation < 0.9
    assert quantities(labels)[:, 4:] == pytest.approx(np.degrees(labels[:, :2]))


def test_an_aim_asks_for_correlation_and_slope():
    aim = AIMS["head yaw"]
    assert is_met(aim, Agreement(0.95, 0.9, 0, 0))
    assert not is_met(aim, Agreement(0.95, 0.8, 0, 0)) and not is_met(aim, Agreement(0.92, 1.0, 0, 0))


def test_a_table_tells_mean_and_range_over_runs():
    labels = np.deg2rad(np.random.default_rng(0).uniform(-20, 20, (9, 4)))
    runs = [agreements(labels, labels), agreements(labels, 0.5 * labels)]
    lines = table("x", runs, AIMS).splitlines()
    assert next(line for line in lines if "| gaze yaw" in line).startswith(
        "| gaze yaw | 1.00 (1.00 to 1.00) | 0.75 (0.50 to 1.00) |"
    )


def test_the_angle_off_the_camera_is_that_between_directions():
    assert photographs.off_camera(np.deg2rad([[0, 0], [0, 90], [3.0, 0]])) == pytest.approx(31)


def test_arrows_point_to_image_left_for_a_positive_yaw_and_up_for_a_positive_pitch():
    for label, part in (((0.0, 0.6), np.s_[:, :40]), ((0.6, 0.0), np.s_[:40, :])):
        picture = np.zeros((100, 100, 3), np.uint8)
        draw_arrow(picture, np.array(label), (0.5, 0.5), (255, 255, 255))
        assert picture[part].any() and not picture[60:, 60:].any()


def test_faces_are_written_with_the_reference_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (300, 800, 3), np.uint8).astype(np.uint8)
    cv2.imwrite(str(photos / "a.png"), image)
    cv2.imwrite(str(photos / "nobody.png"), image[:, :400])
    pose = head_before_camera((5, 10), 800.0)
    mesh = made_up_mesh(pose, np.deg2rad([0.0, 0]), 800.0)
    monkeypatch.setattr(photo_faces, "detect_all", lambda image: [mesh] if image.shape[1] == 800 else [])
    monkeypatch.setattr(photo_faces, "to_68", lambda mesh: np.zeros((68, 2)))
    monkeypatch.setattr(FaceCutter, "pose", lambda *_: pose)
    monkeypatch.setattr(FaceCutter, "check", lambda _: None)
    monkeypatch.setattr(photo_faces, "photo_camera", lambda *_: (CAMERA, ""))
    monkeypatch.setattr(photo_faces, "CUTTER", FaceCutter(min_coverage=0.0))
    path = tmp_path / "faces.h5"
    photo_faces.write_faces(path, photos, [])
    faces, facts = read_faces(path)
    assert faces["photographs"].names == ["a.png"] and facts["left_out"] == "photographs: no face found 1"
    assert np.degrees(faces["photographs"].labels[0, :4]) == pytest.approx([0, 0, 5, 10], abs=0.6)
    assert facts["made_from"] == made_from(photos, []) and not facts["gaze_known"]


def test_clips_of_one_name_do_not_write_over_one_another(tmp_path: Path):
    with pytest.raises(UserError, match="talk more than once"):
        photo_faces.write_faces(tmp_path / "faces.h5", None, [Path("a/talk.mp4"), Path("b/talk.mp4")])


def test_a_file_of_something_else_is_not_taken_for_faces(tmp_path: Path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("00001")
    with pytest.raises(UserError, match="none of this benchmark's"):
        read_faces(tmp_path / "other.h5")


def test_names_that_look_into_the_camera_must_be_there():
    faces = Faces(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 8)), ["a.png"])
    with pytest.raises(UserError, match="no face b.png; there are a.png"):
        photographs.into_camera(faces, {}, ["b.png"])
    told = photographs.into_camera(
        faces, {"k": [np.deg2rad([[3.0, 0, 0, 0]]), np.deg2rad([[9.0, 0, 0, 0]])]}, ["a.png"]
    )
    assert "| k | 6.0 | 6.0 | 0.0 | no |" in told


def test_heads_turned_too_far_can_be_left_out():
    labels = np.deg2rad([[0, 0, 0, 20.0, 0, 0, 0, 0], [0, 0, 0, -45.0, 0, 0, 0, 0]])
    faces = photographs.within(Faces(np.zeros((2, 2, 2, 3), np.uint8), labels, ["a", "b"]), 30)
    assert faces.names == ["a"] and len(faces.pixels) == len(faces.labels) == 1


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of rendered faces in groups, with wide framing."""
    out = tmp_path_factory.mktemp("embedded")
    made = {"persons": 4, "samples": 3, "seed": 2, "image_size": 64, "variation": "full", "look": "rendered"}
    make_dataset(out, **made, group_size=2, framing="detected", workers=1, progress=False)
    return out


@pytest.mark.parametrize("name", ["GazeCapture_64.h5", "Columbia_64.h5"])
def test_scenes_drawn_again_have_the_labels_of_the_file(embedded: Path, name: str):
    data = GazeDataset(embedded / name)
    known = known_irises(data, np.arange(len(data)))  # which compares the labels
    assert known.points.shape == known.ahead.shape == (len(data), 2, 2)
    assert (known.points > 0).all() and (known.points < 63).all()
    assert (known.points[:, 0, 0] < known.points[:, 1, 0]).all()  # image left first


def test_irises_are_those_of_the_rows_that_are_asked_for(embedded: Path):
    data = GazeDataset(embedded / "GazeCapture_64.h5")
    rows = np.array([1, 5, 6, 11])
    assert known_irises(data, rows).points == pytest.approx(known_irises(data, np.arange(12)).points[rows])


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [("seed", 3, "have other labels"), ("synthetic", False, "not patches of the embedded")],
)
def test_scenes_that_cannot_be_drawn_again_are_said(
    embedded: Path, tmp_path: Path, attribute: str, value: int, told: str
):
    path = tmp_path / "changed.h5"
    path.write_bytes((embedded / "GazeCapture_64.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value
    with pytest.raises(UserError, match=told):
        known_irises(GazeDataset(path), np.arange(4))


def test_the_table_of_irises_of_known_numbers():
    """Both irises of the first picture at 256 pixels are seen 3 right and 4 up, the others where they are."""
    ahead = np.zeros((4, 2, 2))
    points = ahead + np.array([-6.0, -2, 2, 6])[:, None, None]
    seen = points + np.array([[1.5, -2.0], [0, 0], [0, 0], [0, 0]])[:, None]
    lines = iris_table(seen, Irises(points, ahead), 128).splitlines()
    assert lines[0].startswith("| 8 irises, pixels at 256 |") and lines[2] == "| distance | 0.00 | 1.25 | 5.00 | 75% |"
    assert lines[6].startswith("| right | 0.75 | 0.89 |") and lines[7].startswith("| down | -1.00 | 1.15 |")


def test_a_face_is_looked_for_in_a_patch_with_something_around_it(monkeypatch: pytest.MonkeyPatch):
    looked_in: list[tuple[int, ...]] = []

    def found(image: ndarray) -> ndarray:
        looked_in.append(image.shape)
        return np.full((478, 2), 100.0)

    monkeypatch.setattr(measure, "detect", found)
    mesh = mesh_of(np.zeros((128, 128, 3), np.uint8))
    assert looked_in == [(224, 224, 3)] and mesh is not None and (mesh == 52).all()


def test_a_face_that_no_head_fits_counts_as_found(monkeypatch: pytest.MonkeyPatch):
    meshes = iter([None, np.zeros((478, 2))])
    monkeypatch.setattr(measure, "detect", lambda _: next(meshes))
    seen = see_patches([np.zeros((64, 64, 3), np.uint8)] * 2, ST_ED.resized(64))
    assert seen.rows.tolist() == [1] and np.isnan(seen.labels).all() and seen.irises.shape == (1, 2, 2)
