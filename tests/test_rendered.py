"""Rendered faces: pupils and heads where the labels say, one scene a group, the same bytes however they are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocess.__main__ import main
from preprocess.face_model import head_pose
from preprocess.landmarks import detect
from preprocess.synthetic import samples
from preprocess.synthetic.anatomy import pupil_centres
from preprocess.synthetic.dataset import output_names
from preprocess.synthetic.domains import DOMAINS, EYE_IN_HEAD_LIMIT, Domain, draw_pose
from preprocess.synthetic.rendered.assets import PARTS, load_mesh
from preprocess.synthetic.rendered.expression import LEAST_OPEN, draw_expression
from preprocess.synthetic.rendered.frame import landmark_vertices
from preprocess.synthetic.rendered.person import Person, build_person
from preprocess.synthetic.rendered.render import patch, pose, see
from preprocess.synthetic.rendered.scene import RenderedScene, draw_wide_pose
from preprocess.synthetic.rendered.traits import draw_traits
from preprocess.synthetic.samples import Style, draw_scenes, render_aligned_person, render_person
from preprocess.synthetic.scene import (
    DISTANCE,
    FACE_CENTRE,
    Framing,
    View,
    direction_to_pitchyaw,
    head_rotation,
    make_view,
    pitchyaw_to_direction,
    scene_labels,
)

WIDE = (("unit/eyeWideLeft", 1.6), ("unit/eyeWideRight", 1.6))
LIGHT = RenderedScene(expression=WIDE, glint=0.0, key=0.0, ambient=0.8)  # even, without shadows
ASKEW = Framing(1.1, 0.06, (2.0, -1.5))
FRAMED = Style("rendered", 1.0, 5, "detected")


@cache
def bare(seed: int) -> Person:
    """Somebody without glasses, with bright irises."""
    traits = draw_traits(np.random.default_rng(seed))
    return build_person(replace(traits, glasses=None, iris=(235.0, 235.0, 235.0)), np.random.default_rng(seed))


def view_of(person: Person, scene: RenderedScene) -> View:
    return make_view(scene, 128, person.eyes, person.kappa)


def difference_centre(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Centroid (column, row) of what differs between two pictures, on the linear scale."""
    gap = np.abs(one.astype(float) ** 2.2 - other.astype(float) ** 2.2).sum(axis=2)
    rows, columns = np.indices(gap.shape)
    return np.array([(gap * columns).sum(), (gap * rows).sum()]) / gap.sum()


def pupil_errors(person: Person, scenes: list[RenderedScene]) -> Iterator[float]:
    """Pixels between a pupil's projection and its centroid in the picture, an eye at a time."""
    without = replace(person, traits=replace(person.traits, pupil=-1.0))
    for scene in scenes:
        view = view_of(person, scene)
        pictures = patch(person, scene, 128), patch(without, scene, 128)
        for at in view.project(pupil_centres(person.eyes, view.pupil_axes)):
            column, row = np.rint(at).astype(int)
            window = np.s_[row - 7 : row + 8, column - 7 : column + 8]
            centre = difference_centre(*(picture[window] for picture in pictures))
            yield float(np.linalg.norm(centre + (column - 7, row - 7) - at))


def test_pupils_are_where_the_gaze_says():
    rng = np.random.default_rng(0)
    errors: list[float] = []
    for seed in (0, 1, 2, 4):  # whose lids, this wide, leave the pupils free
        scenes: list[RenderedScene] = []
        while len(scenes) < 8:
            gaze, head = draw_pose(rng, DOMAINS[0])
            if np.all(np.abs(gaze - head) < np.deg2rad((10, 18))) and abs(head[1]) < np.deg2rad(20):  # not hidden
                framing = ASKEW if len(scenes) % 2 else Framing()
                scenes.append(replace(LIGHT, gaze=tuple(gaze), head=tuple(head), framing=framing))
        errors += pupil_errors(bare(seed), scenes)
    print(f"pupil error: mean {np.mean(errors):.3f} px, 95th percentile {np.percentile(errors, 95):.3f} px")
    assert np.mean(errors) < 0.25 and np.percentile(errors, 95) < 0.5


