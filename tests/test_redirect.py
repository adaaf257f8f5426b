"""Photographs redirected: what must change changes where it must, all else stays, and mistakes get a sentence."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import core.redirection.faces as faces_room
import redirect
from core.command import UserError
from core.config_default import Config
from core.redirection.edit import Edit
from core.redirection.equalizing import Equalized
from core.redirection.faces import PhotoFace, place
from core.redirection.fade import EXTENT, eye_fade, face_fade, to_positions
from core.redirection.photo import redirect_faces
from core.redirection.photo_files import HISTORY, Photo, open_photo, write_photo
from preprocess.face_patches import LeftOut
from preprocess.image_files import ORIENTATION
from preprocess.normalization import apply_homography
from tests import photos
from tests.photos import command
from tests.raw_trees import degrees_apart, lay_out, write_image
from tests.tiny import tiny_flow, tiny_redirector

KEPT = Edit(head=(0, 0), relative=True)
TURNED = Edit(gaze=(0, 20), relative=True)


@pytest.fixture(scope="module")
def person() -> photos.Person:
    return photos.make_person()


@pytest.fixture(scope="module")
def photo(person: photos.Person) -> Photo:
    return Photo(photos.photograph(person))


@pytest.fixture(scope="module")
def face() -> PhotoFace:
    return photos.face_of()


def fade_at(face: PhotoFace, fade: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 2): a fade as it lies over the photograph."""
    y, x = np.mgrid[: photos.SIDE, : photos.SIDE].astype(np.float64)
    at = to_positions(apply_homography(face.to_patch, np.stack([x, y], axis=-1)))
    at = ((at / EXTENT + 1) / 2 * len(fade) - 0.5).astype(np.float32)
    return cv2.remap(fade, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H, W): the largest difference of a pixel's channels."""
    return np.abs(a.astype(int) - b).max(axis=-1)


def test_the_pose_is_that_of_the_scene(face: PhotoFace):
    found = face.to_condition(face.head)
    assert degrees_apart(found[None], photos.SHOT.labels[None, 2:4])[0] < 3


def test_a_face_is_found_where_it_is(photo: Photo, face: PhotoFace):
    (found,) = faces_room.find(photo.pixels, focal=photos.CAMERA.matrix[0, 0])
    assert isinstance(found, PhotoFace) and not found.doubts
    assert np.linalg.norm(found.corners - face.corners, axis=1).max() < 0.1 * face.side


@pytest.mark.parametrize("redirector", [tiny_flow(), photos.Told()], ids=["st-ed-flow", "told"])
def test_pixels_that_are_carried_nowhere_stay_to_the_bit(photo: Photo, face: PhotoFace, redirector):
    done = redirect_faces(photos.loaded(redirector), photo, [face], KEPT)
    assert np.array_equal(done.pixels, photo.pixels)


def test_a_patch_pasted_back_unedited_is_two_grey_levels_off_at_most(photo: Photo, face: PhotoFace):
    done = redirect_faces(photos.loaded(photos.Told()), photo, [face], KEPT, back="patch")
    inside = fade_at(face, face_fade()).any(axis=-1)
    off = gap(done.pixels, photo.pixels)
    assert off[inside].max() <= 2 and off[~inside].max() == 0


@pytest.mark.parametrize("back", ["pixels", "patch"])
def test_an_edit_of_the_gaze_changes_eyes_alone_unless_told_otherwise(photo: Photo, face: PhotoFace, back):
    around_eyes = fade_at(face, eye_fade(face)).any(axis=-1)
    confined, free = (
        redirect_faces(photos.loaded(tiny_flow()), photo, [face], TURNED, back=back, whole_face=whole)
        for whole in (False, True)
    )
    assert gap(confined.pixels, photo.pixels)[around_eyes].max() > 0
    assert gap(confined.pixels, photo.pixels)[~around_eyes].max() == 0
    assert gap(free.pixels, photo.pixels)[~around_eyes].max() > 0
    for middle in face.eyes.mean(axis=1):
        assert around_eyes[tuple(np.rint(middle[::-1]).astype(int))]


def test_nothing_changes_far_from_the_face(photo: Photo, face: PhotoFace):
    done = redirect_faces(photos.loaded(tiny_flow()), photo, [face], Edit(head=(0, 20), relative=True))
    inside = fade_at(face, face_fade()).any(axis=-1)
    off = gap(done.pixels, photo.pixels)
    assert off[inside].max() > 0 and off[~inside].max() == 0 and (~inside).sum() > 1000


