"""GazeCapture from generated trees in the official layout: labels, split, and trees that are damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset import GazeDataset, load_person_split
from preprocess import conversion
from preprocess.__main__ import main
from preprocess.datasets.gazecapture import _in_box, intrinsics
from preprocess.face_model import GENERIC, RIGID, HeadPose, head_pose, make_pose
from preprocess.normalization import normalized_labels, normalizing_rotation
from preprocess.synthetic.scene import head_rotation
from tests.raw_trees import (
    Camera,
    Shot,
    assert_samples,
    degrees_apart,
    lay_out,
    left_out,
    make_person,
    photograph,
    random_shots,
    read_attributes,
    read_person,
    run_converter,
    write_image,
    write_landmarks,
)

PORTRAIT, LANDSCAPE = Camera.plain(300, 240, 320), Camera.plain(300, 320, 240)


def shots_of(camera: Camera, count: int, seed: int) -> list[Shot]:
    return random_shots(camera, count, seed, distance=(340, 420), spread=0.03)


def write_recording(
    root: Path, name: str, shots: list[Shot], orientation: int = 1, part: str = "train", seed: int = 1
) -> Path:
    """A recording as published; its exact landmarks go to landmarks/ beside `root`."""
    folder, person, count = root / name, make_person(seed), len(shots)
    frames = [f"{i:05d}.jpg" for i in range(count)]
    for frame, shot in zip(frames, shots, strict=True):
        write_image(folder / "frames" / frame, photograph(person, shot))
        write_landmarks(root.parent / "landmarks", f"{name}/frames/{frame}", shot.landmarks())
    boxes = [(np.nanmin(shot.landmarks(), axis=0), np.nanmax(shot.landmarks(), axis=0)) for shot in shots]
    box = {"X": [float(low[0]) for low, _ in boxes], "Y": [float(low[1] - 30) for low, _ in boxes]}
    box |= {
        "W": [float((high - low)[0]) for low, high in boxes],
        "H": [float((high - low)[1]) + 30 for low, high in boxes],
    }
    eye = {key: [1.0] * count for key in "XYWH"} | {"IsValid": [1] * count}
    contents = {
        "frames": frames,
        "info": {
            "TotalFrames": count,
            "NumFaceDetections": count,
            "NumEyeDetections": count,
            "Dataset": part,
            "DeviceName": "iPhone 6",
        },
        "dotInfo": {
            "DotNum": list(range(count)),
            "XPts": [100.0] * count,
            "YPts": [200.0] * count,
            "XCam": [-shot.target[0] / 10 for shot in shots],
            "YCam": [-shot.target[1] / 10 for shot in shots],
            "Time": [0.1 + 0.3 * i for i in range(count)],
        },
        "screen": {"W": [375] * count, "H": [667] * count, "Orientation": [orientation] * count},
        "appleFace": box | {"IsValid": [1] * count},
        "appleLeftEye": eye,
        "appleRightEye": eye,
        "faceGrid": eye,
        "motion": [],
    }
    for file, content in contents.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    return folder


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def run(tree: Path, *more: str, out: str = "out.h5", code: int = 0) -> Path:
    return run_converter("gazecapture", tree, "--min-coverage", "0.9", *more, out=out, code=code)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two recordings, upright and sideways."""
    write_recording(tmp_path / "raw", "00002", shots_of(PORTRAIT, 3, seed=0))
    write_recording(tmp_path / "raw", "00028", shots_of(LANDSCAPE, 3, seed=1), orientation=3, part="test", seed=2)
    return tmp_path / "raw"


@pytest.mark.parametrize(("camera", "orientation"), [(PORTRAIT, 1), (PORTRAIT, 2), (LANDSCAPE, 3), (LANDSCAPE, 4)])
def test_labels_are_found_again(tmp_path: Path, camera: Camera, orientation: int):
    shots = shots_of(camera, 6, seed=orientation)
    write_recording(tmp_path / "raw", "00002", shots, orientation)
    found = read_person(run(tmp_path / "raw"), "00002")
    assert found["name"] == [f"00002/frames/{i:05d}.jpg" for i in range(6)]
    assert_samples(found, shots, apart=0.02, angles=0.03, border=10, grey=4)