@pytest.mark.parametrize("pitch", [-15.0, 0.0])
def test_eyes_stay_open_while_a_face_laughs(pitch: float):
    laugh = {"eyeSquint": 0.5, "cheekSquint": 0.9, "mouthSmile": 1.0, "browDown": 0.5}
    both = tuple((f"unit/{name}{side}", weight) for name, weight in laugh.items() for side in ("Left", "Right"))
    scene = replace(LIGHT, expression=both, gaze=(float(np.deg2rad(pitch)), 0.0))
    lids, heights = landmark_vertices(), []
    for seed in range(4):
        person = bare(seed)
        rows = pose(person, scene, view_of(person, scene).gaze_directions)[0][:, 1]
        heights.append(rows[lids[[40, 41, 46, 47]]].mean() - rows[lids[[37, 38, 43, 44]]].mean())
    assert min(heights) > LEAST_OPEN - 0.3


def seen_pose(landmarks: np.ndarray, pitch: float, yaw: float) -> np.ndarray:
    """(2,) pitch and yaw, degrees, that landmarks (68, 3) of a head turned by so many degrees are taken for."""
    camera = np.array([[1000.0, 0, 63.5], [0, 1000.0, 63.5], [0, 0, 1]])
    turn = head_rotation(float(np.deg2rad(pitch)), float(np.deg2rad(yaw)))
    points = ((landmarks - FACE_CENTRE) @ turn.T + (0, 0, 2 * DISTANCE)) @ camera.T
    found = head_pose(points[:, :2] / points[:, 2:], camera)
    return np.rad2deg(direction_to_pitchyaw(-found.rotation[:, 2]))


def test_poses_from_landmarks_are_those_of_the_labels_in_the_mean():
    """As converters find them: noses stand out as far for the width of a head as those of the generic face."""
    names, turns, levels = landmark_vertices(), [], []
    for seed in range(12):
        landmarks = np.where((names < 0)[:, None], np.nan, bare(seed).vertices[names].astype(float))
        right, left, ahead = (seen_pose(landmarks, 0.0, yaw) for yaw in (15.0, -15.0, 0.0))
        turns.append((right[1] - left[1]) / 30)
        levels.append(ahead[0])
    assert 0.88 < np.mean(turns) < 1.1 and abs(np.mean(levels)) < 3.5


def test_lids_of_eyes_that_look_ahead_are_apart_by_anything_from_6_to_11_mm():
    lids, rng, heights = landmark_vertices(), np.random.default_rng(0), []
    for i in range(60):
        person, scene = bare(i % 6), replace(LIGHT, expression=draw_expression(rng, 1.0))
        rows = pose(person, scene, view_of(person, scene).gaze_directions)[0][:, 1]
        heights.append(rows[lids[[40, 41, 46, 47]]].mean() - rows[lids[[37, 38, 43, 44]]].mean())
    assert min(heights) < 6.6 and np.percentile(heights, 90) > 10.5


def marked(person: Person, vertex: int) -> Person:
    """The person with a bright spot on the skin: small, for where skin is curved one side of a large one is hidden."""
    mesh = load_mesh()
    column, row = mesh.corner_place[np.flatnonzero(mesh.corner_vertex == vertex)[0]]
    rows, columns = np.indices(person.atlas.shape[:2])
    spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 0.8)[..., None].astype(np.float32)
    return replace(person, atlas=person.atlas * (1 - spot) + np.array([1, 1, 1, 0], np.float32) * spot)