def test_a_flow_moves_the_photographs_own_pixels_as_far_as_it_says(person: photos.Person):
    shot = lay_out(photos.CAMERA, distance=600, gaze=(0, 0), head=(0, 0))
    photo, face = Photo(photos.photograph(person, shot)), photos.face_of(shot)
    flow = (0.1, -0.05)
    done = redirect_faces(photos.loaded(photos.Told(flow)), photo, [face], KEPT)
    expected = photos.shifted(photo.pixels, *(part * face.side / 2 for part in flow))
    middle = np.s_[200:280, 200:280]
    assert gap(done.pixels, expected)[middle].mean() < 1.5 < gap(photo.pixels, expected)[middle].mean()


def test_a_mirrored_share_shows_the_mirror_image(person: photos.Person):
    shot = lay_out(photos.CAMERA, distance=600, gaze=(0, 10), head=(0, 0))
    photo, face = Photo(photos.photograph(person, shot)), photos.face_of(shot)
    done = redirect_faces(photos.loaded(photos.Told(shares=(0.0, 1.0, 0.0))), photo, [face], KEPT)
    middle, mirrored = np.s_[190:290, 190:290], photo.pixels[:, ::-1]
    shift = 2 * (face.corners.mean(axis=0)[0] - (photos.SIDE - 1) / 2)
    assert gap(done.pixels, photos.shifted(mirrored, -shift, 0))[middle].mean() < 4
    assert gap(photo.pixels, mirrored)[middle].mean() > 4


def test_paint_is_put_in_as_the_change_that_it_makes(photo: Photo, face: PhotoFace):
    lighter = redirect_faces(photos.loaded(photos.Told(shares=(0.0, 0.0, 1.0), paint=0.1)), photo, [face], KEPT)
    same = redirect_faces(photos.loaded(photos.Told(shares=(0.0, 0.0, 1.0))), photo, [face], KEPT)
    x, y = np.rint(face.corners.mean(axis=0)).astype(int)
    patch = np.s_[y - 20 : y + 20, x - 20 : x + 20]
    assert np.array_equal(same.pixels, photo.pixels)
    assert (lighter.pixels[patch].astype(int) - photo.pixels[patch]).mean() > 1


def test_colour_contrast_and_light_are_given_back(photo: Photo, face: PhotoFace):
    """A redirector whose pictures are all too green and too flat: pasted back, no such thing is seen."""
    seen = Equalized(np.ascontiguousarray(photo.pixels[150:278, 150:278]), 64)
    equalized = seen.planes.transpose(1, 2, 0).astype(np.float32)
    green = np.clip(equalized + (0, 30, 0), 0, 255).astype(np.float32)
    assert np.abs(seen.given_back(equalized, equalized) - seen.plain).max() < 1e-3
    assert np.abs(seen.given_back(green, green) - seen.plain).mean() < 6
    assert np.abs(seen.undone(green) - seen.plain).mean() > 8


def test_eye_contact_is_into_the_camera_wherever_the_face_is(face: PhotoFace):
    targets = Edit(eye_contact=True).targets(face, {"gaze": torch.tensor([[0.2, 0.3]])})
    assert targets.keys() == {"gaze"} and targets["gaze"].tolist() == [[0, 0]]


def test_degrees_are_those_of_the_photograph_not_of_the_leaning_head(face: PhotoFace):
    """The head leans by 11 degrees clockwise: what is up in the photograph is up and to its left in the patch."""
    up = np.degrees(face.to_condition(np.radians([20.0, 0.0])))
    expected = 20 * np.array([np.cos(np.radians(11)), np.sin(np.radians(11))])
    assert np.abs(np.abs(up) - expected).max() < 0.6
    x_axis = apply_homography(face.to_patch, np.array([[240.0, 240], [240, 220]]))
    seen_up = x_axis[1] - x_axis[0]
    assert np.sign(-seen_up[0]) == np.sign(up[1])
    assert face.from_condition(face.to_condition(np.radians([20.0, 5.0]))) == pytest.approx(np.radians([20.0, 5.0]))


def test_relative_degrees_count_from_what_the_redirector_sees(face: PhotoFace):
    own = torch.from_numpy(face.to_condition(np.radians([3.0, -8.0])))[None].float()
    target = Edit(gaze=(0, 10), relative=True).targets(face, {"gaze": own})["gaze"][0]
    assert np.degrees(face.from_condition(target.double().numpy())) == pytest.approx([3, 2], abs=1e-3)