def test_labels_of_a_telephone_by_hand(tmp_path: Path):
    """The eyes' middle at (0, 20, 350) mm, unturned; the dot is 3 cm to the user's right of the camera, 8 cm below."""
    shot = Shot(PORTRAIT, np.eye(3), np.array([0, 50.0, 350]), np.array([-30.0, 80, 0]), np.zeros(8), np.eye(3))
    assert np.allclose(shot.place(GENERIC.eyes).mean(axis=0), [0, 20, 350])
    folder = write_recording(tmp_path / "raw", "00002", [shot])
    assert json.loads((folder / "dotInfo.json").read_text())["XCam"] == [3.0]
    labels = read_person(run(tmp_path / "raw"), "00002")["labels"][0]
    expected = [-0.2266, 0.0874, -0.1419, 0, -0.3119, -0.0078, -0.3066, 0.1832]
    assert labels[:4] == pytest.approx(expected[:4], abs=1e-4)
    assert labels[4:] == pytest.approx(expected[4:], abs=1.5e-3)  # by a model whose eyes are 0.4 mm further apart


def test_what_a_wrong_focal_length_costs():
    """10% off: the figures of README and of the module's docstring."""
    rng, shots, cameras = np.random.default_rng(0), [], [Camera.plain(focal, 480, 640) for focal in (600, 660)]
    for _ in range(300):  # targets of a tablet, 1 to 20 cm below the camera
        pose = make_pose(
            head_rotation(*np.deg2rad(rng.uniform(-15, 15, 2))), rng.uniform((-40, -20, 250), (40, 60, 450))
        )
        target = rng.uniform((-60, 10, 0), (60, 200, 0))
        seen = Shot(cameras[0], pose.rotation, pose.centre, target, np.zeros(8), np.eye(3)).landmarks()
        found = [head_pose(seen, camera.matrix) for camera in cameras]
        shots.append([_labels(pose, target) for pose in found])
    right, wrong = np.array(shots).transpose(1, 0, 2)
    assert 2.5 < degrees_apart(right[:, :2], wrong[:, :2]).max() < 3.5
    assert degrees_apart(right[:, 2:4], wrong[:, 2:4]).max() < 0.6


def _labels(pose: HeadPose, target: np.ndarray) -> np.ndarray:
    return normalized_labels(
        normalizing_rotation(pose.centre, pose.rotation), pose.rotation, pose.centre, pose.eyes, target
    )


def test_training_reads_the_file_and_the_split(tree: Path):
    out = run(tree)
    assert GazeDataset(out, persons=load_person_split(out.parent / "gazecapture_split.json", "test")).person_ids == [
        "00028"
    ]
    assert json.loads((out.parent / "gazecapture_split.json").read_text()) == {
        "train": ["00002"],
        "val": [],
        "test": ["00028"],
    }
    found = read_attributes(out)
    assert found["dataset"] == "GazeCapture" and found["color_order"] == "RGB" and "600 pixels" in found["intrinsics"]


def test_frames_and_persons_are_chosen(tree: Path):
    out = run(tree, "--frames-every", "2", "--persons", "00028")
    assert read_person(out, "00028")["name"] == ["00028/frames/00000.jpg", "00028/frames/00002.jpg"]
    assert read_attributes(out)["num_persons"] == 1
    late = run(tree, "--settle", "0.5", out="late.h5")
    assert read_person(late, "00002")["name"] == ["00002/frames/00002.jpg"]
    assert left_out(late) == {"dot appeared just before": 4}


def test_two_workers_write_the_same_file_as_one(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion, "_now", lambda: "2026-01-02T03:04:05Z")
    assert run(tree).read_bytes() == run(tree, "--workers", "2", out="two.h5").read_bytes()


def test_ones_own_face_model_is_used(tree: Path):
    path = tree.parent / "model.npy"
    np.save(path, np.vstack([GENERIC[RIGID], [0, 40.0, 0]]))  # the centre 10 mm further down
    own, generic = run(tree, "--face-model", str(path)), run(tree, out="generic.h5")
    a, b = (read_person(out, "00002")["labels"] for out in (own, generic))
    lower = np.degrees(a - b)[:, 2]  # seen from further up, in effect: 10 mm in 340 to 420
    assert lower == pytest.approx([-1.5, -1.5, -1.5], abs=0.3)
    assert json.loads(read_attributes(own)["options"])["face_model"] != "generic"