def test_the_head_is_where_its_pose_says():
    rng, errors = np.random.default_rng(1), []
    bridge = landmark_vertices()[28]
    for seed in range(5):
        person = bare(seed)
        dotted = marked(person, bridge)
        for framing in (Framing(), ASKEW, ASKEW):
            head = np.deg2rad(rng.uniform((-20, -30), (20, 30)))
            scene = replace(LIGHT, head=tuple(head), gaze=tuple(head), framing=framing, expression=())
            centre = difference_centre(patch(dotted, scene, 128), patch(person, scene, 128))
            errors.append(np.linalg.norm(centre - view_of(person, scene).project(person.vertices[bridge])))
    print(f"nose error: mean {np.mean(errors):.3f} px, 95th percentile {np.percentile(errors, 95):.3f} px")
    assert np.mean(errors) < 0.25 and np.percentile(errors, 95) < 0.5


@pytest.mark.parametrize(("gaze", "axis"), [((0.0, 0.3), 0), ((0.25, 0.0), 1)])
def test_positive_gaze_moves_pupils_to_image_left_and_up(gaze: tuple[float, float], axis: int):
    person = bare(0)
    straight, turned = (view_of(person, RenderedScene(gaze=g)) for g in ((0.0, 0.0), gaze))
    moved, before = (v.project(pupil_centres(person.eyes, v.pupil_axes)) for v in (turned, straight))
    assert np.all((moved - before)[:, axis] < -1.5)


@pytest.mark.parametrize(("head", "axis"), [((0.0, 0.4), 0), ((0.3, 0.0), 1)])
def test_positive_head_angles_move_the_nose_to_image_left_and_up(head: tuple[float, float], axis: int):
    person = bare(0)
    nose = person.vertices[landmark_vertices()[30]]
    turned, straight = (view_of(person, RenderedScene(head=angles)).project(nose) for angles in (head, (0.0, 0.0)))
    assert (turned - straight)[axis] < -4


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_wide_poses_end_and_keep_the_eyes_in_their_sockets(domain: Domain):
    """A head may be turned so far that no gaze of its data set is within reach: it is then drawn again."""
    rng = np.random.default_rng(0)
    poses = np.array([draw_wide_pose(rng, domain) for _ in range(3000)])
    assert np.all(np.abs(poses[:, 0] - poses[:, 1]) < EYE_IN_HEAD_LIMIT)


def test_no_teeth_are_seen_between_closed_lips():
    mesh = load_mesh()
    parts = [PARTS.index("upper-teeth"), PARTS.index("lower-teeth")]
    corners = np.unique(mesh.triangles[np.isin(mesh.part, parts)])
    for seed in range(20):
        surface = see(bare(seed), bare(seed).vertices, bare(seed).triangles, view_of(bare(seed), RenderedScene()))
        assert not np.isin(surface.corners[0, surface.triangle], corners)[surface.seen].any(), seed


def test_a_broad_smile_shows_teeth_as_bright_as_skin():
    smile = tuple((f"unit/mouth{name}{side}", 0.8) for name in ("UpperUp", "Smile") for side in ("Left", "Right"))
    scene = RenderedScene(expression=(*smile, ("unit/jawOpen", 0.1)), noise=0.0)
    mesh = load_mesh()
    for seed in (1, 2, 4):
        person = bare(seed)
        view = view_of(person, scene)
        surface = see(person, pose(person, scene, view.gaze_directions)[0], person.triangles, view)
        part = np.append(mesh.part, np.full(person.triangles.shape[1], -1))
        of_corner = np.full(len(person.corner_vertex), -1)
        of_corner[mesh.triangles] = part[: len(mesh.triangles), None]
        seen = np.where(surface.seen, of_corner[surface.corners[0, surface.triangle]], -1)
        picture = patch(person, scene, 128).mean(axis=2)
        teeth, skin = seen == PARTS.index("upper-teeth"), seen == PARTS.index("skin")
        assert teeth.sum() > 40 and picture[teeth].mean() > 0.9 * np.median(picture[skin]), seed


def test_lower_teeth_at_the_side_are_no_higher_than_in_front():
    """A tongue would hide them from whoever looks into an open mouth from the side."""
    mesh, person = load_mesh(), bare(2)
    lower = np.unique(mesh.corner_vertex[mesh.triangles[mesh.part == PARTS.index("lower-teeth")]])
    height, depth = -person.vertices[lower, 1], person.vertices[lower, 2]
    assert height[depth > depth.min() + 20].max() <= height[depth < depth.min() + 20].max()


