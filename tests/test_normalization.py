"""The normalised camera and the FFHQ crop: signs and numbers by hand, properties over random heads and cameras."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy import ndarray

from preprocess.face_model import GENERIC, make_pose
from preprocess.normalization import (
    ETH_XGAZE,
    ETH_XGAZE_224,
    FAZE,
    ST_ED,
    View,
    apply_homography,
    coverage,
    ffhq_align,
    ffhq_matrix,
    ffhq_quad,
    homography_aligned_to_patch,
    label_to_rotation,
    label_to_vector,
    normalized_gaze,
    normalized_head,
    normalized_labels,
    normalizing_rotation,
    patch_camera,
    rotation_to_label,
    undistort_image,
    undistort_points,
    vector_to_label,
    warp_image,
    warp_matrix,
)
from preprocess.synthetic.aligned import AlignedView
from preprocess.synthetic.drawn.head import build_person
from preprocess.synthetic.drawn.person import draw_identity, without_extras
from preprocess.synthetic.drawn.render import develop, paint
from preprocess.synthetic.scene import Scene, direction_to_pitchyaw, head_rotation, make_view, pitchyaw_to_direction
from tests.face_geometry import mirror_camera_matrix, mirror_labels, mirror_rotation, normalize_image

CAMERA = np.array([[620.0, 0, 325], [0, 615, 236], [0, 0, 1]])  # of 640x480
# Middles of the eyes of the published 14-point model.
PUBLISHED_EYES = np.array([[-32.64, -0.06, -0.115], [32.635, 0.06, 0.115]])

FIXED = settings(deadline=None, derandomize=True, database=None, max_examples=60)

angles = st.tuples(st.floats(-1.4, 1.4), st.floats(-3.0, 3.0)).map(np.array)
heads = st.tuples(st.floats(-1.0, 1.0), st.floats(-1.3, 1.3)).map(np.array)
rolls = st.floats(-0.8, 0.8)
centres = st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(200, 3000)).map(
    lambda c: np.array([c[0] * c[2], c[1] * c[2], c[2]])
)
targets = st.tuples(st.floats(-400, 400), st.floats(-400, 400), st.floats(-100, 100)).map(np.array)
views = st.sampled_from([ST_ED, FAZE, ETH_XGAZE, ETH_XGAZE_224, View(300.0, 450.0, 96)])


def rolled(roll: float) -> ndarray:
    return cv2.Rodrigues(np.array([0.0, 0.0, roll]))[0]


def degrees(*values: float) -> list[float]:
    return np.degrees(values).tolist()


# Labels, vectors, rotations.


@FIXED
@given(angles)
def test_label_to_vector_and_back(label: ndarray):
    assert vector_to_label(7 * label_to_vector(label)) == pytest.approx(label, abs=1e-9)


@FIXED
@given(angles)
def test_label_to_rotation_and_back(label: ndarray):
    rotation = label_to_rotation(label)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12) and np.linalg.det(rotation) > 0
    assert rotation_to_label(rotation) == pytest.approx(label, abs=1e-9)
    assert rotation[1, 0] == 0  # no roll


@FIXED
@given(heads, angles)
def test_the_embedded_data_set_poses_heads_and_gaze_alike(head: ndarray, gaze: ndarray):
    assert label_to_rotation(head) == pytest.approx(head_rotation(*head), abs=1e-12)
    direction = pitchyaw_to_direction(*gaze)
    assert normalized_gaze(np.eye(3), direction) == pytest.approx(direction_to_pitchyaw(direction), abs=1e-9)


def test_signs_pitch_up_and_yaw_to_image_left_are_positive():
    up, image_left, straight = (0, -1.0, -1.0), (-1.0, 0, -1.0), (0, 0, -1.0)
    found = normalized_gaze(np.eye(3), np.array([up, image_left, straight]))
    assert np.degrees(found) == pytest.approx(np.array([[45, 0], [0, 45], [0, 0]]), abs=1e-9)


def test_a_head_turned_to_image_left_or_up_moves_its_nose_there():
    nose = np.array([0.0, 36.0, -38.5])
    for label, axis in ((np.array([0, 0.4]), 0), (np.array([0.4, 0]), 1)):
        assert (label_to_rotation(label) @ nose - nose)[axis] < -10


# The normalised camera.


@FIXED
@given(centres, heads, rolls)
def test_the_normalised_camera_looks_at_the_face_and_sees_no_roll(centre: ndarray, head: ndarray, roll: float):
    head_matrix = rolled(roll) @ label_to_rotation(head)
    assume(abs(head_matrix[:, 0] @ centre / np.linalg.norm(centre)) < 0.999)
    rotation = normalizing_rotation(centre, head_matrix)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9) and np.linalg.det(rotation) > 0
    assert rotation @ centre == pytest.approx([0, 0, np.linalg.norm(centre)], abs=1e-7)
    turned = rotation @ head_matrix
    assert turned[1, 0] == pytest.approx(0, abs=1e-9) and turned[0, 0] > 0


@FIXED
@given(heads, angles, centres, rolls)
def test_labels_given_in_the_normalised_camera_are_found_again(head: ndarray, gaze: ndarray, centre: ndarray, roll):
    """A head and a gaze are posed by their labels in a turned camera: the labels must come back, to 1e-9."""
    forward = centre / np.linalg.norm(centre)
    down = np.cross(forward, rolled(roll)[:, 0])
    down /= np.linalg.norm(down)
    turn = np.stack([np.cross(down, forward), down, forward])
    head_matrix = turn.T @ label_to_rotation(head)
    target = centre - 500 * turn.T @ label_to_vector(gaze)
    rotation = normalizing_rotation(centre, head_matrix)
    found = normalized_labels(rotation, head_matrix, centre, np.stack([centre, centre]), target)
    assert found == pytest.approx([*gaze, *head, *gaze, *gaze], abs=1e-6)


@FIXED
@given(centres, heads, rolls, views)
def test_the_warp_takes_projected_points_to_where_the_normalised_camera_sees_them(
    centre: ndarray, head: ndarray, roll: float, view: View
):
    head_matrix = rolled(roll) @ label_to_rotation(head)
    points = centre + (GENERIC.points - GENERIC.centre) @ head_matrix.T
    assume(points[:, 2].min() > 50)
    rotation = normalizing_rotation(centre, head_matrix)
    there = apply_homography(warp_matrix(view, CAMERA, centre, rotation), apply_homography(CAMERA, in_plane(points)))
    seen = points @ rotation.T
    seen[:, 2] *= view.distance_mm / np.linalg.norm(centre)  # the face, brought to the view's distance
    assert there == pytest.approx(apply_homography(view.camera_matrix, in_plane(seen)), rel=1e-7, abs=1e-6)
    middle = apply_homography(warp_matrix(view, CAMERA, centre, rotation), apply_homography(CAMERA, in_plane(centre)))
    assert middle == pytest.approx(np.diag(np.full(2, view.camera_matrix[0, 2])).sum(0), abs=1e-6)


def in_plane(points: ndarray) -> ndarray:
    return points[..., :2] / points[..., 2:]


@FIXED
@given(centres, heads, rolls, views)
def test_pixels_go_to_the_patch_and_back(centre: ndarray, head: ndarray, roll: float, view: View):
    head_matrix = rolled(roll) @ label_to_rotation(head)
    matrix = warp_matrix(view, CAMERA, centre, normalizing_rotation(centre, head_matrix))
    patch = np.array([[0, 0], [view.size - 1, 3.25], [17.5, view.size - 1], [view.size / 2, view.size / 2]])
    assert apply_homography(matrix, apply_homography(np.linalg.inv(matrix), patch)) == pytest.approx(patch, abs=1e-6)


def test_a_face_of_153_6_mm_fills_the_patch():
    rotation = normalizing_rotation(np.array([0, 0, 450.0]), np.eye(3))
    matrix = warp_matrix(ST_ED, CAMERA, np.array([0, 0, 450.0]), rotation)
    sides = apply_homography(CAMERA, np.array([[-76.8, -76.8], [76.8, 76.8]]) / 450)
    assert apply_homography(matrix, sides) == pytest.approx(np.array([[-0.5, -0.5], [127.5, 127.5]]), abs=1e-9)


def test_the_scale_never_enters_a_label():
    """A face 300 mm away is brought to 600 mm; scaled, a gaze of atan(1/3) would read atan(1/6)."""
    centre, target = np.array([0, 0, 300.0]), np.array([-100.0, 0, 0])
    rotation = normalizing_rotation(centre, np.eye(3))
    labels = normalized_labels(rotation, np.eye(3), centre, np.stack([centre, centre]), target)
    assert np.degrees(labels[:2]) == pytest.approx([0, np.degrees(np.arctan(1 / 3))], abs=1e-9)
    tilted = label_to_rotation(np.array([0.5, 0.0]))
    assert normalized_head(rotation, tilted) == pytest.approx([0.5, 0], abs=1e-12)


def test_labels_of_a_telephone_by_hand():
    """GazeCapture: a target 3 cm to the right of and 8 cm below the camera, a frontal head 350 mm away."""
    pose = make_pose(np.eye(3), np.array([0, 20.0, 350.0]))
    eyes = PUBLISHED_EYES + pose.translation
    rotation = normalizing_rotation(pose.centre, pose.rotation)
    labels = normalized_labels(rotation, pose.rotation, pose.centre, eyes, np.array([-30.0, 80.0, 0.0]))
    expected = [-0.2266, 0.0874, -0.14190, 0, -0.3119, -0.0078, -0.3066, 0.1832]
    assert labels == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("turn", "up", "right", "expected"),
    [
        (0, 0, 0, (-0.17, 0, -0.86, 0, -0.86, -0.75, -0.86, 0.75)),
        (0, 10, 15, (9.85, -14.96, -0.86, 0, 9.14, -15.69, 9.20, -14.23)),
        (30, 0, 0, (-0.17, 0, -0.99, -30, -0.87, -0.64, -0.85, 0.65)),
        (-15, 10, -5, (9.80, 5.03, -0.89, 15, 9.10, 4.28, 9.14, 5.77)),
    ],
)
def test_labels_of_a_studio_by_hand(turn: float, up: float, right: float, expected: tuple):
    """Columbia: eyes 2 m away at the camera's height, a wall 2.5 m from them; angles in degrees."""
    turn, up, right = np.deg2rad([turn, up, right])
    head = label_to_rotation(np.array([0, -turn]))
    eyes = np.array([0, 0, 2000.0]) + PUBLISHED_EYES @ head.T
    centre = np.array([0, 0, 2000.0]) + head @ (0, 30, 0)
    direction = np.array([np.sin(right) * np.cos(up), -np.sin(up), -np.cos(right) * np.cos(up)])
    target = np.array([0, 0, 2000.0]) + 2500 * direction
    labels = normalized_labels(normalizing_rotation(centre, head), head, centre, eyes, target)
    assert np.degrees(labels) == pytest.approx(expected, abs=0.012)


