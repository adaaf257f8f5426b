"""Aligned faces: rendered where the homography says, laid out as documented, read with the way to the patch."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from core.batches import PairSampler
from core.command import UserError
from dataset import GazeDataset, prepare_image
from dataset_aligned import AlignedDataset, moved_crop
from models.recrop import estimator_view, warp
from preprocess.__main__ import main
from preprocess.synthetic.aligned import AlignedView, to_patch
from preprocess.synthetic.drawn.eyes import EYES
from preprocess.synthetic.drawn.head import build_person
from preprocess.synthetic.drawn.person import draw_identity
from preprocess.synthetic.drawn.render import develop, draw_backdrop, paint, render
from preprocess.synthetic.drawn.shapes import BALL_RADIUS
from preprocess.synthetic.scene import Scene, make_view
from utils import image_to_float

ARGUMENTS = ("--persons", "4", "--samples", "3", "--seed", "3", "--image-size", "64", "--aligned", "128")
NAMES = ("GazeCapture", "MPIIGaze", "Columbia", "EYEDIAP")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    assert main(["synthetic", "--out", str(out), "--workers", "1", *ARGUMENTS]) == 0
    return out


@pytest.fixture(scope="module")
def faces(folder: Path) -> AlignedDataset:
    return AlignedDataset(folder / "GazeCapture_aligned_128.h5")


@pytest.fixture(scope="module")
def patches(folder: Path) -> GazeDataset:
    return GazeDataset(folder / "GazeCapture_64.h5", equalize=False)


def all_of(data: GazeDataset, key: str) -> Tensor:
    values = torch.stack([data[i][key] for i in range(len(data))])
    return image_to_float(values) if values.dtype == torch.uint8 else values


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ np.swapaxes(matrix, -1, -2)
    return mapped[..., :2] / mapped[..., 2:]


# The files


def test_files_have_the_documented_layout(folder: Path):
    with h5py.File(folder / "GazeCapture_aligned_128.h5") as file, h5py.File(folder / "GazeCapture_64.h5") as other:
        assert list(file) == list(other) == ["00000", "00001", "00002", "00003"]
        wanted = {"color_order": "RGB", "view": "ffhq-aligned", "patch_size": 128, "version": 1, "synthetic": True}
        assert {key: file.attrs[key] for key in wanted} == wanted
        shapes = {key: (value.shape, value.dtype) for key, value in file["00002"].items()}
        assert shapes == {
            "pixels": ((3, 128, 128, 3), np.uint8),
            "labels": ((3, 8), np.float32),
            "homography": ((3, 3, 3), np.float64),
            "points": ((3, 5, 2), np.float64),
        }
        for person in file:
            np.testing.assert_array_equal(file[person]["labels"], other[person]["labels"])


def test_the_other_files_stay_as_they_are_without_the_flag(folder: Path, tmp_path: Path):
    assert main(["synthetic", "--out", str(tmp_path), "--workers", "1", *ARGUMENTS[:-2]]) == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    assert sorted(set(path.name for path in folder.iterdir()) - set(written)) == sorted(
        f"{name}_aligned_128.h5" for name in NAMES
    )
    for name in written:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_two_workers_write_the_same_bytes_as_one(folder: Path, tmp_path: Path):
    assert main(["synthetic", "--out", str(tmp_path), "--workers", "2", *ARGUMENTS]) == 0
    for name in NAMES:
        file = f"{name}_aligned_128.h5"
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_bad_size_and_existing_output_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["synthetic", "--out", str(tmp_path / "new"), "--aligned", "100"]) == 2
    assert "--aligned: found 100, expected 64, 128 or 256" in capsys.readouterr().err
    (tmp_path / "EYEDIAP_aligned_64.h5").touch()
    assert main(["synthetic", "--out", str(tmp_path), "--aligned", "64"]) == 2
    assert "already holds EYEDIAP_aligned_64.h5" in capsys.readouterr().err


# The geometry


@pytest.mark.parametrize("glasses", ["none", "square"])
def test_a_view_with_the_plane_of_the_patch_renders_the_patch(glasses: str):
    identity = replace(draw_identity(np.random.default_rng(1)), glasses=glasses)
    person, scene = build_person(identity), Scene(gaze=(0.1, -0.3), head=(-0.2, 0.3), noise=2.0, blur=0.7)
    view = make_view(scene, 128, kappa=identity.kappa)
    plane = np.array([[view.focal, 0, view.centre], [0, view.focal, view.centre], [0, 0, 1]])
    same = AlignedView(128, view.rotation, view.gaze_directions, view.pupil_axes, plane)
    assert same.focal == pytest.approx(500)
    np.testing.assert_allclose(same.turn, np.eye(2), atol=1e-12)
    picture = develop(paint(person, scene, same, draw_backdrop(person, scene, 128)), scene, same.scale)
    gap = np.abs(picture.astype(int) - render(person, scene, 128))
    assert gap.mean() < 0.01 and (gap > 2).mean() < 1e-3


def test_rays_and_projections_of_a_view_are_inverse_and_match_its_homography():
    view = make_view(Scene(head=(0.1, 0.2)), 128)
    tilted = np.array([[600, 40, 70], [-35, 580, 50], [0.2, -0.15, 1.0]])
    view = AlignedView(128, view.rotation, view.gaze_directions, view.pupil_axes, tilted)
    columns, rows = np.arange(0.0, 128, 9), np.arange(0.0, 128, 7)
    x, y = view.to_plane(columns, rows)
    column, row = view.to_pixels(3 * x, 3 * y, np.full_like(x, 3))
    np.testing.assert_allclose(column, np.broadcast_to(columns, column.shape), atol=1e-9)
    np.testing.assert_allclose(row, np.broadcast_to(rows[:, None], row.shape), atol=1e-9)
    centre = np.array([[0.0, 0], [1e-6, 0], [0, 1e-6]])
    steps = np.stack(view.to_pixels(*centre.T, np.ones(3)), axis=1)
    np.testing.assert_allclose((steps[1:] - steps[0]).T / 1e-6, view.turn * view.focal, atol=1e-2)
    points = np.array([[-40.0, 20, 5], [10, -30, 80]])
    np.testing.assert_allclose(
        apply(to_patch(view), view.project(points)), make_view(Scene(head=(0.1, 0.2)), 128).project(points)
    )


def test_points_lie_as_the_ffhq_rule_asks(faces: AlignedDataset):
    for left, right, _, *corners in all_of(faces, "points").numpy().astype(float):
        across, down = right - left, np.mean(corners, axis=0) - (left + right) / 2
        np.testing.assert_allclose((left + right) / 2 + 0.1 * down, (63.5, 63.5), atol=1e-3)
        assert max(2 * np.linalg.norm(across), 1.8 * np.linalg.norm(down)) == pytest.approx(64, abs=1e-3)
        upright = across + (down[1], -down[0])
        assert upright[0] > 0 and upright[1] == pytest.approx(0, abs=1e-3)


def test_points_are_on_the_eyes(faces: AlignedDataset):
    with h5py.File(faces.path) as file:
        found = apply(file["00001/homography"][()], file["00001/points"][()])[:, :2]  # in the patch of 128
        for at, label in zip(found, file["00001/labels"], strict=True):
            expected = make_view(Scene(head=tuple(label[2:4])), 128).project(EYES - (0, 0, BALL_RADIUS))
            assert np.abs(at - expected).max() < 1.5


def test_the_camera_is_askew_and_the_face_off_its_axis(faces: AlignedDataset):
    crops = all_of(faces, "crop").numpy()
    turn = np.rad2deg(np.arctan2(crops[:, 1, 0], crops[:, 0, 0]))
    assert turn.std() > 1 and np.abs(crops[:, 2, :2]).max() > 0.01
    scale = np.sqrt(np.linalg.det(crops[:, :2, :2]))
    assert ((0.5 < scale) & (scale < 0.8)).all()  # the patch is the middle of the aligned face


def test_the_recropped_face_is_the_patch_and_no_shift_of_it_is_closer(faces: AlignedDataset, patches: GazeDataset):
    image, crop, patch = all_of(faces, "image"), all_of(faces, "crop"), all_of(patches, "image")

    def gap(x: float = 0.0, y: float = 0.0, scale: float = 1.0) -> float:
        move = torch.tensor([[scale, 0, x * 2 / 64], [0, scale, y * 2 / 64], [0, 0, 1]])
        return float((warp(image, crop @ move, 64) - patch)[..., 4:-4, 4:-4].abs().mean() * 127.5)

    best = gap()
    assert best < 5
    assert all(gap(*step) > best for step in ((0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25), (0, 0, 0.98), (0, 0, 1.02)))
    expected = np.stack([prepare_image(np.ascontiguousarray(p.numpy().transpose(1, 2, 0)), 64) for p in
                         (patches[i]["image"] for i in range(len(patches)))])  # fmt: skip
    seen = estimator_view(image, crop, 64)
    assert float((seen - image_to_float(torch.from_numpy(expected))).abs().mean() * 127.5) < 10


# The reader


def test_entry_and_pair(faces: AlignedDataset, folder: Path):
    entry, pair = faces[4], faces[(4, 3)]
    assert faces.is_aligned
    assert list(entry) == ["image", "gaze", "head", "crop", "points"]
    assert list(pair) == [f"{key}_{i}" for i in "ab" for key in entry]
    assert all(torch.equal(pair[f"{key}_a"], value) for key, value in entry.items())
    assert (entry["crop"].dtype, entry["points"].dtype) == (torch.float32, torch.float32)
    with h5py.File(folder / "GazeCapture_aligned_128.h5") as file:
        np.testing.assert_array_equal(entry["image"].numpy(), file["00001/pixels"][1].transpose(2, 0, 1))
        np.testing.assert_allclose(entry["points"], file["00001/points"][1], atol=1e-4)


def test_crop_takes_the_patch_to_the_face(faces: AlignedDataset):
    crop = faces[4]["crop"].numpy().astype(float)
    with h5py.File(faces.path) as file:
        homography = file["00001/homography"][1]
    at = np.array([[0.0, 0.0], [127.0, 30.0], [63.5, 63.5]])  # pixels of the aligned face
    unit = (2 * at + 1) / 128 - 1
    np.testing.assert_allclose(apply(crop, (2 * apply(homography, at) + 1) / 128 - 1), unit, atol=1e-5)


@pytest.mark.parametrize("size", [64, 256])
def test_a_resized_face_keeps_its_crop_and_its_points_move_along(faces: AlignedDataset, size: int):
    resized = AlignedDataset(faces.path, image_size=size)[5]
    assert resized["image"].shape == (3, size, size)
    assert torch.equal(resized["crop"], faces[5]["crop"])
    expected = (faces[5]["points"] + 0.5) * (size / 128) - 0.5
    torch.testing.assert_close(resized["points"], expected)


def test_a_batch_of_pairs_by_workers(faces: AlignedDataset):
    sampler = PairSampler(faces, batch_size=4, seed=0, num_steps=2)
    alone, helped = (list(DataLoader(faces, batch_sampler=sampler, num_workers=n)) for n in (0, 1))
    assert alone[0]["crop_b"].shape == (4, 3, 3) and alone[0]["points_a"].shape == (4, 5, 2)
    for batch, other in zip(alone, helped, strict=True):
        assert all(torch.equal(batch[key], other[key]) for key in batch)
    copy = pickle.loads(pickle.dumps(faces))
    assert torch.equal(copy[7]["crop"], faces[7]["crop"])


def test_persons_and_colour_order_are_gaze_datasets(folder: Path):
    path = folder / "GazeCapture_aligned_128.h5"
    chosen = AlignedDataset(path, persons=["00002", "nobody"], is_bgr=True)
    assert (chosen.person_ids, chosen.missing_persons) == (["00002"], ["nobody"])
    assert torch.equal(chosen[1]["image"], AlignedDataset(path)[7]["image"].flip(0))


def test_a_file_of_patches_is_enlarged_and_its_own_crop(folder: Path):
    path = folder / "GazeCapture_64.h5"
    data = AlignedDataset(path, image_size=256)
    entry = data[4]
    with h5py.File(path) as file:
        pixels = file["00001/pixels"][1]
    larger = cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_CUBIC)
    assert not data.is_aligned
    np.testing.assert_array_equal(entry["image"].numpy(), larger.transpose(2, 0, 1))
    assert torch.equal(entry["crop"], torch.eye(3))


def test_points_of_a_patch_are_near_the_true_ones(faces: AlignedDataset, folder: Path):
    guessed = all_of(AlignedDataset(folder / "GazeCapture_64.h5", image_size=128), "points").numpy()
    with h5py.File(faces.path) as file:
        true = np.concatenate([apply(file[p]["homography"][()], file[p]["points"][()]) for p in file])
    distance = np.linalg.norm(guessed - true, axis=-1)
    assert distance.mean() < 3 and distance[:, :2].max() < 2  # pixels of 128


# What a file must look like


def edit(path: Path, change: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def put(key: str, value: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = value

    return change


@pytest.fixture
def copied(faces: AlignedDataset, tmp_path: Path) -> Path:
    path = tmp_path / "faces.h5"
    path.write_bytes(faces.path.read_bytes())
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("00001/homography"), "person '00001': no data set 'homography', expected"),
        (lambda file: file.pop("00002/points"), "person '00002': no data set 'points', expected a"),
        (put("00001/homography", np.zeros((2, 3, 3))), "3 pixels, 3 labels, 2 homography, 3 points, expected"),
        (
            put("00001/homography", np.zeros((3, 3, 3), int)),
            r"homography is int64 .* expected floats \(N, 3, 3\)",
        ),
        (put("00001/points", np.zeros((3, 68, 2))), r"points are float64 of shape \(3, 68, 2\), expected"),
        (lambda file: file.attrs.pop("patch_size"), "attribute patch_size is None, expected the patch's pixels"),
        (lambda file: file.attrs.pop("view"), "attribute view is None, expected 'ffhq-aligned', or none and no hom"),
        (lambda file: file.attrs.update(view="mirror"), "attribute view is 'mirror', expected 'ffhq-aligned'"),
    ],
)
def test_layout_errors_name_what_was_found_and_expected(copied: Path, change: Callable, message: str):
    edit(copied, change)
    with pytest.raises(UserError, match=f"(?s)faces.h5: not the expected layout. Re-run preprocessing.*{message}"):
        AlignedDataset(copied)


def test_all_problems_come_in_one_message(copied: Path):
    edit(copied, lambda file: (file.pop("00001/homography"), file.pop("00002/labels"), file.attrs.pop("patch_size")))
    with pytest.raises(UserError, match="(?s)'00002'.*patch_size.*'00001'"):
        AlignedDataset(copied)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_homography_that_cannot_be_inverted(copied: Path, bad: float):
    homography = np.stack([np.eye(3), np.eye(3), np.diag([1.0, bad, 1.0])])
    edit(copied, put("00001/homography", homography))
    with pytest.raises(
        ValueError, match="'00001' has homographies that cannot be inverted, 1 of 3, the first at index 2"
    ):
        AlignedDataset(copied)[3]


def test_points_that_are_not_finite(copied: Path):
    edit(copied, put("00001/points", np.full((3, 5, 2), np.nan)))
    with pytest.raises(UserError, match="'00001' has points that are not finite, 3 of 3, the first at index 0"):
        AlignedDataset(copied)[4]


def test_a_crop_moves_along_with_the_head(faces: AlignedDataset):
    """From one image of a person to another: nearer to the other's own crop than the crop that stays."""
    stays, moves = [], []
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]).T
    for i, j in combinations(range(len(faces)), 2):
        if faces.person_of[i] != faces.person_of[j]:
            continue
        a, b = faces[i], faces[j]
        moved = moved_crop(a["crop"][None], a["head"][None], b["head"][None])[0]
        own, kept, predicted = ((m @ corners)[:2] / (m @ corners)[2:] for m in (b["crop"], a["crop"], moved))
        stays.append((kept - own).abs().mean().item())
        moves.append((predicted - own).abs().mean().item())
    assert len(stays) >= 10 and np.mean(moves) < 0.7 * np.mean(stays)


def test_a_crop_of_a_head_that_stays_is_the_same_to_the_bit(faces: AlignedDataset):
    entry = faces[0]
    crop, head = entry["crop"][None], entry["head"][None]
    assert torch.equal(moved_crop(crop, head, head), crop)