def test_a_factor_that_is_not_named_is_kept(photo: Photo, face: PhotoFace):
    done = redirect_faces(photos.loaded(tiny_redirector()), photo, [face], Edit(gaze=(0, 15)))
    assert done.faces[0].before["head"] == done.faces[0].after["head"]
    assert done.faces[0].after["gaze"] == pytest.approx((0, 15), abs=1e-3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_photographs_are_upright_and_keep_what_stands_beside_them(tmp_path: Path, orientation: int, suffix: str):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:20, :30] = 255  # top left
    turns = {1: 0, 3: 2, 6: 1, 8: 3}
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = orientation, "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(np.rot90(upright, turns[orientation])).save(
        tmp_path / "in.jpg", quality=100, exif=exif, icc_profile=profile
    )
    photo = open_photo(tmp_path / "in.jpg")
    write_photo(tmp_path / f"out{suffix}", photo.pixels, photo, "redirected: face 1")
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert written.size == (60, 40) and written.getpixel((5, 5))[0] > 250 and written.getpixel((50, 30))[0] < 5
        assert written.getexif()[0x010F] == "a camera" and written.getexif().get(ORIENTATION) == 1
        assert written.getexif()[HISTORY] == "redirected: face 1" and written.info["icc_profile"] == profile
        xmp = written.info["xmp"]
        assert b"redirected: face 1" in xmp and b"compositeWithTrainedAlgorithmicMedia" in xmp


def test_the_note_joins_what_the_metadata_say_already(tmp_path: Path):
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><rdf:Description a="mine"/></rdf:RDF></x:xmpmeta>'
    )
    photo = Photo(np.zeros((8, 8, 3), np.uint8), xmp=xmp)
    write_photo(tmp_path / "a.png", photo.pixels, photo, "redirected: <1>")
    write_photo(tmp_path / "b.png", photo.pixels, photo)
    noted, plain = (open_photo(tmp_path / name).xmp for name in ("a.png", "b.png"))
    assert b'a="mine"' in noted and b"redirected: &lt;1&gt;" in noted and noted.count(b"</rdf:RDF>") == 1
    assert plain == xmp and ORIENTATION not in Image.open(tmp_path / "b.png").getexif()


def test_the_small_picture_in_exif_which_shows_the_face_as_it_was_is_dropped(tmp_path: Path):
    small = cv2.imencode(".jpg", np.full((8, 8, 3), 77, np.uint8))[1].tobytes()
    entries = struct.pack("<HHHIII", 1, ORIENTATION, 3, 1, 1, 26)  # one entry, and where the second directory is
    entries += struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(small), 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + small
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "in.jpg", exif=exif)
    assert small in (tmp_path / "in.jpg").read_bytes()
    photo = open_photo(tmp_path / "in.jpg")
    write_photo(tmp_path / "out.jpg", photo.pixels, photo, "redirected")
    with Image.open(tmp_path / "out.jpg") as written:
        assert written.getexif()[HISTORY] == "redirected" and not written.getexif().get_ifd(1)
    assert small not in (tmp_path / "out.jpg").read_bytes()


def test_metadata_too_long_for_jpeg_leave_the_note(tmp_path: Path):
    photo = Photo(np.zeros((8, 8, 3), np.uint8), xmp=b"<rdf:RDF>" + b" " * 70_000 + b"</rdf:RDF>")
    write_photo(tmp_path / "out.jpg", photo.pixels, photo, "redirected")
    assert b"redirected" in open_photo(tmp_path / "out.jpg").xmp


def test_transparency_is_kept(tmp_path: Path):
    rgba = np.full((20, 30, 4), 90, np.uint8)
    rgba[:, :10, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "in.png")
    photo = open_photo(tmp_path / "in.png")
    write_photo(tmp_path / "out.png", photo.pixels, photo)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), rgba)


