"""Columbia Gaze from generated trees in the official layout: angles of the names, camera by EXIF, damaged trees."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray
from PIL import Image

from dataset import GazeDataset
from preprocess import conversion
from preprocess.__main__ import main
from preprocess.datasets.columbia import WALL, intrinsics, parse_name, read_focal_mm, target_mm
from preprocess.face_model import make_pose
from preprocess.inspect.verify import verify
from preprocess.normalization import normalized_gaze, normalized_labels, normalizing_rotation
from preprocess.synthetic.scene import FACE_CENTRE, head_rotation, pitchyaw_to_direction
from tests.raw_trees import (
    Camera,
    Shot,
    assert_same_aligned,
    assert_samples,
    degrees_apart,
    left_out,
    make_person,
    notes,
    photograph,
    read_attributes,
    read_person,
    run_converter,
    write_landmarks,
)

FOCAL_MM, WIDTH, HEIGHT = 70.0, 540, 360  # a tenth of the published pixels, so the lens looks as wide
CAMERA = Camera(intrinsics(WIDTH, HEIGHT, FOCAL_MM), WIDTH, HEIGHT)
DATA = "Columbia Gaze Data Set"


def shot_of(
    head: int, pitch: int, side: int, at: tuple[float, float, float], camera: Camera = CAMERA, turn: float = 0.0
) -> Shot:
    """The eyes' middle is at `at`, mm; the head's yaw is `turn` degrees more than the name says."""
    eyes = np.array(at, float)
    forward = eyes / np.linalg.norm(eyes)
    down = np.cross(forward, [1.0, 0, 0])
    down /= np.linalg.norm(down)
    seen = np.stack([np.cross(down, forward), down, forward])  # rows: axes of one who looks from the camera to the eyes
    rotation = seen.T @ head_rotation(np.deg2rad(2.0), np.deg2rad(-head + turn))
    target = eyes + WALL * seen.T @ pitchyaw_to_direction(np.deg2rad(pitch), np.deg2rad(-side))
    pose = make_pose(rotation, eyes)
    assert np.allclose(pose.centre, eyes + rotation @ FACE_CENTRE)
    to_normalized = normalizing_rotation(pose.centre, rotation)
    labels = normalized_labels(to_normalized, rotation, pose.centre, pose.eyes, target)
    return Shot(camera, rotation, pose.centre, target, labels, to_normalized)


def write_photo(path: Path, rgb: ndarray, focal_mm: float | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = Image.Exif()
    if focal_mm:
        tags.get_ifd(0x8769)[0x920A] = focal_mm
    Image.fromarray(rgb).save(path, exif=tags, quality=95)


def name_of(person: str, head: int, pitch: int, side: int) -> str:
    return f"{person}/{person}_2m_{head}P_{pitch}V_{side}H.jpg"


def write_person(
    root: Path, person: str, angles: list[tuple[int, int, int]], seed: int = 1, focal_mm: float | None = FOCAL_MM
) -> list[Shot]:
    """Some images of a person as published; exact landmarks go to landmarks/ beside `root`."""
    rng, drawn, shots = np.random.default_rng(seed), make_person(seed), []
    for head, pitch, side in angles:
        shot = shot_of(head, pitch, side, (rng.uniform(-60, 60), rng.uniform(-40, 40), rng.uniform(1900, 2100)))
        name = name_of(person, head, pitch, side)
        write_photo(root / DATA / name, photograph(drawn, shot), focal_mm)
        write_landmarks(root.parent / "landmarks", name, shot.landmarks())
        shots.append(shot)
    return shots


run = partial(run_converter, "columbia")


ANGLES = [(-30, -10, 15), (-15, 10, -5), (0, 0, 0), (0, 10, 15), (30, 0, -15)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_person(tmp_path / "raw", "0001", ANGLES[:3])
    write_person(tmp_path / "raw", "0002", ANGLES[3:], seed=2)
    (tmp_path / "raw" / DATA / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "raw" / "__MACOSX").mkdir()
    (tmp_path / "raw" / DATA / "0001" / "._0001_2m_0P_0V_0H.jpg").write_bytes(b"\0")
    return tmp_path / "raw"


def test_labels_are_found_again(tmp_path: Path):
    shots = write_person(tmp_path / "raw", "0001", ANGLES)
    found = read_person(run(tmp_path / "raw"), "0001")
    assert found["name"] == [name_of("0001", *angles) for angles in ANGLES]
    assert_samples(found, shots, apart=0.05, angles=0.1, border=10, grey=4)


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ((0, 0, 0), (-0.17, 0, -0.86, 0, -0.86, -0.75, -0.86, 0.75)),
        ((0, 10, 15), (9.85, -14.96, -0.86, 0, 9.14, -15.69, 9.20, -14.23)),
        ((0, -10, -15), (-10.15, 15.04, -0.86, 0, -10.87, 14.30, -10.79, 15.77)),
        ((30, 0, 0), (-0.17, 0, -0.99, -30, -0.87, -0.64, -0.85, 0.65)),
        ((-15, 10, -5), (9.80, 5.03, -0.89, 15, 9.10, 4.28, 9.14, 5.77)),
    ],
)
def test_labels_of_names_by_hand(angles: tuple[int, int, int], expected: tuple[float, ...]):
    """The eyes' middle 2 m before the camera; single eyes by a model whose eyes are 0.4 mm further apart."""
    head, pitch, side = angles
    pose = make_pose(head_rotation(0.0, np.deg2rad(-head)), np.array([0, 0, 2000.0]))
    rotation = normalizing_rotation(pose.centre, pose.rotation)
    target = target_mm(pose.eyes.mean(axis=0), pitch, side)
    labels = np.degrees(normalized_labels(rotation, pose.rotation, pose.centre, pose.eyes, target))
    assert labels == pytest.approx(expected, abs=0.025)