def test_the_focal_length_is_that_of_the_device(tree: Path):
    """A longer focal length puts the face further away: the same dot is at smaller angles."""
    table = tree.parent / "focal.json"
    table.write_text('{"iphone 6": 720}')
    assumed, longer = run(tree), run(tree, "--focal-lengths", str(table), out="longer.h5")
    a, b = (read_person(out, "00002") for out in (assumed, longer))
    far = np.degrees(np.abs(a["labels"] - b["labels"]))
    assert 0.2 < far[:, :2].max() < 6 and np.abs(a["pixels"].astype(float) - b["pixels"]).mean() < 6
    assert intrinsics(480, 640, 720)[0, 0] == 720 and intrinsics(640, 480)[1, 1] == 600


def test_frames_that_cannot_be_used_are_left_out_for_a_reason(tmp_path: Path):
    folder = write_recording(tmp_path / "raw", "00002", shots_of(PORTRAIT, 6, seed=3))
    change(folder / "appleLeftEye.json", IsValid=[0, 1, 1, 1, 1, 1])
    (folder / "frames" / "00001.jpg").write_bytes((folder / "frames" / "00001.jpg").read_bytes()[:900])
    (folder / "frames" / "00002.jpg").unlink()
    change(folder / "screen.json", Orientation=[1, 1, 1, 3, 1, 1])
    np.save(tmp_path / "landmarks/00002/frames/00004.jpg.npy", [])
    out = run(tmp_path / "raw")
    assert read_person(out, "00002")["name"] == ["00002/frames/00005.jpg"]
    assert left_out(out) == {
        "face or eyes not found by the device": 1,
        "frame is not upright for the device's orientation": 1,
        "image cannot be read": 1,
        "no face found": 1,
        "no such image": 1,
    }


def test_another_face_a_lying_face_and_a_cut_face_are_left_out(tmp_path: Path):
    at_the_border = lay_out(PORTRAIT, distance=380, gaze=(0, 0), head=(0, 0), at=(0.3, 0))
    shots = [*shots_of(PORTRAIT, 2, seed=4), at_the_border, *shots_of(PORTRAIT, 1, seed=5)]
    folder = write_recording(tmp_path / "raw", "00002", shots)
    change(folder / "appleFace.json", X=[-300.0, *json.loads((folder / "appleFace.json").read_text())["X"][1:]])
    lying = (shots[1].landmarks() - 119.5) @ np.array([[0, 1], [-1, 0]]) + 119.5
    np.save(tmp_path / "landmarks/00002/frames/00001.jpg.npy", lying)
    out = run(tmp_path / "raw")
    assert read_person(out, "00002")["name"] == ["00002/frames/00003.jpg"]
    assert left_out(out) == {
        "face found is not the one that the device found": 1,
        "face is cut by the image's border": 1,
        "face is not upright": 1,
    }


def test_the_box_of_the_device_s_face_is_taken_a_quarter_wider():
    assert _in_box(np.array([-2.4, 15.9]), 0, 10, 10, 20)
    assert not _in_box(np.array([-2.6, 15.9]), 0, 10, 10, 20)
    assert _in_box(np.array([5, 34.9]), 0, 10, 10, 20)
    assert not _in_box(np.array([5, 35.1]), 0, 10, 10, 20)


def test_recordings_that_are_still_packed_are_named(tree: Path, capsys: pytest.CaptureFixture):
    for name in ("00002", "00003", "00005"):
        (tree / f"{name}.tar.gz").write_bytes(b"")
    out = run(tree)
    said = capsys.readouterr().out
    assert "--raw: 2 recordings are left aside because they are still packed: 00003, 00005\n" in said
    assert GazeDataset(out).person_ids == ["00002", "00028"]


def remove_dots(folder: Path) -> None:
    (folder / "dotInfo.json").unlink()


def cut_json(folder: Path) -> None:
    (folder / "screen.json").write_text('{"W": [375')


def drop_a_value(folder: Path) -> None:
    change(folder / "dotInfo.json", XCam=[0.0])


