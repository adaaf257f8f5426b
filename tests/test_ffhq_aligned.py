"""Aligned faces from photographs: where the homography says, with the labels of the patch, read by the trainer."""

from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from core.command import UserError
from dataset_aligned import AlignedDataset
from models.recrop import warp
from preprocess.__main__ import main
from preprocess.conversion import convert_dataset
from preprocess.datasets.ffhq_aligned import AlignedCutter, AlignedPose, aligned_conversion
from preprocess.datasets.images import photo_conversion
from preprocess.face_patches import FaceCutter, LeftOut
from preprocess.inspect.verify import verify
from preprocess.normalization import apply_homography, ffhq_matrix, undistort_image
from preprocess.synthetic.drawn.head import Person
from tests import test_gazecapture, test_mpiifacegaze
from tests.raw_trees import (
    Camera,
    assert_same_aligned,
    lay_out,
    make_person,
    patch_of,
    photograph,
    read_attributes,
    read_person,
    write_image,
    write_landmarks,
)
from tests.test_gazecapture import PORTRAIT
from utils import image_to_float

CAMERA = Camera.plain(900, 700, 640)
SHOTS = [
    lay_out(CAMERA, distance=600, gaze=(0, 0), head=(5, -20), at=(0.02, -0.03), roll=14),
    lay_out(CAMERA, distance=560, gaze=(8, 8), head=(-10, 12), at=(-0.03, 0.02), roll=-5),
]
SIX = (36, 39, 42, 45, 48, 54)


@pytest.fixture(scope="module")
def person() -> Person:
    return make_person()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, person: Person) -> Path:
    root = tmp_path_factory.mktemp("aligned")
    for i, shot in enumerate(SHOTS):
        write_image(root / "photos" / "p" / f"{i}.png", photograph(person, shot))
        write_landmarks(root / "landmarks", f"p/{i}.png", shot.landmarks_with_lids())
    return root


def command(tree: Path, out: Path) -> list[str]:
    options = ["--focal", "900", "--workers", "1", "--landmarks", str(tree / "landmarks")]
    return ["images", str(tree / "photos"), "--out", str(out), *options]


@pytest.fixture(scope="module")
def files(tree: Path) -> tuple[Path, Path]:
    """Aligned faces and patches of the same photographs."""
    aligned, patches = tree / "aligned.h5", tree / "patches.h5"
    assert main(["ffhq-aligned", *command(tree, aligned)]) == main(command(tree, patches)) == 0
    return aligned, patches


def test_the_file_has_the_documented_layout(files: tuple[Path, Path]):
    aligned, patches = (read_person(path, "p") for path in files)
    assert {key: (value.shape, value.dtype) for key, value in aligned.items() if key != "name"} == {
        "pixels": ((2, 256, 256, 3), np.uint8),
        "labels": ((2, 8), np.float32),
        "homography": ((2, 3, 3), np.float64),
        "points": ((2, 5, 2), np.float64),
        "image_to_patch": ((2, 3, 3), np.float64),
        "image_shape": ((2, 2), np.int32),
    }
    attributes = read_attributes(files[0])
    assert (attributes["view"], attributes["patch_size"], attributes["color_order"]) == ("ffhq-aligned", 128, "RGB")
    np.testing.assert_array_equal(aligned["labels"], patches["labels"])
    assert aligned["name"] == patches["name"]


def test_the_file_passes_and_the_patches_do(files: tuple[Path, Path]):
    for path in files:
        assert not [check for check in verify(path)[0] if check.level == "FAIL"]


def test_the_trainers_crop_of_the_aligned_face_is_the_patch(files: tuple[Path, Path], person: Person):
    faces, patches = AlignedDataset(files[0]), read_person(files[1], "p")["pixels"]
    assert faces.is_aligned
    for i, shot in enumerate(SHOTS):
        entry = faces[i]
        crop = warp(image_to_float(entry["image"])[None], entry["crop"][None], 128)[0]
        crop = ((crop + 1) * 127.5).permute(1, 2, 0).numpy()
        for expected in (patches[i], patch_of(person, shot)):
            assert np.abs(crop - expected)[16:-16, 16:-16].mean() < 4


