"""ETH-XGaze from generated trees in the official layout: raw images and the HDF5 release of patches."""

import json
from functools import partial
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from numpy import ndarray

from dataset import GazeDataset
from preprocess import conversion
from preprocess.__main__ import main
from preprocess.datasets.eth_xgaze import shrink
from preprocess.datasets.eth_xgaze_normalized import CENTRE, EYES_50, PADDED, TO_GENERIC
from preprocess.face_model import _ROWS_50, GENERIC, load_face_model
from preprocess.inspect.verify import verify
from preprocess.normalization import (
    ETH_XGAZE,
    normalized_gaze,
    normalized_head,
    undistort_points,
)
from tests.face_geometry import normalize_image
from tests.raw_trees import (
    Camera,
    Shot,
    assert_same_aligned,
    assert_samples,
    degrees_apart,
    lay_out,
    left_out,
    make_person,
    notes,
    patch_of,
    photograph,
    random_shots,
    read_attributes,
    read_person,
    run_converter,
    write_image,
)

DISTORTION = np.array([0.26, 1.48, -0.001, 0.0012, -14.9])
CAMERAS = {  # a twelfth of the published pixels
    0: Camera(np.array([[1100.0, 0, 249.5], [0, 1099, 166.5], [0, 0, 1]]), 500, 334, DISTORTION),
    3: Camera(np.array([[1130.0, 0, 255], [0, 1131, 160], [0, 0, 1]]), 500, 334, DISTORTION),
}
CAMERAS |= {6: CAMERAS[3], 12: CAMERAS[0], 13: CAMERAS[3], 17: CAMERAS[0]}
# Of the published model: corners of the eyes, then the nostrils.
SIX_50 = np.array(
    [
        (-46.51, -38.33, 36.42), (-17.76, -32.59, 29.08), (18.04, -30.96, 29.06), (44.74, -34.11, 36.73),
        (-10.61, 12.96, 21.62), (11.29, 13.86, 21.84),
    ]
)  # fmt: skip
ORIGIN = np.array([-0.4, -34.0, 32.8])  # mm, where the eyes' middle is in the face model's file


def shots_of(camera: int, count: int, seed: int) -> list[Shot]:
    return random_shots(CAMERAS[camera], count, seed, distance=(900, 1100), spread=0.06)


def write_model(path: Path) -> None:
    """The generic face as ETH-XGaze would have it: 50 points in its own axes, zero where the generic face has none."""
    points = np.zeros((50, 3))
    for row, landmark in enumerate(_ROWS_50):
        if landmark in GENERIC.landmarks:
            points[row] = TO_GENERIC.T @ GENERIC[(landmark,)][0] + ORIGIN
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, points)


def given_rotation(shot: Shot) -> ndarray:
    """Of the head in the axes of the data set's face model."""
    return shot.rotation @ TO_GENERIC


def write_camera(path: Path, camera: Camera) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.write("image_Width", camera.width)
    file.write("image_Height", camera.height)
    file.write("Camera_Matrix", camera.matrix)
    file.write("Distortion_Coefficients", camera.distortion[:, None])
    file.write("cam_translation", np.zeros((3, 1)))
    file.write("cam_rotation", np.eye(3))
    file.release()


def line_of(frame: str, camera: int, shot: Shot, more: int = 0) -> str:
    rotation = given_rotation(shot)
    numbers = [100, 200, *shot.target, *cv2.Rodrigues(rotation)[0].ravel(), *(shot.translation - rotation @ ORIGIN)]
    numbers += [*np.nan_to_num(shot.landmarks_with_lids()).ravel(), *[0] * more]
    return ",".join([frame, f"cam{camera:02d}.JPG", *(f"{number:.6f}" for number in numbers)])