def no_split(folder: Path) -> None:
    change(folder / "info.json", Dataset="training")


def no_frames(folder: Path) -> None:
    for file in ("appleFace", "appleLeftEye", "appleRightEye", "faceGrid", "dotInfo", "screen"):
        content = json.loads((folder / f"{file}.json").read_text())
        (folder / f"{file}.json").write_text(json.dumps({key: [] for key in content}))
    (folder / "frames.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (remove_dots, "00002: person cannot be converted (no dotInfo.json)"),
        (cut_json, "00002: person cannot be converted (screen.json cannot be read: Expecting ',' delimiter"),
        (drop_a_value, "(dotInfo.json: XCam has 1 values, expected 3 as in frames.json)"),
        (no_split, "(info.json has Dataset 'training', expected one of train, val, test)"),
        (no_frames, "00002: person without samples (nothing there)"),
    ],
)
def test_a_damaged_recording_gives_one_line_and_the_other_is_converted(tree: Path, damage, line: str, capsys):
    damage(tree / "00002")
    out = run(tree)
    said = [text for text in capsys.readouterr().out.splitlines() if "00002" in text]
    assert len(said) == 1 and line in said[0]
    assert GazeDataset(out).person_ids == ["00028"]


def test_a_damaged_landmark_file_is_named(tree: Path, capsys: pytest.CaptureFixture):
    np.save(tree.parent / "landmarks/00002/frames/00001.jpg.npy", np.zeros((5, 2)))
    run(tree)
    assert "00002/frames/00001.jpg: landmarks cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--raw", "nowhere"], "--raw: nowhere is not a folder"),
        (["--frames-every", "0"], "--frames-every: found 0"),
        (["--landmarks", "nowhere"], "--landmarks: nowhere is not a folder"),
        (["--min-coverage", "99"], "--min-coverage: found 99.0, expected 0 to 1"),
        (["--persons", "00099"], "--persons: 1 not in the data (00099)"),
        (["--focal-lengths", "none.json"], "--focal-lengths: none.json is no JSON file"),
        (["--face-model", "none.npy"], "none.npy: no such face model"),
    ],
)
def test_a_mistake_ends_with_one_line(tmp_path: Path, arguments: list[str], message: str, capsys):
    (tmp_path / "raw" / "00002").mkdir(parents=True)
    write_landmarks(tmp_path / "landmarks", "00002/frames/00000.jpg", np.ones((68, 2)))
    run(tmp_path / "raw", *arguments, code=2)
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"python -m preprocess gazecapture: {message}") and "\n" not in said


def test_a_folder_without_recordings_and_devices_that_do_not_exist_are_refused(tmp_path: Path, capsys):
    (tmp_path / "raw").mkdir()
    write_landmarks(tmp_path / "landmarks", "00002/frames/00000.jpg", np.ones((68, 2)))
    run(tmp_path / "raw", code=2)
    assert "holds no recordings, expected folders such as 00002" in capsys.readouterr().err
    (tmp_path / "focal.json").write_text('{"Nokia": 600, "iPad 2": 0.9}')
    run(tmp_path / "raw", "--focal-lengths", str(tmp_path / "focal.json"), code=2)
    assert "'nokia' is no device of the data; 'ipad 2' has 0.9" in capsys.readouterr().err


def test_detected_landmarks_come_near(tmp_path: Path):
    """Drawn heads are not of the generic shape, and the detector makes large turns smaller: up to 7 degrees at 20."""
    shots = random_shots(Camera.plain(600, 480, 640), 8, seed=1, distance=(590, 610), spread=0.03)
    write_recording(tmp_path / "raw", "00002", shots)
    given = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out.h5"), "--workers", "1"]
    assert main(["gazecapture", *given]) == 0
    found = read_person(tmp_path / "out.h5", "00002")
    rows = [int(Path(name).stem) for name in found["name"]]
    expected = np.stack([shots[row].labels for row in rows])
    assert len(rows) >= 6
    assert degrees_apart(found["labels"][:, :2], expected[:, :2]).max() < 3
    assert np.median(degrees_apart(found["labels"][:, 2:4], expected[:, 2:4])) < 3