def test_points_are_the_landmarks(files: tuple[Path, Path]):
    found = read_person(files[0], "p")
    for points, homography, shot in zip(found["points"], found["homography"], SHOTS, strict=True):
        landmarks = shot.landmarks_with_lids()
        to_face = ffhq_matrix(landmarks, 256)
        five = [landmarks[36:42].mean(0), landmarks[42:48].mean(0), *landmarks[[30, 48, 54]]]
        assert points == pytest.approx(apply_homography(to_face, np.array(five)), abs=1e-6)
        centre = apply_homography(to_face, CAMERA.project(shot.centre[None]))
        assert apply_homography(homography, centre)[0] == pytest.approx((63.5, 63.5), abs=0.05)
        across, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
        upright = across + (down[1], -down[0])  # what the alignment makes level
        assert upright[0] > 0 and upright[1] == pytest.approx(0, abs=1e-6)


def test_missing_landmarks_are_where_the_heads_pose_has_them():
    shot, cutter = SHOTS[0], AlignedCutter()
    expected = shot.landmarks_with_lids()
    six = np.full((68, 2), np.nan)
    six[list(SIX)] = expected[list(SIX)]
    posed = cutter.pose(six, "a", CAMERA.matrix, use=SIX)
    assert isinstance(posed, AlignedPose)
    needed = [30, *range(36, 48), 48, 54]
    assert cutter.complete(posed, CAMERA.matrix)[needed] == pytest.approx(expected[needed], abs=0.05)
    given = FaceCutter().pose(expected, "a", CAMERA.matrix)  # such as a data set's own, without landmarks
    assert cutter.complete(given, CAMERA.matrix)[needed] == pytest.approx(expected[needed], abs=0.05)


def test_what_is_known_is_not_replaced():
    landmarks = SHOTS[0].landmarks_with_lids()
    landmarks[30] += 3
    pose = AlignedCutter().pose(landmarks, "a", CAMERA.matrix)
    assert AlignedCutter().complete(pose, CAMERA.matrix)[30] == pytest.approx(landmarks[30], abs=1e-9)


def test_distortion_is_taken_out_of_the_landmarks_once(person: Person):
    camera = replace(CAMERA, distortion=np.array([-1.0, 0.6, 0.001, -0.002, 0.0]))
    shot = lay_out(camera, distance=560, gaze=(0, 0), head=(-10, 12), at=(-0.12, 0.1), roll=5)
    straight = lay_out(CAMERA, distance=560, gaze=(0, 0), head=(-10, 12), at=(-0.12, 0.1), roll=5)
    cutter = AlignedCutter()
    pose = cutter.pose(shot.landmarks(), "a", camera.matrix, camera.distortion)
    image = undistort_image(photograph(person, shot), camera.matrix, camera.distortion)
    found = cutter.cut(image, "a", camera.matrix, pose, shot.target)
    expected = cutter.cut(image, "a", camera.matrix, cutter.pose(straight.landmarks(), "a", CAMERA.matrix), shot.target)
    assert np.abs(shot.landmarks()[36] - straight.landmarks()[36]).max() > 3  # the distortion matters here
    assert found.extra["points"] == pytest.approx(expected.extra["points"], abs=0.05)
    corners = np.array([[0.0, 0], [255, 0], [0, 255], [255, 255]])
    there = (apply_homography(sample.extra["homography"], corners) for sample in (found, expected))
    assert next(there) == pytest.approx(next(there), abs=0.05)
    patch = cv2.warpPerspective(found.pixels, found.extra["homography"], (128, 128))
    assert np.abs(patch.astype(float) - patch_of(person, shot))[16:-16, 16:-16].mean() < 4


def test_the_same_samples_are_left_out(tree: Path):
    out_of_frame = lay_out(CAMERA, distance=560, gaze=(0, 0), head=(0, 0), at=(0.36, 0))
    image, results = np.zeros((640, 700, 3), np.uint8), []
    for cutter in (FaceCutter(), AlignedCutter()):
        pose = cutter.pose(out_of_frame.landmarks_with_lids(), "a", CAMERA.matrix)
        results.append(cutter.cut(image, "a", CAMERA.matrix, pose, out_of_frame.target))
    assert isinstance(results[0], LeftOut) and results[0] == results[1]