@FIXED
@given(centres, heads, rolls, targets)
def test_a_mirrored_scene_has_mirrored_labels_and_a_mirrored_patch(
    centre: ndarray, head: ndarray, roll: float, target: ndarray
):
    mirror, width = np.array([-1, 1, 1]), 640
    head_matrix = rolled(roll) @ label_to_rotation(head)
    eyes = centre + (PUBLISHED_EYES - (0, 30, 0)) @ head_matrix.T
    rotation = normalizing_rotation(centre, head_matrix)
    labels = normalized_labels(rotation, head_matrix, centre, eyes, target)
    other = normalizing_rotation(centre * mirror, mirror_rotation(head_matrix))
    mirrored = normalized_labels(
        other, mirror_rotation(head_matrix), centre * mirror, eyes[::-1] * mirror, target * mirror
    )
    assert mirrored == pytest.approx(mirror_labels(labels), abs=1e-9)
    there = warp_matrix(ST_ED, mirror_camera_matrix(CAMERA, width), centre * mirror, other)
    flip = lambda size: np.array([[-1.0, 0, size - 1], [0, 1, 0], [0, 0, 1]])  # noqa: E731
    expected = flip(128) @ warp_matrix(ST_ED, CAMERA, centre, rotation) @ flip(width)
    assert there / there[2, 2] == pytest.approx(expected / expected[2, 2], rel=1e-6, abs=1e-6)