def write_subject(
    root: Path, name: str, shots: dict[int, list[Shot]], seed: int = 1, updated: bool = False, frames: int | None = None
) -> Path:
    """A subject as published, with the calibration; returns its annotation. shots: by camera, one a frame."""
    drawn, lines = make_person(seed), []
    for i in range(len(next(iter(shots.values())))):
        for camera, of_camera in shots.items():
            image = photograph(drawn, of_camera[i])
            image = image[::-1, ::-1] if camera in (3, 6, 13) else image
            write_image(root / f"data/train/{name}/frame{i:04d}/cam{camera:02d}.JPG", image)
            lines.append(line_of(f"frame{i:04d}", camera, of_camera[i], 100 if updated else 0))
    folder = root / ("avg_cams_final/" + name if updated else "calibration/cam_calibration")
    for camera in shots:
        write_camera(folder / f"cam{camera:02d}.xml", CAMERAS[camera])
    write_model(root / "calibration/face_model.txt")
    path = root / (f"data/annotation_updated/{name}_update.csv" if updated else f"data/annotation_train/{name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


run = partial(run_converter, "eth-xgaze", landmarks=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_subject(tmp_path / "raw", "subject0000", {0: shots_of(0, 3, seed=0), 3: shots_of(3, 3, seed=1)})
    write_subject(tmp_path / "raw", "subject0004", {0: shots_of(0, 2, seed=2)}, seed=2)
    return tmp_path / "raw"


# Raw images.


@pytest.mark.parametrize("more", [[], ["--pose-from-landmarks"], ["--updated"]])
def test_labels_are_found_again(tmp_path: Path, more: list[str]):
    shots = {0: shots_of(0, 3, seed=3), 3: shots_of(3, 3, seed=4)}
    write_subject(tmp_path / "raw", "subject0000", shots, updated="--updated" in more)
    found = read_person(run(tmp_path / "raw", *more), "subject0000")
    in_order = [shot for pair in zip(shots[0], shots[3], strict=True) for shot in pair]
    assert found["name"][:3] == [f"subject0000/frame000{i}" for i in ("0/cam00.JPG", "0/cam03.JPG", "1/cam00.JPG")]
    assert_samples(found, in_order, apart=0.05, angles=0.1, border=10, grey=5)


def test_three_cameras_hang_upside_down(tmp_path: Path):
    shots = {camera: shots_of(camera, 1, seed=camera) for camera in (0, 3, 6, 12, 13, 17)}
    write_subject(tmp_path / "raw", "subject0000", shots)
    found = read_person(run(tmp_path / "raw"), "subject0000")
    assert_samples(found, [shot for (shot,) in shots.values()], apart=0.05, angles=0.1, border=10, grey=5)


def test_the_distortion_is_taken_out(tmp_path: Path):
    """Of a stronger lens, that moves pixels by more than a twentieth of the face."""
    camera = Camera(CAMERAS[0].matrix, 500, 334, np.array([0.8, 0, 0, 0, 0]))
    shot = lay_out(camera, distance=900, gaze=(-5, 5), head=(3, 8), at=(0.14, 0.03))
    landmarks = shot.landmarks()
    assert np.nanmax(np.abs(undistort_points(landmarks, camera.matrix, camera.distortion) - landmarks)) > 4
    write_subject(tmp_path / "raw", "subject0000", {0: [shot]})
    write_camera(tmp_path / "raw/calibration/cam_calibration/cam00.xml", camera)
    more = "--min-coverage", "0.85"
    for out in (run(tmp_path / "raw", *more), run(tmp_path / "raw", *more, "--pose-from-landmarks", out="b.h5")):
        found = read_person(out, "subject0000")
        assert np.degrees(found["labels"][0]) == pytest.approx(np.degrees(shot.labels), abs=0.05)
        patch = patch_of(make_person(), shot).astype(float)
        assert np.abs(found["pixels"][0].astype(float) - patch)[10:-10, 10:-40].mean() < 4


def test_a_shrunken_image_is_that_of_its_camera():
    """A picture whose values are their own columns and rows: seen along the same ray it shows the same."""
    columns, rows = np.meshgrid(np.arange(100), np.arange(70))
    image = np.stack([columns, rows, rows], axis=-1).astype(np.uint8)
    matrix = np.array([[200.0, 0, 52], [0, 201, 33], [0, 0, 1]])
    small, camera = shrink(image, matrix, 3)
    assert small.shape == (23, 33, 3)
    ray = np.linalg.inv(camera) @ [20, 11, 1]
    assert small[11, 20, :2] == pytest.approx((matrix @ ray)[:2], abs=0.51)
    assert camera[:2, :2] == pytest.approx(matrix[:2, :2] / 3)
    assert shrink(image, matrix, 0)[0] is image


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shot]:
    """A photograph of 8.4 pixels a mm, made 4.2 before the distortion is taken out; published are about 13."""
    raw, camera = tmp_path_factory.mktemp("fine") / "raw", Camera.plain(8400, 1400, 1400)
    shot = lay_out(camera, distance=1000, gaze=(5, 8), head=(3, 10))
    write_subject(raw, "subject0000", {0: [shot]})
    nothing = Camera(camera.matrix, camera.width, camera.height, np.zeros(5))
    write_camera(raw / "calibration/cam_calibration/cam00.xml", nothing)
    return raw, shot


def test_photographs_as_fine_as_the_published_ones_are_shrunk_first(fine: tuple[Path, Shot]):
    raw, shot = fine
    found = read_person(run(raw), "subject0000")
    assert np.degrees(found["labels"][0]) == pytest.approx(np.degrees(shot.labels), abs=0.05)
    patch = patch_of(make_person(), shot, size=512).reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(found["pixels"][0] - patch)[10:-10, 10:-10].mean() < 2


@pytest.mark.parametrize("more", [[], ["--pose-from-landmarks"]])
def test_faces_of_photographs_that_are_shrunk_first_are_aligned_where_they_are(fine: tuple[Path, Shot], more: list):
    aligned = run_converter("ffhq-aligned eth-xgaze", fine[0], *more, out=f"a{len(more)}.h5", landmarks=False)
    assert_same_aligned(aligned, run(fine[0], *more, out=f"p{len(more)}.h5"), "subject0000", grey=2)


def test_the_face_model_s_axes_are_turned_to_the_generic_face(tmp_path: Path):
    """The published eyes and nostrils come to lie where the generic face has them, and the centre between them."""
    model = SIX_50 - SIX_50[:4].mean(axis=0)
    turned = model @ TO_GENERIC.T
    assert np.abs(turned[4:] - GENERIC[(31, 35)]).max() < 3 and np.abs(turned[:4, 1:]).max() < 5
    centre = (turned[:4].mean(axis=0) + turned[4:].mean(axis=0)) / 2
    assert pytest.approx(centre, abs=0.06) == CENTRE
    write_model(tmp_path / "face_model.txt")
    np.save(tmp_path / "model.npy", np.loadtxt(tmp_path / "face_model.txt"))
    assert load_face_model(tmp_path / "model.npy")[GENERIC.landmarks] == pytest.approx(GENERIC.points, abs=1e-6)
    assert [_ROWS_50[i] for i in EYES_50] == [36, 39, 42, 45]


def test_frames_and_cameras_are_chosen(tree: Path):
    out = run(tree, "--frames-every", "2", "--cameras", "3")
    assert read_person(out, "subject0000")["name"] == [f"subject0000/frame{i}/cam03.JPG" for i in ("0000", "0002")]
    assert read_attributes(out)["num_persons"] == 1


def test_training_reads_the_file_and_the_split(tree: Path):
    assert json.loads(read_attributes(run(tree, out="all.h5"))["split"]) == {"train": ["subject0000", "subject0004"]}
    split = {"train": ["subject0000.h5"], "test": ["subject0001.h5"], "test_person_specific": ["subject0004.h5"]}
    (tree / "train_test_split.json").write_text(json.dumps(split))
    out = run(tree)
    data = GazeDataset(out)
    assert data.person_ids == ["subject0000", "subject0004"] and len(data) == 8
    found = read_attributes(out)
    assert not [check for check in verify(out)[0] if check.level == "FAIL"]
    assert found["dataset"] == "ETH-XGaze" and found["color_order"] == "RGB"
    assert json.loads(found["split"])["test_person_specific"] == ["subject0004"]
    (tree / "train_test_split.json").write_text("[")
    run(tree, "--overwrite", code=2)


def test_the_split_beside_the_train_folder_of_the_release_is_found(tmp_path: Path):
    write_release(tmp_path / "release/train/subject0003.h5", release_shots(1, seed=7, size=224))
    split = {"train": ["subject0003.h5"], "test": ["subject0001.h5"]}
    (tmp_path / "release/train_test_split.json").write_text(json.dumps(split))
    for raw in (tmp_path / "release", tmp_path / "release/train"):
        found = json.loads(read_attributes(run(raw))["split"])
        assert found == {"train": ["subject0003"], "test": ["subject0001"]}


def test_two_workers_write_the_same_file_as_one(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion, "_now", lambda: "2026-01-02T03:04:05Z")
    assert run(tree).read_bytes() == run(tree, "--workers", "2", out="two.h5").read_bytes()


def test_lines_and_images_that_cannot_be_used_are_left_out_for_a_reason(tmp_path: Path, capsys):
    shots = shots_of(0, 6, seed=5)
    path = write_subject(tmp_path / "raw", "subject0000", {0: shots})
    lines = path.read_text().splitlines()
    lines[0] = lines[0].rsplit(",", 1)[0]
    lines[1] = lines[1].replace("frame0001", "0001")
    images = tmp_path / "raw/data/train/subject0000"
    (images / "frame0002/cam00.JPG").unlink()
    (images / "frame0003/cam00.JPG").write_bytes((images / "frame0003/cam00.JPG").read_bytes()[:3000])
    write_image(images / "frame0004/cam00.JPG", np.zeros((167, 250, 3), np.uint8))
    lines += [lines[5].replace("cam00", f"cam{i:02d}") for i in (7, 7, 8)]
    cells = lines[5].split(",")
    lines.append(",".join([*cells[:10], "0", "0", "-900", *cells[13:]]))
    lines.append(lines[5].replace("cam00", "cam18"))
    path.write_text("\n".join(lines) + "\n")
    out = run(tmp_path / "raw")
    assert read_person(out, "subject0000")["name"] == ["subject0000/frame0005/cam00.JPG"]
    assert left_out(out) == {
        "camera without calibration": 3,
        "head is behind the camera": 1,
        "image cannot be read": 1,
        "image is of another size than its calibration": 1,
        "image without annotation": 1,
        "line cannot be read": 3,
        "no such image": 1,
    }
    said = capsys.readouterr().out
    assert "subject0000.csv:1: line cannot be read (found 148 columns, expected 149 or 249)\n" in said
    assert "subject0000: and 4 more like these" in said
    listing = out.with_suffix(".left_out.tsv").read_text()
    assert "subject0000/frame0001/cam00.JPG\timage without annotation\t" in listing
    assert "subject0000.csv:11\tline cannot be read\tbegins with 'frame0005', 'cam18.JPG', expected such as" in listing


def no_calibration(raw: Path) -> None:
    (raw / "calibration/cam_calibration/cam03.xml").unlink()


def cut_calibration(raw: Path) -> None:
    path = raw / "calibration/cam_calibration/cam03.xml"
    path.write_text(path.read_text()[:300])


def no_distortion(raw: Path) -> None:
    path = raw / "calibration/cam_calibration/cam03.xml"
    path.write_text(path.read_text().replace("Distortion_Coefficients", "Distortion"))


def unknown_encoding(raw: Path) -> None:
    path = raw / "calibration/cam_calibration/cam03.xml"
    path.write_text(path.read_text().replace('version="1.0"', 'version="1.0" encoding="klingon"'))


def no_focal_length(raw: Path) -> None:
    matrix = np.diag([-1.0, -1, 1]) @ CAMERAS[3].matrix
    write_camera(raw / "calibration/cam_calibration/cam03.xml", Camera(matrix, 500, 334, DISTORTION))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (unknown_encoding, "(cam03.xml cannot be read as XML: unknown encoding: klingon)"),
        (no_focal_length, "(cam03.xml: Camera_Matrix [-1130.0, 0.0, "),
        (no_calibration, "(no cam03.xml)"),
        (cut_calibration, "(cam03.xml cannot be read as XML: "),
        (no_distortion, "(cam03.xml: no Distortion_Coefficients/data)"),
    ],
)
def test_a_camera_without_calibration_gives_one_line_and_the_others_go_on(tree: Path, damage, line: str, capsys):
    damage(tree)
    out = run(tree)
    said = [text for text in capsys.readouterr().out.splitlines() if text.startswith("subject0000")]
    assert len(said) == 1
    assert said[0].startswith(f"subject0000/frame0000/cam03.JPG: camera without calibration {line}")
    assert len(GazeDataset(out)) == 5


