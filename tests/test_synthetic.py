"""The embedded data set: exact labels, honest signs, the same bytes, clear refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from core import sources
from core.config_default import Config
from preprocess.__main__ import main
from preprocess.synthetic import dataset as synthetic
from preprocess.synthetic.domains import DOMAINS, draw_pose
from preprocess.synthetic.drawn.head import Person, build_person
from preprocess.synthetic.drawn.person import draw_identity, without_extras
from preprocess.synthetic.drawn.render import render
from preprocess.synthetic.samples import LOOKS, Style, draw_scenes, render_person
from preprocess.synthetic.scene import (
    Scene,
    direction_to_pitchyaw,
    eye_directions,
    head_rotation,
    make_view,
    scene_labels,
)
from tests.face_geometry import pupil_points

SMALL = ("--persons", "4", "--samples", "2", "--seed", "3", "--image-size", "64")


def bare_person(seed: int, symmetric: bool = False) -> Person:
    return build_person(without_extras(draw_identity(np.random.default_rng(seed), symmetric=symmetric)))


@pytest.fixture(scope="module")
def person() -> Person:
    return bare_person(1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    assert main(["synthetic", "--out", str(out), "--workers", "1", *SMALL]) == 0
    return out


def difference_centre(with_mark: np.ndarray, without: np.ndarray) -> tuple[np.ndarray, float]:
    """Centroid (column, row) and weight of what differs between two pictures, on the linear scale."""
    gap = np.abs(with_mark.astype(float) ** 2 - without.astype(float) ** 2).sum(axis=2)
    rows, columns = np.indices(gap.shape)
    return np.array([(gap * columns).sum(), (gap * rows).sum()]) / gap.sum(), gap.sum()


def test_files_have_the_published_layout(written: Path):
    with h5py.File(written / "GazeCapture_64.h5") as file:
        assert list(file) == ["00000", "00001", "00002", "00003"]
        assert (file.attrs["color_order"], file.attrs["dataset"], bool(file.attrs["synthetic"])) == (
            "RGB",
            "GazeCapture",
            True,
        )
        pixels, labels = file["00002/pixels"], file["00002/labels"]
        assert (pixels.shape, pixels.dtype, pixels.chunks) == ((2, 64, 64, 3), np.uint8, (1, 64, 64, 3))
        assert pixels.compression is None
        assert (labels.shape, labels.dtype) == ((2, 8), np.float32)


def test_the_three_other_sets_are_there_with_ids_of_their_own(written: Path):
    names = {f"{name}_64.h5": first for name, first in (("MPIIGaze", "p00"), ("Columbia", "0001"), ("EYEDIAP", "1_A"))}
    assert {name: next(iter(h5py.File(written / name))) for name in names} == names


def test_split_is_disjoint_and_complete(written: Path):
    split = json.loads((written / "gazecapture_split.json").read_text())
    parts = [split[k] for k in ("train", "val", "test")]
    with h5py.File(written / "GazeCapture_64.h5") as file:
        assert sorted(sum(parts, [])) == list(file)
    assert all(parts)


def test_split_of_48_holds_out_the_last_eight():
    split = synthetic.split_persons([f"{i:05d}" for i in range(48)])
    assert [len(split[k]) for k in ("train", "val", "test")] == [40, 2, 6]
    assert split["val"][0] == "00040"


def test_a_large_split_holds_out_twelve():
    split = synthetic.split_persons([f"{i:05d}" for i in range(200)])
    assert [len(split[k]) for k in ("train", "val", "test")] == [188, 4, 8]


def test_two_workers_write_the_same_bytes_as_one(written: Path, tmp_path: Path):
    assert main(["synthetic", "--out", str(tmp_path), "--workers", "2", *SMALL]) == 0
    for name in synthetic.output_names(64):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name


def test_another_seed_gives_other_people():
    a, b = (render_person(seed, 0, 0, 1, 64, Style("drawn", 0.2, 1, "exact"))[0] for seed in (0, 1))
    assert np.abs(a.astype(int) - b).mean() > 10


def pupils_seen(person: Person, scene: Scene, size: int, near: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """(2, 2) columns and rows of the pupils' centroids in the picture, each looked for near a place."""
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.synthetic.drawn.eyes.PUPIL_RADIUS", -9.0)
        without = render(person, scene, size)
    seen, reach, found = render(person, scene, size), 7 * size // 128, []
    for column, row in np.rint(near).astype(int):
        window = np.s_[row - reach : row + reach + 1, column - reach : column + reach + 1]
        found.append(difference_centre(seen[window], without[window])[0] + (column - reach, row - reach))
    return np.array(found)