def test_mirroring_swaps_the_eyes_and_leaves_its_argument_alone():
    labels = np.arange(1.0, 9.0)
    assert mirror_labels(labels).tolist() == [1, -2, 3, -4, 7, -8, 5, -6]
    assert mirror_labels(labels[:4]).tolist() == [1, -2, 3, -4]
    assert labels.tolist() == list(range(1, 9))


@pytest.mark.parametrize("centre", [(0, 0, -500.0), (0, 0, 0.0), (0, np.nan, 500.0)])
def test_a_face_that_is_not_before_the_camera_is_refused(centre: tuple):
    with pytest.raises(ValueError, match="before the camera"):
        normalizing_rotation(np.array(centre), np.eye(3))


def test_a_head_seen_along_the_line_of_its_eyes_is_refused():
    with pytest.raises(ValueError, match="upright"):
        normalizing_rotation(np.array([0, 0, 500.0]), label_to_rotation(np.array([0, np.pi / 2])))


# Pictures.


def textured_plane(rays: ndarray, centre: ndarray, normal: ndarray) -> ndarray:
    """Grey levels where rays (..., 3) meet the plane through `centre`: waves of 45 to 70 mm across its points."""
    points = rays * (centre @ normal / (rays @ normal))[..., None] - centre
    return 128 + 50 * np.sin(points[..., 0] / 7) + 50 * np.cos(points[..., 1] / 11 + points[..., 2] / 9)


