"""One's own photographs: patches and head labels as the geometry has them, gaze said to be unknown."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from core.command import UserError
from dataset import GazeDataset
from preprocess.__main__ import main
from preprocess.datasets.images import find_photographs, photo_camera, upright
from preprocess.image_files import FOCAL_35MM, ORIENTATION, read_exif
from preprocess.inspect.verify import verify
from preprocess.normalization import apply_homography
from preprocess.synthetic.drawn.head import Person
from tests.raw_trees import (
    Camera,
    lay_out,
    make_person,
    patch_of,
    photograph,
    read_attributes,
    read_person,
    write_image,
    write_landmarks,
)

FILM = 26  # mm, as phones say
CAMERA = Camera.plain(FILM / np.hypot(36, 24) * np.hypot(480, 640), 480, 640)
SHOTS = {
    "anna/0.jpg": lay_out(CAMERA, distance=520, gaze=(0, 0), head=(5, -20), at=(0.05, -0.1), roll=8),
    "anna/holiday/1.png": lay_out(CAMERA, distance=600, gaze=(5, 5), head=(-12, 15), at=(-0.1, 0.05)),
    "self.jpg": lay_out(CAMERA, distance=480, gaze=(-5, 9), head=(0, 3), roll=-12),
}


@pytest.fixture(scope="module")
def person() -> Person:
    return make_person()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, person: Person) -> Path:
    """`photos` with what people keep there, and `landmarks`."""
    root = tmp_path_factory.mktemp("own")
    for name, shot in SHOTS.items():
        write_image(root / "photos" / name, photograph(person, shot))
        write_landmarks(root / "landmarks", name, shot.landmarks())
    (root / "photos" / "anna" / "notes.txt").write_text("no photograph")
    (root / "photos" / "anna" / "._0.jpg").write_bytes(b"left by another system")
    return root


def command(tree: Path, out: Path, *more: str) -> list[str]:
    folders = [str(tree / "photos"), "--out", str(out), "--landmarks", str(tree / "landmarks")]
    return ["images", *folders, "--workers", "1", *more]


@pytest.fixture(scope="module")
def converted(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "own.h5"
    assert main(command(tree, out, "--focal", str(CAMERA.matrix[0, 0]))) == 0
    return out


def samples(out: Path) -> dict[str, dict[str, np.ndarray]]:
    """Name -> row of every data set."""
    found = {}
    for person in GazeDataset(out).person_ids:
        rows = read_person(out, person)
        for i, name in enumerate(rows.pop("name")):
            found[name] = {key: values[i] for key, values in rows.items()}
    return found


def test_folders_are_persons_and_the_rest_is_one(converted: Path):
    assert GazeDataset(converted).person_ids == ["anna", "photos"]
    assert read_person(converted, "anna")["name"] == ["anna/0.jpg", "anna/holiday/1.png"]
    assert samples(converted).keys() == SHOTS.keys()


@pytest.mark.parametrize("name", SHOTS)
def test_the_head_is_measured_and_gaze_repeats_it(converted: Path, name: str):
    labels = samples(converted)[name]["labels"].reshape(4, 2)
    assert np.degrees(labels[1]) == pytest.approx(np.degrees(SHOTS[name].labels[2:4]), abs=0.05)
    assert (labels == labels[1]).all()


@pytest.mark.parametrize("name", SHOTS)
def test_the_patch_is_what_the_normalised_camera_takes(converted: Path, person: Person, name: str):
    gap = np.abs(samples(converted)[name]["pixels"].astype(float) - patch_of(person, SHOTS[name]))
    assert gap[16:-16, 16:-16].mean() < 4


def test_a_patch_can_be_put_back_into_its_photograph(converted: Path, tree: Path):
    name = "anna/holiday/1.png"
    row, shot = samples(converted)[name], SHOTS[name]
    assert row["image_shape"].tolist() == [640, 480]
    centre = CAMERA.project(shot.centre[None])
    assert apply_homography(row["image_to_patch"], centre)[0] == pytest.approx((63.5, 63.5), abs=0.1)
    image = cv2.imread(str(tree / "photos" / name))[..., ::-1]
    back = cv2.warpPerspective(row["pixels"], np.linalg.inv(row["image_to_patch"]), (480, 640))
    inside = cv2.warpPerspective(np.ones((128, 128)), np.linalg.inv(row["image_to_patch"]), (480, 640)) == 1
    assert inside.sum() > 10_000 and np.abs(back.astype(float) - image)[inside].mean() < 4


def test_the_file_says_that_gaze_is_not_known(converted: Path):
    found = read_attributes(converted)
    assert not found["gaze_known"] and found["color_order"] == "RGB" and found["dataset"] == "photographs"
    checks = {check.name: check.level for check in verify(converted)[0]}
    assert checks["gaze_known"] == "warning" and "FAIL" not in checks.values()


def write_exif(path: Path, rgb: np.ndarray, orientation: int, film: int | None) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    if film:
        tags.get_ifd(0x8769)[0xA405] = film
    Image.fromarray(rgb).save(path, exif=tags, quality=97)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_their_exif_says(tmp_path: Path, orientation: int):
    stored = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    write_exif(tmp_path / "a.png", stored, orientation, FILM)
    assert read_exif(tmp_path / "a.png", ORIENTATION, FOCAL_35MM) == [orientation, FILM]
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(upright(stored, orientation), expected)


def test_a_turned_photograph_with_exif_gives_the_same_sample(tree: Path, tmp_path: Path, person: Person):
    image = photograph(person, SHOTS["self.jpg"])
    (tmp_path / "photos").mkdir()
    write_exif(tmp_path / "photos" / "self.jpg", np.rot90(image).copy(), 6, FILM)  # 6: turn it clockwise
    shutil.copytree(tree / "landmarks", tmp_path / "landmarks")
    out = tmp_path / "out.h5"
    assert main(command(tmp_path, out)) == 0
    row = samples(out)["self.jpg"]
    assert np.degrees(row["labels"][2:4]) == pytest.approx(np.degrees(SHOTS["self.jpg"].labels[2:4]), abs=0.05)
    gap = np.abs(row["pixels"].astype(float) - patch_of(person, SHOTS["self.jpg"]))
    assert gap[16:-16, 16:-16].mean() < 4
    assert read_attributes(out)["notes"] == '{"focal length from EXIF": 1}'


def test_the_focal_length_is_given_or_from_exif_or_assumed():
    for focal, film, expected in ((900, 26, 900), (None, 36, 36 / np.hypot(36, 24) * 1000), (None, 0, 800)):
        matrix, source = photo_camera((600, 800, 3), focal, film)
        assert matrix[0, 0] == matrix[1, 1] == pytest.approx(expected)
        assert (matrix[0, 2], matrix[1, 2]) == (399.5, 299.5)
        assert source == ("" if focal else "focal length from EXIF" if film else "focal length assumed")


def test_what_cannot_be_used_is_listed_and_the_rest_converted(tree: Path, tmp_path: Path, person: Person):
    shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
    anna = tmp_path / "photos" / "anna"
    (anna / "phone.HEIC").write_bytes(b"x")
    (anna / "broken.jpg").write_bytes((anna / "0.jpg").read_bytes()[:2000])
    write_image(anna / "nobody.png", np.full((64, 64, 3), 128, np.uint8))
    (tmp_path / "photos" / "empty").mkdir()
    assert main(command(tmp_path, tmp_path / "out.h5")) == 0
    lines = (tmp_path / "out.left_out.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[1:3] for line in lines] == [
        ["anna/broken.jpg", "image cannot be read"],
        ["anna/nobody.png", "no landmark file"],
        ["anna/phone.HEIC", "format cannot be read"],
    ]
    assert samples(tmp_path / "out.h5").keys() == SHOTS.keys()


def test_photographs_with_more_pixels_than_pillow_likes_are_turned_too(tmp_path: Path):
    stored = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    write_exif(tmp_path / "a.png", stored, 6, FILM)
    large = bytearray((tmp_path / "a.png").read_bytes())
    large[16:24] = struct.pack(">II", 16320, 12240)
    large[29:33] = struct.pack(">I", zlib.crc32(large[12:29]))
    (tmp_path / "a.png").write_bytes(large)
    assert read_exif(tmp_path / "a.png", ORIENTATION, FOCAL_35MM) == [6, FILM]


def test_each_photograph_can_be_a_person(tree: Path, tmp_path: Path):
    assert main(command(tree, tmp_path / "out.h5", "--each")) == 0
    assert GazeDataset(tmp_path / "out.h5").person_ids == ["anna_0", "anna_holiday_1", "self"]
    shutil.copy(tree / "photos" / "self.jpg", tmp_path / "self.jpeg")
    shutil.copy(tree / "photos" / "self.jpg", tmp_path / "self.jpg")
    with pytest.raises(UserError, match="--each: self.jpeg and self.jpg would be one person"):
        find_photographs(tmp_path, each=True)


@pytest.mark.parametrize("name", [b"anna/\xd5\xd5\xc6\xac.jpg", b"\xd5\xc5\xce\xb0/1.jpg"], ids=["file", "folder"])
def test_names_that_are_not_utf_8_are_stored_as_escapes_and_found_again(
    tree: Path, tmp_path: Path, name: bytes, capsys: pytest.CaptureFixture
):
    photos, landmarks = tmp_path / "photos", tmp_path / "landmarks"
    for folder, suffix in ((photos, ""), (landmarks, ".npy")):
        path = folder / (os.fsdecode(name) + suffix)
        path.parent.mkdir(parents=True)
        shutil.copy(tree / folder.name / f"self.jpg{suffix}", path)
    (photos / os.fsdecode(b"anna/\xd5.png")).parent.mkdir(exist_ok=True)
    (photos / os.fsdecode(b"anna/\xd5.png")).write_bytes(b"no image")
    for _ in range(2):
        assert main(command(tmp_path, tmp_path / "out.h5")) == 0
    escaped = os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
    person = escaped.split("/")[0]
    assert GazeDataset(tmp_path / "out.h5").person_ids == [person]
    assert read_person(tmp_path / "out.h5", person)["name"] == [escaped]
    assert "anna/\\udcd5.png\timage cannot be read" in (tmp_path / "out.left_out.tsv").read_text()
    assert "is there already" in capsys.readouterr().out


def test_every_suffix_that_opencv_reads_is_taken_and_the_others_are_counted(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    image, points = cv2.imread(str(tree / "photos" / "self.jpg")), tree / "landmarks" / "self.jpg.npy"
    suffixes = (".jfif", ".jpe", ".jp2", ".ppm", ".pgm", ".dib", ".webp", ".tif", ".BMP")
    for suffix in suffixes:
        kind = {".jfif": ".jpg"}.get(suffix, suffix.lower())
        path = tmp_path / "photos" / "p" / f"a{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(kind, image[..., 0] if kind == ".pgm" else image)[1].tobytes())
    (tmp_path / "landmarks" / "p").mkdir(parents=True)
    shutil.copy(points, tmp_path / "landmarks" / "p" / "a.npy")
    for name in ("a.gif", "b.gif", "notes.txt", "none", ".hidden.gif"):
        (tmp_path / "photos" / "p" / name).write_bytes(b"x")
    assert main(command(tmp_path, tmp_path / "out.h5")) == 0
    assert samples(tmp_path / "out.h5").keys() == {f"p/a{suffix}" for suffix in suffixes}
    said = "4 files are passed over, no photographs by name: 2 .gif, 1 .txt, 1 without suffix."
    assert said in capsys.readouterr().out
    assert read_attributes(tmp_path / "out.h5")["passed_over"] == '{".gif": 2, ".txt": 1, "without suffix": 1}'


@pytest.fixture
def two_faces(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command for a photograph in which a detector finds two faces, and one in which it finds one."""
    for name in ("anna/0.jpg", "self.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / "photos" / name, tmp_path / "photos" / name)
    found = {name: np.load(tree / "landmarks" / f"{name}.npy") for name in ("anna/0.jpg", "self.jpg")}
    small = found["self.jpg"] * 0.5 + 60

    def detect_all(image: np.ndarray) -> list[np.ndarray]:
        alone = (image == cv2.imread(str(tmp_path / "photos" / "anna/0.jpg"))[..., ::-1]).all()
        return [found["anna/0.jpg"]] if alone else [found["self.jpg"], small]

    monkeypatch.setattr("preprocess.face_patches.detect_all", detect_all)
    return ["images", str(tmp_path / "photos"), "--out", str(tmp_path / "out.h5"), "--workers", "1"]


def test_of_several_faces_the_largest_is_taken_and_the_others_are_counted(
    two_faces: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(two_faces) == 0
    assert samples(tmp_path / "out.h5").keys() == {"anna/0.jpg", "self.jpg"}
    assert "1 smaller face of a photograph, see --faces all" in capsys.readouterr().out
    assert "self.jpg#2\tsmaller face of a photograph, see --faces all\tone of 2" in (
        tmp_path / "out.left_out.tsv"
    ).read_text(encoding="utf-8")


def test_all_faces_can_be_taken(two_faces: list[str], tmp_path: Path):
    assert main([*two_faces, "--faces", "all"]) == 0
    found = samples(tmp_path / "out.h5")
    assert found.keys() == {"anna/0.jpg", "self.jpg", "self.jpg#2"}
    assert (found["self.jpg"]["pixels"] != found["self.jpg#2"]["pixels"]).any()
    assert main([*two_faces, "--faces", "all"]) == 0  # it is there already
    assert main(two_faces) == 2  # made with other options


def test_other_photographs_are_not_taken_for_those_converted(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture, person: Person
):
    shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
    assert main(command(tmp_path, tmp_path / "out.h5")) == main(command(tmp_path, tmp_path / "out.h5")) == 0
    shutil.copy(tmp_path / "photos" / "self.jpg", tmp_path / "photos" / "again.jpg")
    assert main(command(tmp_path, tmp_path / "out.h5")) == 2
    assert "pass --overwrite" in capsys.readouterr().err


def test_mistakes_are_one_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out, landmarks = str(tmp_path / "out.h5"), str(tree / "landmarks")
    (tmp_path / "none").mkdir()
    write_image(tmp_path / "others" / "b.jpg", np.zeros((8, 8, 3), np.uint8))
    for folder, more, message in (
        (tmp_path / "none", (), "no photographs in it, expected .jpg"),
        (tmp_path / "gone", (), "is not a folder of photographs"),
        (tree / "photos", ("--focal", "3"), "--focal: found 3"),
        (tree / "photos", ("--faces", "all"), "--faces all: a folder of landmarks"),
        (tree / "photos", ("--persons", "bert"), "bert"),
        (
            tmp_path / "others",
            (),
            f"--landmarks: {landmarks} has nothing of the photographs, expected such as b.jpg.npy",
        ),
    ):
        assert main(["images", str(folder), "--out", out, "--landmarks", landmarks, *more]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not Path(out).exists()