def pupil_errors(scenes: Iterator[Scene], person: Person, monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Distance in pixels between the pupil's projection and its centroid in the picture, an eye at a time."""
    person = replace(person, identity=replace(person.identity, iris=(1.0, 1.0, 1.0)))
    for scene in scenes:
        view = make_view(scene, 128, kappa=person.identity.kappa)
        expected = view.project(pupil_points(view.pupil_axes))
        yield from np.linalg.norm(pupils_seen(person, scene, 128, expected, monkeypatch) - expected, axis=1)


def test_pupils_are_where_the_gaze_says(person: Person, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    scenes = []
    while len(scenes) < 40:
        gaze, head = draw_pose(rng, DOMAINS[0])
        if np.all(np.abs(gaze - head) < np.deg2rad(20)) and abs(head[1]) < np.deg2rad(22):  # none behind the nose
            scenes.append(Scene(tuple(gaze), tuple(head), lid_open=5.0, glint=0.0, ambient=1.0))
    errors = list(pupil_errors(scenes, person, monkeypatch))
    print(f"pupil error: mean {np.mean(errors):.3f} px, 95th percentile {np.percentile(errors, 95):.3f} px")
    assert np.mean(errors) < 0.25 and np.percentile(errors, 95) < 0.5


def test_the_head_is_where_its_pose_says(person: Person):
    rows, columns = np.indices(person.colour.shape[:2])
    r, c = person.nose_tip
    spot = np.exp(-((rows - r) ** 2.0) - (columns - c) ** 2.0)[..., None]  # small: the surface is curved
    bright = np.array([1, 1, 1, 0], np.float32)
    marked = replace(person, colour=(person.colour * (1 - spot) + bright * spot).astype(np.float32))
    errors, rng = [], np.random.default_rng(1)
    for _ in range(30):
        scene = Scene(head=tuple(np.deg2rad(rng.uniform((-20, -30), (20, 30)))), smile=rng.uniform(0, 0.8), ambient=1.2)
        centre, _ = difference_centre(render(marked, scene), render(person, scene))
        errors.append(np.linalg.norm(centre - make_view(scene, 128).project(person.position[r, c])))
    print(f"nose error: mean {np.mean(errors):.3f} px, 95th percentile {np.percentile(errors, 95):.3f} px")
    assert np.mean(errors) < 0.25 and np.percentile(errors, 95) < 0.5


def test_a_degree_moves_the_pupils_by_their_distance_of_10_7_mm(person: Person, monkeypatch: pytest.MonkeyPatch):
    person = replace(person, identity=replace(person.identity, iris=(1.0, 1.0, 1.0)))
    at, sines = [], []
    for yaw in np.deg2rad([-5.0, 5.0]):
        scene = Scene(gaze=(0.0, yaw), lid_open=5.0, glint=0.0, ambient=1.0)
        view = make_view(scene, 256, kappa=person.identity.kappa)
        at.append(pupils_seen(person, scene, 256, view.project(pupil_points(view.pupil_axes)), monkeypatch)[:, 0])
        sines.append(np.sin(scene_labels(scene)[[5, 7]]))
    moved = (at[0] - at[1]) * 598 / 1000 / (sines[1] - sines[0])  # the pupils are 598 mm off, the focal length is 1000
    assert moved == pytest.approx([10.7, 10.7], rel=0.06)


def test_pupils_point_outwards_of_the_lines_of_sight_in_both_eyes_alike():
    kappas = np.array([draw_identity(np.random.default_rng(i)).kappa for i in range(400)])
    assert np.rad2deg(kappas).mean(axis=0) == pytest.approx([4, 1], abs=0.2)
    assert np.rad2deg(kappas).std(axis=0) == pytest.approx([1.2, 0.5], abs=0.1)
    scene, mirrored = Scene((0.1, 0.2), (0.1, -0.1)), Scene((0.1, -0.2), (0.1, 0.1))
    for outwards, down in kappas[:20]:
        view, plain = make_view(scene, 128, kappa=(outwards, down)), make_view(scene, 128)
        off = direction_to_pitchyaw(view.pupil_axes) - direction_to_pitchyaw(plain.pupil_axes)
        assert off == pytest.approx(np.array([[-down, outwards], [-down, -outwards]]), abs=0.005)
        flipped = make_view(mirrored, 128, kappa=(outwards, down)).pupil_axes[::-1] * (-1, 1, 1)
        assert flipped == pytest.approx(view.pupil_axes)


def test_a_persons_pupils_are_off_the_lines_of_sight_in_the_pictures_and_not_in_the_labels(
    person: Person, monkeypatch: pytest.MonkeyPatch
):
    scene = Scene(lid_open=5.0, glint=0.0, ambient=1.0)
    bright = replace(person.identity, iris=(1.0, 1.0, 1.0))
    near = make_view(scene, 256).project(pupil_points(make_view(scene, 256).pupil_axes))
    without, with_kappa = (
        pupils_seen(replace(person, identity=replace(bright, kappa=kappa)), scene, 256, near, monkeypatch)
        for kappa in ((0.0, 0.0), (0.07, 0.0))
    )
    assert (with_kappa - without)[:, 0] == pytest.approx(np.array([-1, 1]) * 10.7 * 0.07 * 1000 / 598, rel=0.1)
    assert np.deg2rad([-3, 3]) == pytest.approx(scene_labels(scene)[[5, 7]], abs=0.005)  # towards the target


def test_where_irises_are_changes_nothing_outside_of_the_openings_of_the_eyes(
    person: Person, monkeypatch: pytest.MonkeyPatch
):
    eyes, scene = "preprocess.synthetic.drawn.eyes", Scene(gaze=(0.1, 0.3), head=(-0.1, 0.2))
    dark, light = (replace(person, identity=replace(person.identity, iris=(c, c, c))) for c in (0.0, 1.0))
    with monkeypatch.context() as patch:
        patch.setattr(f"{eyes}.PUPIL_RADIUS", -9.0)
        a = render(light, scene)
        patch.setattr(f"{eyes}.SCLERA", np.zeros(3, np.float32))
        opening = (render(dark, scene) != a).any(axis=2)
    usual, other = render(person, scene), replace(person, identity=replace(person.identity, kappa=(-0.2, 0.1)))
    monkeypatch.setattr("preprocess.synthetic.anatomy.LIMBUS_DISTANCE", 14.0)
    changed = (render(other, scene) != usual).any(axis=2)
    assert changed.sum() > 50 and opening.mean() < 0.05
    assert not (changed & ~opening).any()


@pytest.mark.parametrize(("gaze", "axis", "sign"), [((0, 0.3), 0, -1), ((0.25, 0), 1, -1)])
def test_positive_gaze_moves_pupils_to_image_left_and_up(gaze: tuple, axis: int, sign: int):
    straight, turned = (make_view(Scene(gaze=g), 128) for g in ((0, 0), gaze))
    before, after = (view.project(pupil_points(view.pupil_axes)) for view in (straight, turned))
    move = after - before
    assert np.all(sign * move[:, axis] > 2)


@pytest.mark.parametrize(("head", "axis"), [((0, 0.4), 0), ((0.3, 0), 1)])
def test_positive_head_angles_move_the_nose_to_image_left_and_up(person: Person, head: tuple, axis: int):
    nose = person.position[person.nose_tip]
    move = make_view(Scene(head=head), 128).project(nose) - make_view(Scene(), 128).project(nose)
    assert move[axis] < -4


def test_labels_are_the_angles_of_the_scene_and_of_both_eyes():
    scene = Scene(gaze=(0.1, -0.2), head=(-0.05, 0.3))
    labels = scene_labels(scene)
    assert labels.dtype == np.float32
    assert labels[:4] == pytest.approx([0.1, -0.2, -0.05, 0.3])
    assert labels[5] < labels[1] < labels[7]  # the eyes converge: image left looks more to image right
    matrix = head_rotation(*scene.head)
    assert (np.arcsin(matrix[1, 2]), np.arctan2(matrix[0, 2], matrix[2, 2])) == pytest.approx(scene.head)


def test_eyes_meet_600_mm_along_the_gaze():
    gaze, rotation = (0.15, 0.25), head_rotation(0.1, -0.2)
    centres = (np.array([[-32.5, 0, 13], [32.5, 0, 13]]) - (0, 30, 0)) @ rotation.T
    target = -600 * np.array([np.cos(0.15) * np.sin(0.25), np.sin(0.15), np.cos(0.15) * np.cos(0.25)])
    assert direction_to_pitchyaw(eye_directions(gaze, rotation)) == pytest.approx(
        direction_to_pitchyaw(target - centres)
    )


def test_a_mirrored_scene_is_a_mirrored_picture():
    person = bare_person(5, symmetric=True)
    scene = Scene(gaze=(0.1, 0.3), head=(-0.1, 0.2), light=(0.3, -0.4, -0.9))
    mirrored = replace(scene, gaze=(0.1, -0.3), head=(-0.1, -0.2), light=(-0.3, -0.4, -0.9))
    a, b = render(person, scene).astype(int), render(person, mirrored)[:, ::-1].astype(int)
    gap = np.abs(a - b)[:, 24:-24]  # the backdrop's gradient is not symmetric
    assert gap.mean() < 1.0
    labels, flipped = scene_labels(scene), scene_labels(mirrored)
    expected = labels[[0, 1, 2, 3, 6, 7, 4, 5]] * np.tile([1, -1], 4)
    assert flipped == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_every_size_shows_the_same_picture(person: Person, size: int):
    picture = render(person, Scene(gaze=(0.1, 0.2), head=(0.1, -0.2)), size).astype(float)
    assert picture.shape == (size, size, 3)
    small, reference = (
        p.reshape(32, p.shape[0] // 32, 32, p.shape[0] // 32, 3).mean((1, 3))
        for p in (picture, render(person, Scene(gaze=(0.1, 0.2), head=(0.1, -0.2)), 128).astype(float))
    )
    assert np.abs(small - reference).mean() < 4


def test_drawn_poses_keep_the_eyes_in_their_sockets():
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        poses = np.array([draw_pose(rng, domain) for _ in range(200)])
        assert np.all(np.abs(poses[:, 0] - poses[:, 1]) < np.deg2rad([22, 32]))


def scenes_in_groups(still_heads: float, samples: int = 12) -> list[list[Scene]]:
    """Groups of three scenes of one person."""
    scenes = list(draw_scenes([0, 0, 7], 0, samples, Style("drawn", 0.2, 3, "exact", still_heads)))
    return [scenes[i : i + 3] for i in range(0, samples, 3)]


def test_without_still_heads_a_groups_poses_are_those_of_their_own_streams():
    """As they were before there were still heads: pose, then noise, from (seed, file, person, sample, stream)."""
    for number, group in enumerate(scenes_in_groups(0.0)):
        for i in (1, 2):
            rng = np.random.default_rng([0, 0, 7, 3 * number + i + 1, 2])
            gaze, head = draw_pose(rng, DOMAINS[0])
            assert (group[i].gaze, group[i].head) == (tuple(gaze), tuple(head))
            assert group[i].noise_seed == int(rng.integers(2**31))


def test_with_still_heads_alone_a_group_differs_in_gaze_and_noise():
    for still, free in zip(scenes_in_groups(1.0), scenes_in_groups(0.0), strict=True):
        assert still[0] == free[0]
        assert len({scene.head for scene in still}) == 1 and len({scene.gaze for scene in still}) == 3
        for one, other in zip(still, free, strict=True):
            assert np.allclose(np.subtract(one.gaze, one.head), np.subtract(other.gaze, other.head))  # eyes in sockets
            assert one == replace(other, gaze=one.gaze, head=one.head)


def test_half_of_the_heads_stand_still():
    heads = [len({scene.head for scene in group[1:]} - {group[0].head}) for group in scenes_in_groups(0.5, 300)]
    assert 70 < sum(heads) < 130


def test_labels_of_still_heads_are_exact(person: Person, monkeypatch: pytest.MonkeyPatch):
    drawn = [scene for group in scenes_in_groups(1.0, 60) for scene in group[1:]]
    ahead = [s for s in drawn if np.all(np.abs(np.subtract(s.gaze, s.head)) < np.deg2rad(20)) and abs(s.head[1]) < 0.35]
    assert len(ahead) > 10
    scenes = [Scene(scene.gaze, scene.head, lid_open=5.0, glint=0.0, ambient=1.0) for scene in ahead[:10]]
    assert np.mean(list(pupil_errors(iter(scenes), person, monkeypatch))) < 0.25
    style = Style("drawn", 0.2, 3, "exact", 1.0)
    labels = render_person(0, 0, 7, 6, 64, style)[1]
    for row, scene in zip(labels, draw_scenes([0, 0, 7], 0, 6, style), strict=True):
        assert np.allclose(row[:4], [*scene.gaze, *scene.head], atol=1e-6)
    assert np.array_equal(labels[:3, 2:4], labels[[0, 0, 0], 2:4])


def test_existing_output_is_refused_and_kept(written: Path, capsys: pytest.CaptureFixture):
    before = (written / "GazeCapture_64.h5").read_bytes()
    assert main(["synthetic", "--out", str(written), *SMALL]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (written / "GazeCapture_64.h5").read_bytes() == before


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--persons", "1", "at least 4"),
        ("--samples", "0", "at least 1"),
        ("--image-size", "100", "64, 128 or 256"),
        ("--variation", "wild", "calm or full"),
        ("--workers", "0", "at least 1"),
        ("--seed", "-1", "0 or more"),
        ("--still-heads", "1.5", "a share from 0 to 1"),
        ("--still-heads", "0.5", "0 without groups"),
    ],
)
def test_bad_arguments_name_flag_found_and_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, value: str, expected: str
):
    out = tmp_path / "new"
    assert main(["synthetic", "--out", str(out), flag, value]) == 2
    message = capsys.readouterr().err
    assert flag in message and value in message and expected in message and "Traceback" not in message
    assert not out.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_nothing_is_left_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(synthetic, "split_persons", fail)
    out = tmp_path / "a" / "b"
    assert main(["synthetic", "--out", str(out), "--workers", "1", *SMALL]) in (2, 130)
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_data_set_of_another_size_is_used_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(
        synthetic_data=True, gazecapture_file=str(tmp_path / "GazeCapture_64.h5"), synthetic_persons=6,
        synthetic_samples=2,
    )  # fmt: skip
    sources.make_missing_data(config)
    sources.make_missing_data(config)
    assert "was made with" not in capsys.readouterr().out
    sources.make_missing_data(config.model_copy(update={"synthetic_persons": 7}))
    assert "was made with synthetic_persons 6, not 7; it is used as it is" in capsys.readouterr().out


def test_an_embedded_data_set_is_made_and_known_by_its_look_groups_and_framing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOOKS, "rendered", lambda: replace(LOOKS["drawn"](), group_size=2, framing="detected"))
    monkeypatch.setattr(synthetic, "cpus", lambda: 1)  # processes of their own would not know this look
    path = tmp_path / "GazeCapture_64.h5"
    small = {"gazecapture_file": str(path), "synthetic_persons": 6, "synthetic_samples": 3}
    rendered = Config(synthetic_data=True, synthetic_look="rendered", synthetic_still_heads=1.0, **small)
    sources.make_missing_data(rendered)
    with h5py.File(path) as file:
        assert {name: file.attrs[name] for name in ("look", "group_size", "framing")} == {
            "look": "rendered", "group_size": 2, "framing": "detected",
        }  # fmt: skip
        assert file["00000/group"][()].tolist() == [0, 0, 1] and file.attrs["still_heads"] == 1.0
        heads = file["00000/labels"][:, 2:4]
        assert np.allclose(heads[0], heads[1]) and not np.allclose(heads[0], heads[2], atol=1e-3)
    capsys.readouterr()
    for own in ({}, {"synthetic_group_size": 2, "synthetic_framing": "detected"}):
        sources.make_missing_data(rendered.model_copy(update=own))
        assert capsys.readouterr().out == ""
    sources.make_missing_data(rendered.model_copy(update={"synthetic_group_size": 1, "synthetic_framing": "exact"}))
    said = "was made with synthetic_group_size 2, not 1, synthetic_framing detected, not exact; it is used"
    assert said in capsys.readouterr().out


def test_a_file_that_does_not_say_its_look_is_of_drawn_faces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"synthetic_data": True, "synthetic_persons": 6, "synthetic_samples": 2}
    config = Config(gazecapture_file=str(tmp_path / "GazeCapture_64.h5"), **small)
    sources.make_missing_data(config)
    explicit = {"synthetic_look": "drawn", "synthetic_group_size": 1, "synthetic_framing": "exact"}
    sources.make_missing_data(config.model_copy(update=explicit))
    assert "was made with" not in capsys.readouterr().out
    monkeypatch.setitem(LOOKS, "rendered", lambda: replace(LOOKS["drawn"](), group_size=6))
    sources.make_missing_data(config.model_copy(update={"synthetic_still_heads": 0.5, "synthetic_group_size": 1}))
    assert "was made with synthetic_still_heads 0.0, not 0.5; it is used" in capsys.readouterr().out
    sources.make_missing_data(config.model_copy(update={"synthetic_look": "rendered"}))
    said = "was made with synthetic_look drawn, not rendered, synthetic_group_size 1, not 6; it is used as it is"
    assert said in capsys.readouterr().out