@pytest.mark.parametrize("yaw", [-0.7, 0.7])
def test_shoulders_turn_less_than_the_head(yaw: float):
    person, scene = bare(1), RenderedScene(head=(0.0, yaw), expression=())
    body = np.flatnonzero(person.vertices[:, 1] > 200)
    turned, still = (pose(person, s, np.array([[0.0, 0, -1]] * 2))[0] for s in (scene, replace(scene, head=(0.0, 0.0))))
    left, right = body[np.argmin(still[body, 0])], body[np.argmax(still[body, 0])]
    across = turned[right] - turned[left], still[right] - still[left]
    angles = [np.arctan2(a[2], a[0]) for a in across]
    assert angles[0] - angles[1] == pytest.approx(0.6 * yaw, abs=0.02)
    face = landmark_vertices()[[27, 30, 36, 45, 48, 54]]
    assert np.array_equal(turned[face], still[face])


def test_shoulders_far_behind_the_face_are_not_before_it():
    person, scene = bare(2), RenderedScene(head=(-0.55, -0.8))
    view = view_of(person, scene)
    surface = see(person, person.vertices, person.triangles, view)
    corner = person.corner_vertex[surface.corners[:, surface.triangle]]
    depth = view.to_camera(person.vertices)[corner, 2]
    inside = (surface.depth > depth.min(axis=0) - 1) & (surface.depth < depth.max(axis=0) + 1)
    assert surface.depth.max() > view.distance + 295
    assert inside[surface.seen].all()