def rays_of(camera_matrix: ndarray, width: int, height: int) -> ndarray:
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(camera_matrix).T


@settings(FIXED, max_examples=12)
@given(centres, heads, rolls, st.sampled_from([ST_ED, FAZE, View(240.0, 300.0, 112)]))
def test_a_warped_photograph_is_what_the_normalised_camera_takes(
    centre: ndarray, head: ndarray, roll: float, view: View
):
    """A slanted, textured plane in the face's place, at any distance: pixel for pixel, 1.5 grey levels in 100."""
    centre = centre * 500 / centre[2] * np.clip(centre[2] / 1000, 0.7, 1.4)
    head_matrix = rolled(roll) @ label_to_rotation(0.4 * head)
    image = textured_plane(rays_of(CAMERA, 640, 480), centre, head_matrix[:, 2]).astype(np.float32)
    patch, rotation, matrix = normalize_image(image, CAMERA, centre, head_matrix, view)
    seen = view.camera_matrix @ np.diag([1, 1, view.distance_mm / np.linalg.norm(centre)])
    expected = textured_plane(rays_of(seen, view.size, view.size) @ rotation, centre, head_matrix[:, 2])
    line = np.arange(view.size)
    source = apply_homography(np.linalg.inv(matrix), np.stack(np.meshgrid(line, line), axis=-1))
    inside = ((source > 1) & (source < (638, 478))).all(-1)
    assume(inside.mean() > 0.3)
    assert np.abs(patch - expected)[inside].mean() < 0.6
    assert np.percentile(np.abs(patch - expected)[inside], 99) < 1.5


