"""What redirect.py does besides: points looked at, sheets, folders, patches, what is measured and told."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import core.redirection.measure as measure_room
import redirect
from core.command import UserError
from core.redirection.arrows import GAZE, HEAD, side_by_side
from core.redirection.edit import Edit, sparing
from core.redirection.faces import PhotoFace
from core.redirection.measure import measure, measure_patch
from core.redirection.persons import redirect_persons
from core.redirection.photo import RedirectedFace, redirect_faces
from core.redirection.photo_files import Photo, open_photo
from core.redirection.sheet import MARGIN, draw_sheet, plan_sheet
from core.redirection.told import record_of
from preprocess.face_patches import LeftOut
from preprocess.normalization import ST_ED, apply_homography, warp_image
from tests import photos
from tests.photos import command
from tests.raw_trees import write_image
from tests.tiny import tiny_flow, tiny_redirector, write_dataset

KEPT = Edit(head=(0, 0), relative=True)


@pytest.fixture(scope="module")
def photo() -> Photo:
    return Photo(photos.photograph(photos.make_person()))


@pytest.fixture(scope="module")
def face() -> PhotoFace:
    return photos.face_of()


@pytest.fixture
def tree(tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> Path:
    return photos.make_tree(tmp_path, photo.pixels, monkeypatch)


def ray(point: np.ndarray) -> np.ndarray:
    there = np.linalg.inv(photos.CAMERA.matrix) @ [*point, 1.0]
    return there / np.linalg.norm(there)


def test_a_point_between_the_eyes_is_the_camera(face: PhotoFace):
    assert face.looking_at(face.eyes.mean(axis=(0, 1))) == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(("step", "sign"), [((-120, 0), (0, 1)), ((120, 0), (0, -1)), ((0, -90), (1, 0))])
def test_eyes_turn_to_a_point_by_the_angle_that_the_camera_sees_it_apart(face: PhotoFace, step, sign):
    middle = face.eyes.mean(axis=(0, 1))
    label = face.looking_at(middle + step)
    between = np.degrees(np.arccos(ray(middle) @ ray(middle + step)))
    assert np.degrees(np.arccos(np.cos(label[0]) * np.cos(label[1]))) == pytest.approx(between, abs=1e-6)
    assert np.degrees(label) @ sign == pytest.approx(between, abs=0.6)


def test_a_point_too_far_from_a_face_is_refused(face: PhotoFace):
    conditions = {"gaze": tiny_condition()}
    with pytest.raises(UserError, match="--look-at: 3000 240 lies .* degrees from face 1, expected at most 60"):
        Edit(look_at=(3000, 240)).targets(face, conditions)
    assert Edit(look_at=(300, 240)).targets(face, conditions).keys() == {"gaze"}


def tiny_condition():
    return tiny_redirector().encode(photo_tensor()).conditions["gaze"]


def photo_tensor():
    from core.redirection.equalizing import Equalized

    return Equalized(np.zeros((128, 128, 3), np.uint8), 64).tensor(photos.loaded(tiny_redirector()).device)


def test_a_sheet_goes_from_what_is_asked_to_its_opposite_with_image_left_and_up_first():
    sheet = plan_sheet(Edit(gaze=(0, -20), head=(10, 0)), 3)
    assert [one.gaze for one in sheet.rows[0]] == [(0, 20), (0, 0), (0, -20)]
    assert [row[0].head for row in sheet.rows] == [(10, 0), (0, 0), (-10, 0)]
    assert sheet.titles == (["gaze 0 20", "gaze 0 0", "gaze 0 -20"], ["head 10 0", "head 0 0", "head -10 0"])


def test_a_sheet_keeps_what_is_not_asked_for():
    sheet = plan_sheet(Edit(head=(0, 15), relative=True, eye_contact=True), 2)
    assert [[(one.gaze, one.eye_contact) for one in row] for row in sheet.rows] == [[(None, True)]] * 2
    assert sheet.titles == (["eye contact"], ["head +0 +15", "head +0 -15"])


def test_a_cell_shows_the_face_and_nothing_else_changes(photo: Photo, face: PhotoFace):
    sheet = plan_sheet(Edit(gaze=(0, 10), relative=True), 2)
    picture, done = draw_sheet(photos.loaded(photos.Told()), photo, face, sheet)
    top, left = MARGIN
    cells = picture[top:, left:]
    side = len(cells)
    assert cells.shape == (side, 2 * side, 3) and len(done) == 2
    assert np.array_equal(cells[:, :side], cells[:, side:])
    ratio = side / (1.5 * face.side)
    shift = (side - 1) / 2 - ratio * face.corners.mean(axis=0)
    expected = warp_image(photo.pixels, np.array([[ratio, 0, shift[0]], [0, ratio, shift[1]], [0, 0, 1]]), side)
    assert np.abs(cells[:, :side].astype(int) - expected).mean() < 4


def test_the_gaze_of_a_sheet_to_a_point_is_that_of_the_photograph(photo: Photo, face: PhotoFace):
    edit = Edit(head=(0, 10), look_at=(100, 200))
    _, done = draw_sheet(photos.loaded(tiny_flow()), photo, face, plan_sheet(edit, 2))
    assert done[0].after["gaze"] == pytest.approx(np.degrees(face.looking_at((100, 200))), abs=1e-3)


def test_side_by_side_has_arrows_on_faces_and_is_the_photograph_elsewhere(photo: Photo, face: PhotoFace):
    done = redirect_faces(photos.loaded(photos.Told()), photo, [face], KEPT)
    both = side_by_side(done)
    width = photo.pixels.shape[1]
    left, right = both[:, :width], both[:, -width:]
    assert both.shape[1] > 2 * width and np.array_equal(left, right)
    for colour in (HEAD, GAZE):
        assert 10 < (left == colour).all(axis=-1).sum() < 2000
    assert np.array_equal(left[:80], photo.pixels[:80])


def test_where_no_face_is_found_any_more_there_is_no_arrow(photo: Photo, face: PhotoFace):
    done = redirect_faces(photos.loaded(photos.Told()), photo, [face], KEPT)
    grey = np.full_like(photo.pixels, 128)
    assert np.array_equal(side_by_side(replace(done, pixels=grey))[:, -grey.shape[1] :], grey)
    assert record_of(replace(done, pixels=grey))["faces"][0]["measured_after"] is None


def test_the_reference_measures_the_angles_of_a_scene(photo: Photo, face: PhotoFace):
    seen = measure(photo.pixels, face)
    assert seen is not None and seen.gaze is not None
    gaze, head = (np.degrees(face.from_condition(part)) for part in np.split(photos.SHOT.labels[:4], 2))
    assert np.abs(np.subtract(seen.head, head)).max() < 6
    assert np.abs(np.subtract(seen.gaze, gaze)).max() < 8


def test_a_patch_is_measured_in_its_own_frame(photo: Photo, face: PhotoFace):
    patch = warp_image(photo.pixels, face.to_patch, 128)
    seen = measure_patch(patch, ST_ED)
    assert seen is not None and np.abs(np.subtract(seen.head, np.degrees(photos.SHOT.labels[2:4]))).max() < 6
    assert measure_patch(np.zeros((64, 64, 3), np.uint8), ST_ED.resized(64)) is None


def test_the_gaze_of_closed_eyes_is_not_told(photo: Photo, face: PhotoFace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure_room, "lids_apart", lambda mesh: 0.1)
    seen = measure(photo.pixels, face)
    assert seen is not None and seen.angles["gaze"] is None and seen.angles["head"] is not None


def test_a_face_that_an_edit_would_spoil_is_left_as_it_is_unless_it_is_named(face: PhotoFace):
    profile, asleep = replace(face, head=np.radians([0.0, 50.0])), replace(face, number=2)
    awake = replace(face, number=3, landmarks=photos.opened(face.landmarks))
    assert asleep.is_closed and not awake.is_closed and profile.is_sideways
    spared = {
        name: [one.name for one in sparing([profile, asleep, awake], edit, number) if isinstance(one, LeftOut)]
        for name, edit, number in (
            ("head", Edit(head=(0, 10)), None), ("gaze", Edit(gaze=(0, 10)), None), ("named", Edit(gaze=(0, 10)), 2),
            ("both", Edit(gaze=(0, 10), head=(0, 10)), None),
        )
    }  # fmt: skip
    assert spared == {"head": ["face 1"], "gaze": ["face 1", "face 2"], "named": ["face 1"], "both": ["face 1"]}


def test_what_no_training_set_has_is_doubted(face: PhotoFace):
    straight = {"gaze": (0.0, 0.0), "head": (0.0, 0.0)}
    awake = replace(face, landmarks=photos.opened(face.landmarks))
    for after, told in (
        ({"head": (0.0, 31.0)}, "turns its head by more than 30"),
        ({"gaze": (0.0, 41.0)}, "past its head"),
    ):
        (doubt,) = RedirectedFace(awake, straight, straight | after).doubts
        assert told in doubt
    assert not RedirectedFace(awake, straight, straight | {"gaze": (0.0, 20.0)}).doubts
    far = replace(awake, to_patch=awake.to_patch @ np.diag([4.0, 4.0, 1.0]))
    assert far.doubts == ["is small: little is seen of its eyes"]


def test_json_has_what_was_asked_and_measured(tree: Path):
    more = ["--gaze", "0", "-15", "--side-by-side", "--json", str(tree / "new.json")]
    assert redirect.main(command(tree, *more, "--face", "1")) == 0
    (record,) = json.loads((tree / "new.json").read_text())["photographs"]
    (told,) = record["faces"]
    assert record["source"].endswith("in.png") and record["written"].endswith("out.png")
    assert told["asked"]["gaze"] == [0, -15] and told["asked"]["head"] == told["source"]["head"]
    assert len(told["measured_before"]["gaze"]) == len(told["measured_after"]["head"]) == 2
    assert open_photo(tree / "out.png").pixels.shape[1] > 2 * photos.SIDE


def test_a_grid_is_written_in_place_of_the_photograph(tree: Path, capsys: pytest.CaptureFixture[str]):
    assert redirect.main(command(tree, "--grid", "2", "-o", str(tree / "sheet.webp"))) == 0
    assert "a sheet of 2 rows of 2" in capsys.readouterr().out
    height, width = open_photo(tree / "sheet.webp").pixels.shape[:2]
    assert width - MARGIN[1] == height - MARGIN[0]


def test_a_folder_is_done_one_by_one_and_what_cannot_be_is_said(tree: Path, capsys: pytest.CaptureFixture[str]):
    inside = tree / "photos/more"
    inside.mkdir(parents=True)
    pixels = open_photo(tree / "in.png").pixels
    write_image(inside / "a.png", pixels)
    write_image(tree / "photos/a.bmp", pixels)
    write_image(tree / "photos/grey.png", np.full((200, 200, 3), 128, np.uint8))
    (tree / "photos/broken.jpg").write_bytes(b"no image")
    (tree / "photos/notes.txt").write_text("hello")
    ask = ["--gaze", "0", "15", "-o", str(tree / "out"), "--json", str(tree / "all.json"), "--face", "1"]
    assert redirect.main(command(tree, *ask, photo="photos")) == 1
    said = capsys.readouterr().out
    assert "1 files are passed over, no photographs by name: 1 .txt" in said
    assert "grey.png: no face found" in said and "broken.jpg: image cannot be read" in said
    assert "Redirected 2 of 4 photographs; 2 could not be." in said
    assert sorted(path.relative_to(tree / "out").as_posix() for path in (tree / "out").rglob("*.*")) == [
        "a.bmp.png", "more/a.png",
    ]  # fmt: skip
    records = json.loads((tree / "all.json").read_text())["photographs"]
    assert ["error" in record for record in records] == [False, True, True, False]


def test_a_folder_of_which_nothing_can_be_done_is_unusable(tree: Path):
    (tree / "photos").mkdir()
    write_image(tree / "photos/grey.png", np.full((200, 200, 3), 128, np.uint8))
    assert redirect.main(command(tree, "--gaze", "0", "15", "-o", str(tree / "out"), photo="photos")) == 2


def test_patches_keep_their_layout_and_get_the_labels_that_were_asked_for(tmp_path: Path):
    source = write_dataset(tmp_path / "in.h5", persons=2, samples=2)
    with h5py.File(source, "r+") as file:
        file.attrs["gaze_known"] = False
        for group in file.values():
            group["name"] = [b"a.jpg", b"b.jpg"]
            labels = np.tile(group["labels"][()], 2)
            del group["labels"]
            group["labels"] = labels
    redirect_persons(photos.loaded(tiny_redirector()), source, tmp_path / "out.h5", Edit(gaze=(0, 15)))
    with h5py.File(source) as old, h5py.File(tmp_path / "out.h5") as new:
        assert set(new) == set(old) and new.attrs["gaze_known"] == old.attrs["gaze_known"]
        assert json.loads(new.attrs["redirected"])["gaze"] == [0, 15]
        for person, group in old.items():
            found = new[person]
            assert {name: (data.shape, data.dtype) for name, data in found.items()} == {
                name: (data.shape, data.dtype) for name, data in group.items()
            }
            labels = np.degrees(found["labels"][()])
            assert labels[:, [0, 1, 4, 5, 6, 7]] == pytest.approx(np.tile([0, 15], (2, 3)), abs=1e-3)
            assert np.array_equal(found["labels"][:, 2:4], group["labels"][:, 2:4])
            assert np.array_equal(found["name"], group["name"])
            assert np.abs(found["pixels"][()].astype(int) - group["pixels"][()]).max() > 0


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_patches_that_are_carried_nowhere_stay_to_the_bit_whatever_their_colours(tmp_path: Path, order: str):
    source = write_dataset(tmp_path / "in.h5", persons=1, samples=2)
    with h5py.File(source, "r+") as file:
        file.attrs["color_order"] = order
    records = redirect_persons(photos.loaded(photos.Told()), source, tmp_path / "out.h5", KEPT, measures=True)
    with h5py.File(source) as old, h5py.File(tmp_path / "out.h5") as new:
        assert np.array_equal(old["00000/pixels"], new["00000/pixels"])
    assert [record["source"] for record in records] == ["00000/0", "00000/1"]


def test_a_file_of_patches_goes_through_the_command(tree: Path, capsys: pytest.CaptureFixture[str]):
    write_dataset(tree / "in.h5", persons=1, samples=2)
    start = [str(tree / "in.h5"), "--checkpoint", str(tree / "st-ed-flow"), "--eye-contact"]
    assert redirect.main([*start, "--json", str(tree / "h5.json")]) == 0
    assert (tree / "in-redirected.h5").is_file()
    (first, _) = json.loads((tree / "h5.json").read_text())["photographs"]
    assert first["faces"][0]["asked"]["gaze"] == [0, 0]
    assert redirect.main([*start, "--face", "1"]) == 2
    assert "--face is of photographs, not of a file of patches; leave it out." in capsys.readouterr().err


def test_one_of_ten_faces_is_chosen(tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch, capsys):
    photos.make_tree(tmp_path, photo.pixels, monkeypatch, faces=10)
    assert redirect.main(command(tmp_path, "--gaze", "0", "15", "--face", "10")) == 0
    assert capsys.readouterr().out.startswith("face 10 at")
    assert redirect.main(command(tmp_path, "--gaze", "0", "15", "--face", "11")) == 2
    assert "--face: found 11, expected 1 to 10, the largest face first." in capsys.readouterr().err


def test_mistakes_get_one_clear_sentence(tree: Path, capsys: pytest.CaptureFixture[str]):
    write_dataset(tree / "in.h5", persons=1, samples=1)
    (tree / "photos").mkdir()
    (tree / "notes").mkdir()
    (tree / "notes/a.txt").write_text("hello")
    for name in ("a.bmp", "a.bmp.png"):
        write_image(tree / "photos" / name, np.zeros((9, 9, 3), np.uint8))
    ask = ("--gaze", "0", "15")
    for arguments, message in (
        (
            command(tree, "--look-at", "900", "3"),
            "--look-at: found 900 3, expected a pixel of the upright",
        ),
        (command(tree, "--look-at", "9", "3", "--eye-contact"), "each says where the eyes look; give one of them."),
        (command(tree, "--grid", "1"), "--grid: found 1, expected 2 to 15 steps."),
        (command(tree, "--grid", "3", "--side-by-side"), "--side-by-side is of photographs, not of a grid"),
        (command(tree, *ask, "--json", str(tree)), "is a folder; name a file."),
        (command(tree, *ask, "--json", "/proc/a.json"), "--json: /proc cannot be written"),
        (command(tree, *ask, "-o", str(tree)), "is a folder; name a file."),
        (command(tree, *ask, photo="notes"), "no photographs in it (1 .txt)"),
        (command(tree, *ask, "-o", str(tree / "photos/out"), photo="photos"), "is in the folder of the photographs"),
        (command(tree, *ask, "-o", str(tree / "in.h5"), photo="photos"), "is written to a folder."),
        (command(tree, *ask, "-o", str(tree / "out"), photo="photos"), "would both be written to"),
        ([str(tree / "in.h5"), "--checkpoint", str(tree / "st-ed"), *ask, "-o", "a.png"], "name it a.h5."),
        ([str(tree / "no.h5"), "--checkpoint", str(tree / "st-ed"), *ask], "no.h5: no such file"),
    ):
        assert redirect.main(arguments) == 2, message
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert not (tree / "out").exists() and not (tree / "out.png").exists()


def test_twelve_megapixels_take_a_few_copies_of_the_photograph(photo: Photo, face: PhotoFace):
    scale = 3464 / photos.SIDE
    grow = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
    large = Photo(cv2.resize(photo.pixels, (3464, 3464), interpolation=cv2.INTER_LINEAR))
    grown = replace(
        face, landmarks=apply_homography(grow, face.landmarks), to_patch=face.to_patch @ np.linalg.inv(grow),
        camera=grow @ face.camera,
    )  # fmt: skip
    tracemalloc.start()
    redirect_faces(photos.loaded(tiny_flow()), large, [grown], Edit(head=(0, 10)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * large.pixels.nbytes