@pytest.mark.parametrize("size", [64, 128, 256])
def test_every_size_shows_the_same_picture(size: int):
    person, scene = bare(1), RenderedScene(gaze=(0.1, 0.2), head=(0.1, -0.2), blur=0.5)
    small, reference = (
        picture.reshape(32, len(picture) // 32, 32, len(picture) // 32, 3).mean((1, 3))
        for picture in (patch(person, scene, size).astype(float), patch(person, scene, 128).astype(float))
    )
    assert np.abs(small - reference).mean() < 4


def test_labels_of_a_framed_picture_are_those_of_its_own_camera():
    """The gaze's target and the head's axis, carried over to the turned camera point by point."""
    person = bare(2)
    scene = RenderedScene(gaze=(0.1, -0.2), head=(-0.05, 0.3), framing=ASKEW, distance=900.0)
    exact, framed = (view_of(person, replace(scene, framing=framing)) for framing in (Framing(), ASKEW))
    labels = scene_labels(scene, person.eyes)
    target = exact.face_centre + scene.distance * pitchyaw_to_direction(*scene.gaze)
    in_head = (target - exact.face_centre) @ exact.rotation + (0, 30, 0)
    seen = framed.to_camera(in_head)
    from_eyes = seen - framed.to_camera(person.eyes)
    assert direction_to_pitchyaw(seen - framed.face_centre) == pytest.approx(labels[:2], abs=1e-6)
    assert direction_to_pitchyaw(-framed.rotation[:, 2]) == pytest.approx(labels[2:4], abs=1e-6)
    assert direction_to_pitchyaw(from_eyes).ravel() == pytest.approx(labels[4:], abs=1e-6)


@pytest.mark.parametrize("distance", [400.0, 600.0, 2400.0])
def test_eyes_that_look_into_the_camera_point_at_it(distance: float):
    person = bare(2)
    scene = RenderedScene(head=(0.1, 0.2), distance=distance)
    view = view_of(person, scene)
    at_camera = view.eye_point - person.eyes
    expected = at_camera / np.linalg.norm(at_camera, axis=1, keepdims=True)
    assert view.gaze_directions == pytest.approx(expected, abs=1e-6)


def test_a_framed_picture_is_the_exact_one_turned_and_zoomed():
    """So the labels of one are a rotation of the other's, whatever is in the picture."""
    person = bare(2)
    exact, framed = (view_of(person, RenderedScene(head=(0.1, 0.2), framing=f)) for f in (Framing(), ASKEW))
    points = person.vertices[landmark_vertices()[[30, 36, 45, 48, 54]]]
    assert framed.to_camera(points) == pytest.approx(exact.to_camera(points) @ ASKEW.rotation(DISTANCE).T, abs=1e-6)
    centre = framed.project(np.array([[0.0, 30.0, 0.0]]))[0] - framed.centre
    assert centre == pytest.approx(ASKEW.shift, abs=0.05)


def test_from_further_away_a_face_is_flatter_and_as_large():
    person = bare(2)
    near, far = (view_of(person, RenderedScene(head=(0.0, 0.5), distance=d)) for d in (DISTANCE, 4 * DISTANCE))
    centre = np.array([[0.0, 30.0, 0.0]])
    assert far.project(centre) == pytest.approx(near.project(centre))
    assert far.scale == pytest.approx(near.scale)
    eyes = person.vertices[landmark_vertices()[[36, 39, 42, 45]]]
    widths = [np.abs(np.diff(view.project(eyes)[:, 0]))[[0, 2]] for view in (near, far)]
    ratios = [w[0] / w[1] for w in widths]  # of the eye that is turned away to the other
    assert abs(np.log(ratios[1])) < abs(np.log(ratios[0]))


def test_two_workers_write_the_same_bytes_as_one(tmp_path: Path):
    small = ("--persons", "4", "--samples", "2", "--image-size", "64", "--look", "rendered")
    for workers in ("1", "2"):
        assert main(["synthetic", "--out", str(tmp_path / workers), "--workers", workers, *small]) == 0
    for name in output_names(64):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_a_group_shares_all_but_pose_and_noise():
    scenes = list(draw_scenes([0, 0, 4], 0, 5, FRAMED))
    unposed = {replace(scene, gaze=(0.0, 0.0), head=(0.0, 0.0), noise_seed=0) for scene in scenes}
    assert len(unposed) == 1 and len({(scene.gaze, scene.head) for scene in scenes}) == 5


def test_the_background_of_a_group_is_one():
    turned = [RenderedScene(seed=3, head=head, gaze=head) for head in ((0.0, 0.0), (0.0, 0.3), (0.0, -0.3))]
    small = [patch(bare(4), replace(scene, framing=Framing(0.5)), 128) for scene in turned]
    assert all(np.array_equal(small[0][:20, :10], other[:20, :10]) for other in small[1:])


def test_aligned_faces_of_a_group_are_of_one_camera(monkeypatch: pytest.MonkeyPatch):
    cameras: list[np.ndarray] = []
    view_of_one = samples.aligned_view
    monkeypatch.setattr(
        samples, "aligned_view", lambda v, p, camera, n: cameras.append(camera) or view_of_one(v, p, camera, n)
    )
    render_aligned_person(0, 0, 0, 4, 64, replace(FRAMED, group_size=3))
    assert len({camera.tobytes() for camera in cameras}) == 2


@pytest.mark.parametrize("index", range(4))
def test_aligned_faces_show_the_same_scenes_as_patches(index: int):
    faces = render_aligned_person(0, 0, index, 2, 256, FRAMED)
    pixels, labels = render_person(0, 0, index, 2, 128, FRAMED)
    assert np.array_equal(faces["labels"], labels)
    for face, matrix, reference in zip(faces["pixels"], faces["homography"], pixels, strict=True):
        warped = cv2.warpPerspective(face, matrix, (128, 128), flags=cv2.INTER_AREA)
        one, other = (cv2.GaussianBlur(p[20:108, 20:108].astype(np.float32), (0, 0), 2.0) for p in (warped, reference))
        assert np.abs(one - other).mean() < 4


def test_the_detector_finds_the_faces():
    pixels = [render_person(0, 0, i, 1, 256, FRAMED)[0][0] for i in range(20)]
    assert sum(detect(picture) is not None for picture in pixels) >= 18