@pytest.fixture(scope="module")
def person():
    return build_person(without_extras(draw_identity(np.random.default_rng(1))))


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_face_photographed_askew_and_normalised_is_the_embedded_data_set_s(person, seed: int):
    """The embedded renderer takes the photograph and the patch; labels come from the physical camera's frame."""
    rng = np.random.default_rng(seed)
    size, focal = [(256, 500.0), (256, 420.0), (384, 760.0), (512, 1000.0)][seed]
    camera = np.array([[focal, 0, size / 2 + 7.5], [0, 1.01 * focal, size / 2 - 11.5], [0, 0, 1]])
    head, gaze = np.deg2rad(rng.uniform((-20, -30), (20, 30))), np.deg2rad(rng.uniform((-15, -20), (15, 20)))
    scene = Scene(tuple(gaze), tuple(head))
    forward = np.array([rng.uniform(-0.05, 0.05), rng.uniform(-0.02, 0.05), 1])
    forward /= np.linalg.norm(forward)
    down = np.cross(forward, rolled(rng.uniform(-0.4, 0.4))[:, 0])
    down /= np.linalg.norm(down)
    turn = np.stack([np.cross(down, forward), down, forward])

    def picture(view) -> ndarray:
        backdrop = np.full((view.size, view.size, 3), 0.2, np.float32)
        return develop(paint(person, scene, view, backdrop), scene, view.scale)

    plain = make_view(scene, size, kappa=person.identity.kappa)
    photograph = picture(AlignedView(size, plain.rotation, plain.gaze_directions, plain.pupil_axes, camera @ turn.T))
    centre, head_matrix = 600 * forward, turn.T @ head_rotation(*head)
    patch, rotation, matrix = normalize_image(photograph, camera, centre, head_matrix)
    expected = picture(make_view(scene, 128, kappa=person.identity.kappa))
    assert coverage(matrix, 128, photograph.shape) == 1
    assert np.abs(patch.astype(float) - expected).mean() < 2.0
    a, b = (cv2.GaussianBlur(p, (0, 0), 1).mean(axis=2).astype(np.float32) for p in (expected, patch))
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-7)
    _, move = cv2.findTransformECC(a, b, np.eye(2, 3, dtype=np.float32), cv2.MOTION_EUCLIDEAN, until, None, 1)
    shift = np.abs(move @ [63.5, 63.5, 1] - 63.5).max()
    assert shift < 0.2 and abs(np.degrees(np.arctan2(move[1, 0], move[0, 0]))) < 0.3  # 0.05 degrees are 0.44 pixels

    target = centre + 600 * turn.T @ pitchyaw_to_direction(*gaze)
    labels = normalized_labels(rotation, head_matrix, centre, np.stack([centre, centre]), target)
    assert degrees(*labels[:4]) == pytest.approx(degrees(*gaze, *head), abs=0.05)


def test_antialiasing_averages_what_the_published_warp_skips():
    """Lines one pixel wide, twelve pixels to one: grey by averaging, black and white without."""
    image = np.zeros((1536, 1536), np.uint8)
    image[:, ::2] = 255
    shrink = np.diag([1 / 12, 1 / 12, 1.0]) + np.array([[0, 0, 0.5 / 12 - 0.5], [0, 0, 0.5 / 12 - 0.5], [0, 0, 0]])
    averaged = warp_image(image, shrink, 128)
    assert np.abs(averaged.astype(int) - 128).max() <= 1
    slanted = shrink @ np.array([[1, 0.013, 0], [0, 1, 0], [0, 0, 1]])
    aliased, averaged = (warp_image(image, slanted, 128, antialias=on)[:, 2:] for on in (False, True))
    assert aliased.std() > 60 and averaged.std() < 3


def test_antialiasing_does_not_move_the_picture():
    columns = np.tile(np.arange(1200, dtype=np.float32), (1200, 1))
    matrix = np.array([[0.2, 0, -30.0], [0, 0.2, -40.0], [0, 0, 1]])
    expected = (np.arange(128) + 30) / 0.2
    assert warp_image(columns, matrix, 128)[64] == pytest.approx(expected, abs=0.02)