def test_somebody_beside_the_axis_who_looks_into_the_camera_does_so():
    eyes = np.array([400.0, -200, 2000])
    off = normalized_gaze(normalizing_rotation(eyes, np.eye(3)), target_mm(eyes, 0, 0) - eyes)
    assert np.degrees(off) == pytest.approx([0, 0], abs=1e-9)


def test_the_camera_is_by_exif_or_assumed(tree: Path, tmp_path: Path):
    assert read_focal_mm(tree / DATA / "0001/0001_2m_0P_0V_0H.jpg") == FOCAL_MM
    assert intrinsics(5184, 3456, 85)[0, 0] == pytest.approx(19760, abs=1)
    write_person(tmp_path / "other", "0001", [(0, 0, 5)], focal_mm=None)
    out = run(tmp_path / "other")
    assert notes(out) == {"no focal length in EXIF, taken as 85 mm": 1}


def test_a_focal_length_that_cannot_be_is_noted(tmp_path: Path):
    (shot,) = write_person(tmp_path / "raw", "0001", [(0, 10, 5)], focal_mm=135.0)
    out = run(tmp_path / "raw")
    assert notes(out) == {"face is not about 2 m away: the focal length may be another": 1}
    found = read_person(out, "0001")["labels"]
    # It matters to the gaze by how much smaller 30 mm, from the eyes to the face centre, look from 3.9 m: 0.4 degrees.
    assert degrees_apart(found[:, :2], shot.labels[None, :2]).max() < 0.5


def test_training_reads_the_file(tree: Path):
    out = run(tree, "--frames-every", "2")
    data = GazeDataset(out)
    assert data.person_ids == ["0001", "0002"] and len(data) == 3
    found = read_attributes(out)
    assert not [check for check in verify(out)[0] if check.level == "FAIL"]
    assert found["dataset"] == "Columbia" and found["color_order"] == "RGB"
    assert json.loads(found["split"]) == {"test": ["0001", "0002"]}


def test_aligned_faces_have_the_same_labels(tree: Path):
    aligned = run_converter("ffhq-aligned --size 160 columbia", tree, out="aligned.h5")
    assert_same_aligned(aligned, run(tree), "0001")
    assert read_person(aligned, "0001")["pixels"].shape == (3, 160, 160, 3)


def test_two_workers_write_the_same_file_as_one(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion, "_now", lambda: "2026-01-02T03:04:05Z")
    assert run(tree).read_bytes() == run(tree, "--workers", "2", out="two.h5").read_bytes()


def test_the_folder_of_the_persons_itself_is_accepted(tree: Path):
    (tree / "landmarks").mkdir()
    out = tree.parent / "direct.h5"
    given = ["--raw", str(tree / DATA), "--landmarks", str(tree.parent / "landmarks"), "--persons", "0002"]
    assert main(["columbia", *given, "--out", str(out), "--workers", "1"]) == 0
    assert GazeDataset(out).person_ids == ["0002"]