@pytest.fixture
def tree(tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> Path:
    return photos.make_tree(tmp_path, photo.pixels, monkeypatch)


@pytest.mark.parametrize("kind", ["st-ed", "redirtrans", "st-ed-flow"])
def test_every_redirector_of_patches_redirects_photographs(tree: Path, kind: str, capsys: pytest.CaptureFixture[str]):
    assert redirect.main(command(tree, "--gaze", "0", "-15", checkpoint=kind)) == 0
    assert "face 1 at" in (said := capsys.readouterr().out) and "to 0 -15, head" in said
    before, after = (np.asarray(Image.open(tree / name).convert("RGB")) for name in ("in.png", "out.png"))
    changed = gap(before, after) > 0
    assert 0 < changed.mean() < 0.1


def test_as_a_library(tree: Path):
    model = redirect.load(tree / "st-ed-flow" / "checkpoints" / "3.pt")
    done = redirect.redirect_photo(model, tree / "in.png", gaze=(0, 15), focal=photos.CAMERA.matrix[0, 0])
    done.save(tree / "out.png")
    assert np.array_equal(open_photo(tree / "out.png").pixels, done.pixels)
    pixels = redirect.redirect_photo(model, done.photo.pixels, gaze=(0, 15), focal=photos.CAMERA.matrix[0, 0]).pixels
    assert np.array_equal(pixels, done.pixels)


def test_a_checkpoint_without_settings_works_with_its_configuration(tree: Path):
    content = torch.load(tree / "st-ed/checkpoints/3.pt", weights_only=True)
    torch.save({key: content[key] for key in ("encoder", "decoder")}, tree / "published.pt")
    (tree / "its.json").write_text(Config(**photos.TINY).to_json())
    more = ["--config", str(tree / "its.json"), "--eye-contact"]
    assert redirect.main(command(tree, *more, checkpoint="published.pt")) == 0


def test_mistakes_get_one_clear_sentence(tree: Path, capsys: pytest.CaptureFixture[str]):
    write_image(tree / "grey.png", np.full((200, 200, 3), 128, np.uint8))
    (tree / "broken.jpg").write_bytes((tree / "in.png").read_bytes()[:999])
    (tree / "empty").mkdir()
    gan = {"projector": {}, "config": Config(redirector="redirtrans-gan").to_json()}
    torch.save(gan, tree / "gan.pt")
    torch.save({"encoder": {}, "decoder": {}}, tree / "bare.pt")
    torch.save({"weights": {}}, tree / "other.pt")
    ask = ("--gaze", "0", "15")
    for arguments, message in (
        (command(tree, *ask, checkpoint="none"), "none: no such file or folder. Name a run folder"),
        (command(tree, *ask, checkpoint="empty"), "empty: no checkpoints/<step>.pt in it. Name a run folder"),
        (command(tree, *ask, checkpoint="gan.pt"), "redirtrans-gan, which redirects aligned faces and no photographs"),
        (command(tree, *ask, checkpoint="bare.pt"), "does not say how its networks are built"),
        (command(tree, *ask, checkpoint="other.pt"), "a file of weights, expected encoder and decoder"),
        (command(tree, *ask, checkpoint="in.png"), "is not a PyTorch file"),
        (command(tree, *ask, photo="none.png"), "none.png: no such image."),
        (command(tree, *ask, photo="broken.jpg"), "broken.jpg: image cannot be read"),
        (command(tree, *ask, photo="grey.png"), "grey.png: no face found in it"),
        (command(tree, *ask, "--face", "2"), "--face: found 2, expected 1 to 1"),
        (command(tree, *ask, "--focal", "2"), "--focal: found 2, expected pixels"),
        (command(tree, *ask, "-o", "/proc/out.png"), "-o: /proc cannot be written"),
        (command(tree, *ask, "-o", str(tree / "in.png")), "in.png is the photograph itself"),
        (command(tree, *ask, "-o", str(tree / "out.gif")), "none of the formats that are written"),
        (command(tree, *ask, "--back", "pixels", checkpoint="st-ed"), "this redirector carries no pixels"),
        (command(tree), "nothing is asked for; give --gaze, --head, --eye-contact or --look-at."),
        (command(tree, *ask, "--eye-contact"), "--gaze and --eye-contact: each says where the eyes look"),
        (command(tree, "--head", "0", "70"), "--head: found 0 70, expected pitch and yaw of at most 60 degrees"),
    ):
        assert redirect.main(arguments) == 2, message
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert not (tree / "out.png").exists()


def test_a_face_at_the_border_is_left_out_and_said():
    beyond = photos.SHOT.landmarks_with_lids() - (250, 0)
    found = place(beyond, photos.CAMERA.matrix, (photos.SIDE, photos.SIDE))
    assert isinstance(found, LeftOut) and found.reason == "face is cut by the image's border"
    with pytest.raises(UserError, match="face 1: face is cut by the image's border, .* of the patch is inside"):
        faces_room.choose([found], None)