def test_coverage_is_the_part_inside_the_image():
    quarter_outside = np.array([[1, 0, 32.0], [0, 1, 0], [0, 0, 1]])
    assert coverage(np.eye(3), 128, (128, 128, 3)) == 1
    assert coverage(quarter_outside, 128, (128, 128, 3)) == pytest.approx(0.75)
    assert warp_image(np.full((128, 128), 200, np.uint8), quarter_outside, 128)[:, :31].max() == 0


@pytest.mark.parametrize(("shift", "inside"), [(0.9, 1), (1.1, 63 / 64), (-0.9, 1), (-1.1, 63 / 64)])
def test_coverage_takes_in_all_of_the_outermost_pixels(shift: float, inside: float):
    """The grid's first and last points lie one pixel inside the patch: at 0.5 and 126.5, pixels end at -0.5, 127.5."""
    moved = np.array([[1, 0, shift], [0, 1, 0], [0, 0, 1]])
    assert coverage(moved, 128, (128, 128, 3)) == inside
    down = np.array([[1, 0, 0], [0, 1, shift], [0, 0, 1]])
    assert coverage(down, 128, (128, 128, 3)) == inside


def test_a_resampled_view_sees_the_same():
    """448 pixels averaged two by two: index 224 of the published principal point becomes 111.75."""
    assert ETH_XGAZE_224 == View(480.0, 300.0, 224, 111.75)
    assert ST_ED.resized(256).camera_matrix[0].tolist() == [1000, 0, 127.5]
    assert FAZE.camera_matrix[0].tolist() == [500, 0, 64]


@FIXED
@given(centres, heads, rolls)
def test_a_patch_can_be_normalised_again_as_if_from_the_photograph(centre: ndarray, head: ndarray, roll: float):
    """ETH-XGaze's patch, about another face centre, to ST-ED's: the same homography as from the raw image."""
    head_matrix = rolled(roll) @ label_to_rotation(head)
    first = normalizing_rotation(centre, head_matrix)
    to_patch = warp_matrix(ETH_XGAZE, CAMERA, centre, first)
    other = centre + head_matrix @ (0.5, 7.7, 7.8)
    direct = warp_matrix(ST_ED, CAMERA, other, normalizing_rotation(other, head_matrix))
    camera = patch_camera(ETH_XGAZE, np.linalg.norm(centre))
    again = normalizing_rotation(first @ other, first @ head_matrix)
    chained = warp_matrix(ST_ED, camera, first @ other, again) @ to_patch
    assert chained / chained[2, 2] == pytest.approx(direct / direct[2, 2], rel=1e-6, abs=1e-6)


# Distortion.


@FIXED
@given(st.tuples(st.floats(-0.2, 0.3), st.floats(-0.3, 0.6), st.floats(-2e-3, 2e-3), st.floats(-2e-3, 2e-3)))
def test_distorted_points_are_undistorted(distortion: tuple):
    distortion = np.array(distortion)
    plane = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 5), np.linspace(-0.3, 0.3, 5)), axis=-1).reshape(-1, 2)
    points = np.column_stack([plane, np.ones(len(plane))])
    seen = cv2.projectPoints(points, np.zeros(3), np.zeros(3), CAMERA, distortion)[0][:, 0]
    assert undistort_points(seen, CAMERA, distortion) == pytest.approx(apply_homography(CAMERA, plane), abs=1e-5)


def test_points_and_images_are_undistorted_alike():
    distortion, at = np.array([-0.2, 0.1, 1e-3, -1e-3]), np.array([[500.0, 120.0]])
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    image = (255 * np.exp(-((columns - 500) ** 2 + (rows - 120) ** 2) / 50)).astype(np.uint8)
    moved = undistort_image(image, CAMERA, distortion).astype(float)
    centre = np.array([(moved * columns).sum(), (moved * rows).sum()]) / moved.sum()
    expected = undistort_points(at, CAMERA, distortion)[0]
    assert np.linalg.norm(expected - at) > 4
    assert centre == pytest.approx(expected, abs=0.2)