def test_an_empty_annotation_gives_one_line_and_the_other_subject_is_converted(tree: Path, capsys):
    (tree / "data/annotation_train/subject0000.csv").write_text("")
    out = run(tree)
    assert "subject0000: person without samples (image without annotation)\n" in capsys.readouterr().out
    assert GazeDataset(out).person_ids == ["subject0004"]


def test_an_annotation_that_is_no_text_leaves_out_the_person(tree: Path, capsys: pytest.CaptureFixture):
    (tree / "data/annotation_train/subject0000.csv").write_bytes(b"\xff\xfe" + b"\x00\xd8no text" * 100)
    out = run(tree)
    assert "subject0000.csv:1: line cannot be read (found 1 columns, expected" in capsys.readouterr().out
    assert GazeDataset(out).person_ids == ["subject0004"]


def test_a_byte_order_mark_changes_nothing(tree: Path):
    without = run(tree, out="without.h5")
    for path in [*tree.glob("data/annotation_train/*.csv"), tree / "calibration/face_model.txt"]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    found = read_person(run(tree, "--overwrite", out="with.h5"), "subject0000")
    np.testing.assert_array_equal(found["labels"], read_person(without, "subject0000")["labels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--landmarks", "."], "--landmarks: this data set brings its head poses"),
        (["--cameras", "18"], "--cameras: found 18, expected 0 to 17"),
        (["--updated"], "holds neither data/annotation_updated/subject0000.csv and so on nor subjects' .h5"),
        (["--persons", "subject0099"], "--persons: 1 not in the data (subject0099)"),
    ],
)
def test_a_mistake_ends_with_one_line(tree: Path, arguments: list[str], message: str, capsys):
    run(tree, *arguments, code=2)
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_without_the_face_model_it_stops(tree: Path, capsys: pytest.CaptureFixture):
    path = tree / "calibration/face_model.txt"
    path.write_text("1 2 3\n")
    run(tree, code=2)
    assert "face_model.txt: found shape (3,), expected 50 points in mm (50, 3)" in capsys.readouterr().err
    path.unlink()
    run(tree, code=2)
    assert "face_model.txt cannot be read as 50 points in mm" in capsys.readouterr().err