def test_small_faces_are_counted(tree: Path, tmp_path: Path):
    conversion = photo_conversion(tree / "photos", FaceCutter(tree / "landmarks"), focal=900)
    convert_dataset(aligned_conversion(conversion, 512), tmp_path / "out.h5", workers=1)
    assert "face is enlarged more than twofold" not in read_attributes(tmp_path / "out.h5")["notes"]
    convert_dataset(aligned_conversion(conversion, 1024), tmp_path / "large.h5", workers=1)
    assert read_attributes(tmp_path / "large.h5")["notes"] == '{"face is enlarged more than twofold": 2}'


def test_one_worker_and_two_write_the_same(tree: Path, tmp_path: Path):
    conversion = aligned_conversion(photo_conversion(tree / "photos", FaceCutter(tree / "landmarks"), each=True), 64)
    for workers in (1, 2):
        convert_dataset(conversion, tmp_path / f"{workers}.h5", workers=workers)
    with h5py.File(tmp_path / "1.h5") as one, h5py.File(tmp_path / "2.h5") as two:
        assert list(one) == list(two) == ["p_0", "p_1"]
        for person in one:
            for name in one[person]:
                np.testing.assert_array_equal(one[person][name], two[person][name])
        assert {k: v for k, v in one.attrs.items() if k != "date"} == {
            k: v for k, v in two.attrs.items() if k != "date"
        }


def test_aligned_faces_and_patches_have_recipes_of_their_own(tree: Path, tmp_path: Path):
    out, conversion = tmp_path / "out.h5", photo_conversion(tree / "photos", FaceCutter(tree / "landmarks"), focal=900)
    convert_dataset(conversion, out, workers=1)
    with pytest.raises(UserError, match="was not made with these options"):
        convert_dataset(aligned_conversion(conversion, 128), out, workers=1)


@pytest.mark.parametrize("name", ["gazecapture", "mpiifacegaze"])
def test_raw_data_sets_give_the_same_samples_aligned(tmp_path: Path, name: str):
    person = "00002" if name == "gazecapture" else "p00"
    if name == "gazecapture":
        test_gazecapture.write_recording(tmp_path / "raw", person, test_gazecapture.shots_of(PORTRAIT, 3, seed=0))
    else:
        test_mpiifacegaze.write_person(tmp_path / "raw", person, test_mpiifacegaze.shots_of(3, seed=0))
    options = ["--raw", str(tmp_path / "raw"), "--landmarks", str(tmp_path / "landmarks"), "--workers", "1"]
    options += ["--min-coverage", "0.9", "--out"]
    patches, aligned = tmp_path / "patches.h5", tmp_path / "aligned.h5"
    assert main([name, *options, str(patches)]) == 0
    assert main(["ffhq-aligned", "--size", "192", name, *options, str(aligned)]) == 0
    assert_same_aligned(aligned, patches, person, grey=4)
    assert read_person(aligned, person)["pixels"].shape == (3, 192, 192, 3)
    assert not [check for check in verify(aligned)[0] if check.level == "FAIL"]


def test_a_release_of_patches_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    test_mpiifacegaze.write_mat(tmp_path / "raw", "p00", test_mpiifacegaze.normalized_shots(2, seed=5))
    out = tmp_path / "out.h5"
    assert main(["ffhq-aligned", "mpiifacegaze", "--raw", str(tmp_path / "raw"), "--out", str(out)]) == 2
    assert "they need the photographs, not a release of patches" in capsys.readouterr().err
    assert not out.exists()


def test_a_size_out_of_range_is_one_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["ffhq-aligned", "--size", "8", *command(tree, tmp_path / "out.h5")]) == 2
    assert capsys.readouterr().err == "python -m preprocess ffhq-aligned: --size: found 8, expected 32 to 1024.\n"


def test_a_file_of_photographs_is_ready_for_batches(files: tuple[Path, Path]):
    batch = next(iter(torch.utils.data.DataLoader(AlignedDataset(files[0], image_size=64), batch_size=2)))
    assert {key: tuple(value.shape[1:]) for key, value in batch.items()} == {
        "image": (3, 64, 64), "gaze": (2,), "head": (2,), "crop": (3, 3), "points": (5, 2),
    }  # fmt: skip