def test_images_are_undistorted_as_opencv_does_it_whatever_camera_came_before():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    cameras = [(np.array([[100.0, 0, 58], [0, 101, 44], [0, 0, 1]]), np.array([0.1 * i, 0.2, 0, 0.01])) for i in (1, 2)]
    for camera in (*cameras, cameras[0]):
        assert np.array_equal(undistort_image(image, *camera), cv2.undistort(image, *camera))
    assert np.array_equal(undistort_image(image[:60], *cameras[0]), cv2.undistort(image[:60], *cameras[0]))


def test_without_distortion_nothing_is_resampled():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert undistort_image(image, CAMERA, None) is image
    assert undistort_image(image, CAMERA, np.zeros(5)) is image
    assert undistort_points(np.array([[3.0, 4.0]]), CAMERA, None).tolist() == [[3, 4]]


# FFHQ alignment.


def face_68(at: tuple[float, float] = (130.0, 100.0), scale: float = 1.0, roll: float = 0.0) -> ndarray:
    """Landmarks with the middles of the eyes 60 apart, the mouth 60 below them; all others unknown."""
    landmarks = np.full((68, 2), np.nan)
    landmarks[36:42] = (-30, 0) + 3 * np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], 1)
    landmarks[42:48] = landmarks[36:42] + (60, 0)
    landmarks[48], landmarks[54] = (-20, 60), (20, 60)
    return at + scale * landmarks @ rolled(roll)[:2, :2].T


def test_the_ffhq_square_of_a_face_worked_by_hand():
    """x is (60, 0) + (60, 0), of length max(2 * 60, 1.8 * 60); its centre is 6 below the eyes."""
    expected = [[10, -14], [10, 226], [250, 226], [250, -14]]
    assert ffhq_quad(face_68()) == pytest.approx(np.array(expected), abs=1e-9)


def test_a_long_face_is_measured_by_its_mouth():
    landmarks = face_68()
    landmarks[[48, 54], 1] += 60  # 120 below the eyes: 1.8 * 120 = 216 to a side of the centre
    assert np.ptp(ffhq_quad(landmarks), axis=0) == pytest.approx([432, 432])


def test_the_ffhq_matrix_takes_the_square_s_corners_to_the_crop_s_outer_corners():
    matrix = ffhq_matrix(face_68(), 256)
    corners = [[-0.5, -0.5], [-0.5, 255.5], [255.5, 255.5], [255.5, -0.5]]
    assert apply_homography(matrix, ffhq_quad(face_68())) == pytest.approx(np.array(corners), abs=1e-9)
    assert apply_homography(matrix, np.array([130.0, 106.0])) == pytest.approx([127.5, 127.5])
    assert matrix[0, 0] == pytest.approx(256 / 240)


@FIXED
@given(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), st.floats(0.3, 20), st.floats(-3, 3))
def test_the_ffhq_crop_does_not_depend_on_where_the_face_is(at: tuple, scale: float, roll: float):
    eyes = lambda face: apply_homography(ffhq_matrix(face), face[36:48])  # noqa: E731
    assert eyes(face_68(at, scale, roll)) == pytest.approx(eyes(face_68()), abs=1e-6)


@FIXED
@given(centres, heads, rolls)
def test_homographies_lead_from_crop_to_patch_and_back(centre: ndarray, head: ndarray, roll: float):
    head_matrix = rolled(roll) @ label_to_rotation(head)
    patch = warp_matrix(ST_ED, CAMERA, centre, normalizing_rotation(centre, head_matrix))
    aligned = ffhq_matrix(face_68((300, 200), 1.3, roll))
    there = homography_aligned_to_patch(aligned, patch)
    at = apply_homography(CAMERA, in_plane(centre)) + np.array([[0, 0], [20, -15], [-30, 8.0]])
    assert apply_homography(there, apply_homography(aligned, at)) == pytest.approx(
        apply_homography(patch, at), abs=1e-6
    )
    in_crop = apply_homography(aligned, at)
    assert apply_homography(np.linalg.inv(there), apply_homography(there, in_crop)) == pytest.approx(in_crop, abs=1e-6)