# The HDF5 release.


def release_shots(count: int, seed: int, size: int, distance: tuple[float, float] = (900, 1100)) -> list[Shot]:
    """Photographs about as sharp as the patches."""
    return random_shots(Camera.plain(7 * size, int(1.6 * size), int(1.6 * size)), count, seed, distance, spread=0.01)


def published(shot: Shot, size: int) -> tuple[ndarray, ndarray, ndarray]:
    """(size, size, 3) uint8 BGR, gaze (2,) and head (2,), about the data set's centre and in its axes."""
    centre, given = shot.translation + shot.rotation @ CENTRE, given_rotation(shot)
    view = ETH_XGAZE.resized(size)
    patch, rotation, _ = normalize_image(photograph(make_person(), shot), shot.camera.matrix, centre, given, view)
    return patch[..., ::-1], normalized_gaze(rotation, shot.target - centre), normalized_head(rotation, given)


def write_release(path: Path, shots: list[Shot], size: int = 224, cameras: tuple[int, ...] = (0,)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    patches, gaze, head = (np.stack(values) for values in zip(*(published(s, size) for s in shots), strict=True))
    rows, count = np.arange(len(shots)), len(cameras)
    with h5py.File(path, "w") as file:
        file.create_dataset("face_patch", data=patches, chunks=(1, size, size, 3), compression="lzf")
        file["face_gaze"], file["face_head_pose"] = gaze, head
        file["frame_index"], file["cam_index"] = 5 + rows[:, None] // count, np.array(cameras)[rows % count][:, None]


@pytest.mark.parametrize("size", [224, 448])
def test_patches_are_normalised_again(tmp_path: Path, size: int):
    shots = release_shots(5, seed=6, size=size)
    write_release(tmp_path / "raw/train/subject0003.h5", shots, size)
    out = run(tmp_path / "raw")
    found, expected = read_person(out, "subject0003"), np.stack([shot.labels for shot in shots])
    assert found["name"] == [f"subject0003.h5:{row}" for row in range(5)]
    assert degrees_apart(found["labels"][:, :2], expected[:, :2]).max() < 0.1
    assert degrees_apart(found["labels"][:, 2:4], expected[:, 2:4]).max() < 0.1
    assert np.degrees(np.abs(found["labels"] - expected)).max() < 0.5  # single eyes: the target's distance is assumed
    for pixels, shot in zip(found["pixels"].astype(float), shots, strict=True):
        patch = patch_of(make_person(), shot).astype(float)
        assert np.abs(pixels - patch)[14:-20, 14:-14].mean() < 5 < np.abs(pixels[..., ::-1] - patch).mean()
    attributes = read_attributes(out)
    assert notes(out) == {PADDED: 5}
    assert attributes["field_of_view"] == "patches show 140 of 153.6 mm; beyond, their border is repeated"
    # On each side 4.4%, 5.7 pixels, are beyond the published patch, 5 where the other centre is 8 mm further away.
    columns = found["pixels"][:, 20:-20].astype(float).mean(axis=(0, 1, 3))
    steps = np.abs(np.diff(found["pixels"][:, 20:-20].astype(float), axis=2)).mean(axis=(0, 1, 3))
    assert columns[0] > 50 and steps[[0, 1, 2, -3, -2, -1]].max() < 0.5 < steps[12:-12].mean()
    assert GazeDataset(out).person_ids == ["subject0003"]
    assert not [check for check in verify(out)[0] if check.level == "FAIL"]


def test_raw_images_and_patches_of_them_give_the_same(tmp_path: Path):
    shots = release_shots(2, seed=7, size=224, distance=(990, 1010))
    write_release(tmp_path / "release/subject0000.h5", shots)
    path = write_subject(tmp_path / "raw", "subject0000", {0: shots})
    assert path.is_file()
    camera = shots[0].camera
    plain = Camera(camera.matrix, camera.width, camera.height, np.zeros(5))
    write_camera(tmp_path / "raw/calibration/cam_calibration/cam00.xml", plain)
    a = read_person(run(tmp_path / "raw", out="a.h5"), "subject0000")
    b = read_person(run(tmp_path / "release", out="b.h5"), "subject0000")
    assert np.degrees(a["labels"][:, :4]) == pytest.approx(np.degrees(b["labels"][:, :4]), abs=0.1)
    assert np.abs(a["pixels"].astype(float) - b["pixels"])[:, 14:-20, 14:-14].mean() < 3


def test_frames_and_cameras_of_the_release_are_chosen(tmp_path: Path):
    shots = release_shots(1, seed=8, size=224) * 8
    write_release(tmp_path / "raw/train/subject0003.h5", shots, cameras=(0, 17))
    out = run(tmp_path / "raw", "--frames-every", "3", "--cameras", "17")
    assert read_person(out, "subject0003")["name"] == ["subject0003.h5:1", "subject0003.h5:7"]
    with h5py.File(tmp_path / "raw/train/subject0003.h5", "r+") as file:
        file["cam_index"][:] += 1  # as in files that count from 1
    again = run(tmp_path / "raw", "--frames-every", "3", "--cameras", "17", out="again.h5")
    assert read_person(again, "subject0003")["name"] == ["subject0003.h5:1", "subject0003.h5:7"]


def test_damaged_files_give_one_line_and_the_others_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture):
    shots, folder = release_shots(2, seed=9, size=224), tmp_path / "raw/train"
    for i in range(5):
        write_release(folder / f"subject000{i}.h5", shots)
    (folder / "subject0000.h5").write_bytes((folder / "subject0000.h5").read_bytes()[:5000])
    with h5py.File(folder / "subject0001.h5", "r+") as file:
        del file["face_gaze"]
    with h5py.File(folder / "subject0002.h5", "r+") as file:
        del file["face_patch"]
        file["face_patch"] = np.zeros((2, 512, 512, 3), np.uint8)
    with h5py.File(folder / "subject0003.h5", "r+") as file:
        file["face_gaze"][0] = np.nan
        file["face_gaze"][1] = np.deg2rad(85)
    out = run(tmp_path / "raw")
    assert GazeDataset(out).person_ids == ["subject0004"]
    said = capsys.readouterr().out
    assert "subject0000: person cannot be converted (subject0000.h5: " in said
    assert "(subject0001.h5: no face_gaze; the gaze of test subjects is not published)" in said
    assert "(subject0002.h5: face_patch is (2, 512, 512, 3) uint8, expected (N, 448 or 224, as many, 3) uint8)" in said
    assert left_out(out) == {
        "gaze is more than 80 degrees from the camera": 1,
        "labels are no angles": 1,
        "person cannot be converted": 3,
        "person without samples": 1,
    }


def test_aligned_faces_need_the_raw_images(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    patches, aligned = run(tree), tmp_path / "aligned.h5"
    given = ["--out", str(aligned), "--workers", "1"]
    assert main(["ffhq-aligned", "--size", "160", "eth-xgaze", "--raw", str(tree), *given]) == 0
    assert_same_aligned(aligned, patches, "subject0000")
    write_release(tmp_path / "release/subject0000.h5", release_shots(1, seed=11, size=224))
    assert main(["ffhq-aligned", "eth-xgaze", "--raw", str(tmp_path / "release"), *given, "--overwrite"]) == 2
    assert "they need the photographs, not a release of patches" in capsys.readouterr().err


def test_options_of_the_raw_images_are_refused_for_patches(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_release(tmp_path / "raw/subject0000.h5", release_shots(1, seed=10, size=224))
    for option in (["--updated"], ["--max-pose-error", "0.01"], ["--min-coverage", "0.5"]):
        run(tmp_path / "raw", *option, code=2)
        assert "--max-pose-error and --min-coverage are for the raw images" in capsys.readouterr().err