def test_images_that_cannot_be_used_are_left_out_for_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture):
    angles = [(0, 0, 0), (0, 0, 5), (0, 0, 10), (15, 0, 0), (15, 0, 5)]
    write_person(tmp_path / "raw", "0001", angles)
    folder, landmarks = tmp_path / "raw" / DATA / "0001", tmp_path / "landmarks/0001"
    first = folder / "0001_2m_0P_0V_0H.jpg"
    first.write_bytes(first.read_bytes()[:2000])
    write_photo(folder / "0001_2m_0P_0V_5H.jpg", np.zeros((360, 360, 3), np.uint8), FOCAL_MM)
    np.save(landmarks / "0001_2m_0P_0V_10H.jpg.npy", [])
    np.save(landmarks / "0001_2m_15P_0V_0H.jpg.npy", shot_of(-15, 0, 0, (0, 0, 2000)).landmarks())
    for name in ("0001_2m_0P_0V_7H.jpg", "0002_2m_0P_0V_5H.jpg", "copy of 0001.jpg"):
        (folder / name).write_bytes(b"")
    out = run(tmp_path / "raw")
    assert read_person(out, "0001")["name"] == ["0001/0001_2m_15P_0V_5H.jpg"]
    assert left_out(out) == {
        "head is not turned as the file's name says": 1,
        "image cannot be read": 1,
        "images of the person are missing": 1,
        "name of the file cannot be understood": 3,
        "no face found": 1,
        "not the whole photograph": 1,
    }
    said = capsys.readouterr().out
    assert "0001/0001_2m_0P_0V_7H.jpg: name of the file cannot be understood (found 7H, expected one of -15" in said
    assert "0001: images of the person are missing (5 of 105 found)" in said


def test_heads_turned_to_the_other_side_stop_the_conversion(tmp_path: Path, capsys: pytest.CaptureFixture):
    """As when the images, or the names' signs, are mirrored."""
    for angles in ((30, 0, 0), (-15, 0, 0)):
        write_person(tmp_path / "raw", "0001", [angles])
        mirrored = shot_of(-angles[0], 0, 0, (0, 0, 2000)).landmarks()
        write_landmarks(tmp_path / "landmarks", name_of("0001", *angles), mirrored)
    out = run(tmp_path / "raw", code=2)
    assert not out.exists() and "no sample could be converted" in capsys.readouterr().err


def test_an_empty_person_gives_one_line_and_the_other_is_converted(tree: Path, capsys: pytest.CaptureFixture):
    for path in (tree / DATA / "0001").iterdir():
        path.unlink()
    out = run(tree)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("0001")]
    assert said == ["0001: person without samples (nothing there)"]
    assert GazeDataset(out).person_ids == ["0002"]


def test_a_folder_without_persons_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "raw").mkdir()
    write_landmarks(tmp_path / "landmarks", name_of("0001", 0, 0, 0), np.ones((68, 2)))
    run(tmp_path / "raw", code=2)
    assert "holds no persons, expected folders 0001 ... 0056" in capsys.readouterr().err


def test_names_say_what_they_mean():
    parsed = parse_name("0007_2m_-15P_10V_-5H.jpg")
    assert (parsed.person, parsed.head, parsed.pitch, parsed.side) == ("0007", -15, 10, -5)
    for wrong in ("0007_2m_15P_10V.jpg", "0007_2m_20P_10V_5H.jpg", "7_2m_15P_10V_5H.jpg"):
        with pytest.raises(ValueError, match="expected"):
            parse_name(wrong)


def test_detected_landmarks_come_near(tmp_path: Path):
    """Drawn heads are not of the generic shape, and the detector makes large turns smaller."""
    angles = [(head, pitch, side) for head in (-15, 0, 15) for pitch, side in ((-10, 5), (0, 0), (10, -15))]
    shots = dict(zip(angles, write_person(tmp_path / "raw", "0001", angles), strict=True))
    given = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out.h5"), "--workers", "1"]
    assert main(["columbia", *given]) == 0
    found = read_person(tmp_path / "out.h5", "0001")
    assert len(found["name"]) >= 6
    parsed = [parse_name(Path(name).name) for name in found["name"]]
    expected = np.stack([shots[name.order].labels for name in parsed])
    assert degrees_apart(found["labels"][:, :2], expected[:, :2]).max() < 3
    assert np.median(degrees_apart(found["labels"][:, 2:4], expected[:, 2:4])) < 3