@pytest.mark.parametrize(("scale", "roll"), [(1.0, 0.2), (5.0, -0.4), (9.3, 0.1)])
def test_the_aligned_crop_shows_what_its_matrix_says(scale: float, roll: float):
    """A ramp of brightness reads off each pixel's place in the image, shrunk first or not."""
    side = round(320 * scale)
    ramp = np.stack(np.meshgrid(np.linspace(20, 230, side), np.linspace(230, 20, side)), axis=-1)
    image = np.dstack([ramp, ramp[..., :1]]).round().astype(np.uint8)
    crop, matrix = ffhq_align(image, face_68((0.5 * side, 0.47 * side), scale, roll))
    line = np.arange(256)
    at = apply_homography(np.linalg.inv(matrix), np.stack(np.meshgrid(line, line), axis=-1))
    expected = (20, 230) + at * (210 / (side - 1)) * (1, -1)
    inside = ((at > 0) & (at < side - 1)).all(-1)
    assert inside.mean() > 0.85 and crop.shape == (256, 256, 3)
    core = np.s_[40:216, 40:216]
    assert np.abs(crop[core][..., :2] - expected[core]).max() <= 1


def test_a_large_image_that_is_shrunk_first_shows_a_spot_where_its_matrix_says():
    columns, rows = np.meshgrid(np.arange(3000), np.arange(2800))
    at, line = np.array([1610.0, 1420.0]), np.arange(256)
    spot = 250 * np.exp(-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (2 * 40**2))
    crop, matrix = ffhq_align(np.dstack([spot] * 3).astype(np.uint8), face_68((1500, 1300), 9.3, 0.1))
    weight = crop[..., 0].astype(float)
    centroid = np.array([(weight * line).sum(), (weight * line[:, None]).sum()]) / weight.sum()
    assert np.linalg.norm(matrix[0, :2]) < 1 / 8
    assert centroid == pytest.approx(apply_homography(matrix, at), abs=0.04)


def test_beyond_the_image_the_crop_is_continued_and_fades_to_the_median():
    """A bright stripe runs to the edge that the square leaves by 94 pixels; the median colour is that beside it."""
    image = np.full((240, 260, 3), 90, np.uint8)
    image[:, 100:160] = 200
    crop, matrix = ffhq_align(image, face_68((130, 20)))
    column, edge = apply_homography(matrix, np.array([130.0, 0.0])).round().astype(int)
    assert apply_homography(np.linalg.inv(matrix), np.array([column, 0.0]))[1] < -90
    assert crop[edge - 3 : edge, column].min() > 185
    assert 90 < crop[0, column].min() and crop[0, column].max() < 120


def test_the_continuation_is_blurred():
    image = np.random.default_rng(0).integers(90, 150, (240, 260, 3), dtype=np.uint8)
    crop, matrix = ffhq_align(image, face_68((130, 20)))
    edge = round(apply_homography(matrix, np.array([130.0, 0.0]))[1])
    assert crop[150:200, 60:200].std() > 8 * crop[edge - 12 : edge - 2, 60:200].std()


def test_the_margin_changes_nothing_well_inside_the_image():
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    crop, matrix = ffhq_align(image, face_68((200, 40)))
    plain = warp_image(image, matrix, 256)
    assert np.abs(crop[230:, 60:200].astype(int) - plain[230:, 60:200]).max() <= 1


@pytest.mark.parametrize("count", [67, 478])
def test_ffhq_alignment_names_the_landmarks_it_takes(count: int):
    with pytest.raises(ValueError, match="68 finite landmarks"):
        ffhq_quad(np.zeros((count, 2)))


def test_ffhq_alignment_of_a_point_is_refused():
    with pytest.raises(ValueError, match="one place"):
        ffhq_quad(np.full((68, 2), 7.0))


def test_views_are_compared_by_value():
    assert replace(ST_ED, principal=64.0) == FAZE
