"""EYEDIAP from generated trees in the official layout: videos, tables by frame, frames of reference, damaged trees."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from numpy import ndarray

from dataset import GazeDataset
from preprocess import conversion
from preprocess.datasets.eyediap import in_camera, in_world
from preprocess.datasets.eyediap_files import find_sessions, read_calibration, read_video
from preprocess.face_model import make_pose
from preprocess.inspect.verify import verify
from preprocess.normalization import normalized_labels, normalizing_rotation
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
    photograph,
    random_shots,
    read_attributes,
    read_person,
    run_converter,
    write_landmarks,
)

VGA = Camera.plain(290, 320, 240)
HD = Camera.plain(420, 400, 240)
# Poses of the cameras in the world: x right, y up, z towards them; metres. The HD camera stands a little to the left,
# turned about y by 0.1 radians.
FLIP = np.diag([1.0, -1.0, -1.0])
TURN = np.array([[np.cos(0.1), 0, np.sin(0.1)], [0, 1, 0], [-np.sin(0.1), 0, np.cos(0.1)]])
POSES = {"rgb_vga": (FLIP, np.array([0, 0, 1.0])), "rgb_hd": (FLIP @ TURN, np.array([-0.07, 0.02, 1.01]))}
FRAMES, STEP = 31, 15
HEADERS = {
    "head_pose": "Head pose: (Rotation matrix (9 values, row by row);Translation(3 values, x,y,z))",
    "eye_tracking": "Eyes tracking",
    "screen_coordinates": "Screen coordinates",
    "ball_tracking": "Ball tracking",
}
HEAD_ORIGIN = np.array([0.0, 20.0, 110.0])  # mm, of the tracked head, in the frame of the face


def shots_of(seed: int) -> list[Shot]:
    """Faces 0.5 m away, so that small videos show them large enough; they look at the camera's plane."""
    return random_shots(VGA, 3, seed, distance=(460, 540), spread=0.04)


def seen_by_hd(shot: Shot) -> Shot:
    """The same head before the other camera; its labels are not."""
    (a, at), (b, bt) = POSES["rgb_vga"], POSES["rgb_hd"]
    move = b.T @ a
    centre, target = (move @ point + b.T @ (1000 * (at - bt)) for point in (shot.centre, shot.target))
    return Shot(HD, move @ shot.rotation, centre, target, shot.labels, shot.to_normalized @ move.T)


def write_video(path: Path, images: dict[int, ndarray], size: tuple[int, int], frames: int = FRAMES) -> None:
    """MPEG-4; frames without an image of their own are grey. The index comes first: a cut file can be opened."""
    height, width = size
    with av.open(str(path), "w", format="mov", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 1
        stream.codec_context.qmin, stream.codec_context.qmax = 1, 2
        grey = np.full((height, width, 3), 115, np.uint8)
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(images.get(i, grey), format="rgb24")))
        container.mux(stream.encode())


def write_calibration(path: Path, camera: Camera, pose: tuple[ndarray, ndarray]) -> None:
    def rows(matrix: ndarray) -> str:
        return "\n".join(";".join(f"{value:.9f}" for value in row) for row in matrix)

    rotation, translation = pose
    path.write_text(
        f"[resolution]\n{camera.width};{camera.height}\n[intrinsics]\n{rows(camera.matrix)}\n"
        f"[R]\n{rows(rotation)}\n[T]\n{rows(translation[:, None])}\n"
    )


def world(point: ndarray) -> ndarray:
    """Metres, of mm in the VGA camera's frame."""
    rotation, translation = POSES["rgb_vga"]
    return rotation @ np.asarray(point) / 1000 + translation


def write_table(path: Path, rows: list[list[float]]) -> None:
    lines = [";".join([str(int(row[0])), *(f"{value:.6f}" for value in row[1:])]) for row in rows]
    path.write_text("\n".join([HEADERS[path.stem], *lines]) + "\n")


def write_session(root: Path, name: str, shots: list[Shot], seed: int = 1, hd: bool = False, part: str = "") -> Path:
    """A session as published, its shots at frames 0, 15, 30; exact landmarks go to landmarks/ beside `root`."""
    folder, drawn = root / part / "Data" / name, make_person(seed)
    folder.mkdir(parents=True)
    for video, camera in [("rgb_vga", VGA), *([("rgb_hd", HD)] * hd)]:
        seen = [seen_by_hd(shot) if video == "rgb_hd" else shot for shot in shots]
        images = {STEP * i: photograph(drawn, shot) for i, shot in enumerate(seen)}
        write_video(folder / f"{video}.mov", images, (camera.height, camera.width))
        for i, shot in enumerate(seen):
            write_landmarks(root.parent / "landmarks", f"{name}/{video}/{STEP * i:06d}", shot.landmarks())
    for video, camera in (("rgb_vga", VGA), ("rgb_hd", HD)):
        write_calibration(folder / f"{video}_calibration.txt", camera, POSES[video])
    heads, eyes, targets = [], [], []
    for frame in range(FRAMES):
        shot = shots[min(round(frame / STEP), len(shots) - 1)]
        rotation = POSES["rgb_vga"][0] @ shot.rotation @ FLIP
        heads.append([frame, *rotation.ravel(), *world(shot.place(HEAD_ORIGIN[None])[0])])
        balls = shot.place(np.array([[32.0, 0, 6], [-32, 0, 6]]))
        eyes.append([frame, *[0.0] * 12, *world(balls[0]), *world(balls[1])])
        metres = world(shot.target) if "FT" in name else shot.target / 1000
        targets.append([frame, *[0.0] * (6 if "FT" in name else 2), *metres])
    write_table(folder / "head_pose.txt", heads)
    write_table(folder / "eye_tracking.txt", eyes)
    write_table(folder / ("ball_tracking.txt" if "FT" in name else "screen_coordinates.txt"), targets)
    return folder


def write_states(root: Path, name: str, states: dict[int, str]) -> None:
    path = root / "Annotations/GazeState/GazeStateExport/Data" / name / "gaze_state.txt"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{i}\t{states.get(i, 'OK')}\n" for i in range(FRAMES)))


run = partial(run_converter, "eyediap")


def compare(out: Path, person: str, shots: list[Shot]) -> dict:
    """The person's data sets, after their labels and patches were compared with those of the shots."""
    found = read_person(out, person)
    assert_samples(found, shots, apart=0.05, angles=0.05, border=12, grey=6)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two participants, one with two sessions."""
    write_session(tmp_path / "raw", "1_A_DS_S", shots_of(0))
    write_session(tmp_path / "raw", "1_A_CS_M", shots_of(1))
    write_states(tmp_path / "raw", "1_A_CS_M", {15: "BK"})
    write_session(tmp_path / "raw", "14_B_DS_S", shots_of(2), seed=2)
    return tmp_path / "raw"


def test_labels_of_targets_on_a_screen_are_found_again(tmp_path: Path):
    shots = shots_of(3)
    write_session(tmp_path / "raw", "3_A_DS_S", shots)
    found = compare(run(tmp_path / "raw"), "3", shots)
    assert found["name"] == [f"3_A_DS_S/rgb_vga/{frame:06d}" for frame in (0, 15, 30)]


def test_labels_of_a_ball_are_found_again(tmp_path: Path):
    shots = [
        replace(shot, target=shot.centre + 0.6 * (shot.target - shot.centre)) for shot in shots_of(4)
    ]  # on the way to where it was: the gaze of the face stays, that of single eyes does not
    write_session(tmp_path / "raw", "12_B_FT_M", shots)
    write_states(tmp_path / "raw", "12_B_FT_M", {15: "NL"})
    out = run(tmp_path / "raw", "--targets", "FT")
    found, expected = read_person(out, "12"), np.stack([shot.labels for shot in shots])[[0, 2]]
    assert np.degrees(found["labels"][:, :4]) == pytest.approx(np.degrees(expected[:, :4]), abs=0.05)
    assert left_out(out) == {"not looking at the target": 1}


def test_the_other_video_has_its_own_camera(tmp_path: Path):
    shots = shots_of(5)
    write_session(tmp_path / "raw", "3_A_DS_S", shots, hd=True)
    write_session(tmp_path / "raw", "4_A_DS_S", shots)
    out = run(tmp_path / "raw", "--video", "rgb_hd")
    found = read_person(out, "3")
    for row, shot in zip(found["labels"], map(seen_by_hd, shots), strict=True):
        pose, to = make_pose(shot.rotation, shot.translation), normalizing_rotation(shot.centre, shot.rotation)
        expected = normalized_labels(to, pose.rotation, pose.centre, pose.eyes, shot.target)
        assert np.degrees(row) == pytest.approx(np.degrees(expected), abs=0.05)
    assert np.degrees(np.abs(found["labels"][:, 1] - [shot.labels[1] for shot in shots])).min() > 1
    assert left_out(out) == {
        "person without samples": 1,
        "session without an HD video": 1,
    }


def test_the_published_head_pose_needs_no_landmarks(tmp_path: Path):
    shots = shots_of(6)
    write_session(tmp_path / "raw", "3_A_DS_S", shots)
    out = run(tmp_path / "raw", "--given-head-pose", landmarks=False)
    compare(out, "3", shots)
    assert read_attributes(out)["head_pose"] == "given"


def times_two(numbers: ndarray) -> None:
    numbers[:9] *= 2


def mirrored(numbers: ndarray) -> None:
    numbers[:9:3] *= -1


def no_left_eye(numbers: ndarray) -> None:
    numbers[12:15] = 0


def no_right_eye(numbers: ndarray) -> None:
    numbers[15:18] = 0


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        ("head_pose", times_two),
        ("head_pose", mirrored),
        ("eye_tracking", no_left_eye),
        ("eye_tracking", no_right_eye),
    ],
    ids=["no rotation", "mirrored", "no left eye", "no right eye"],
)
def test_a_published_pose_without_a_rotation_or_without_both_eyes_is_none(tmp_path: Path, table: str, damage: Callable):
    path = write_session(tmp_path / "raw", "3_A_DS_S", shots_of(6)) / f"{table}.txt"
    numbers = np.array(path.read_text().splitlines()[1 + STEP].split(";")[1:], float)
    damage(numbers)
    edit(path, STEP, ";".join([str(STEP), *map(str, numbers)]))
    out = run(tmp_path / "raw", "--given-head-pose", landmarks=False)
    assert read_person(out, "3")["name"] == [f"3_A_DS_S/rgb_vga/{frame:06d}" for frame in (0, 30)]
    assert left_out(out) == {"no head pose for this frame": 1}


def test_where_no_face_is_found_the_published_pose_serves(tmp_path: Path):
    shots = shots_of(7)
    write_session(tmp_path / "raw", "3_A_DS_S", shots)
    np.save(tmp_path / "landmarks/3_A_DS_S/rgb_vga/000000.npy", [])
    out = run(tmp_path / "raw")
    compare(out, "3", shots)
    assert notes(out) == {"head pose from the data set: no face found": 1}


def test_a_face_that_is_not_the_tracked_one_is_left_out(tmp_path: Path):
    folder = write_session(tmp_path / "raw", "3_A_DS_S", shots_of(7))
    path = tmp_path / "landmarks/3_A_DS_S/rgb_vga/000015.npy"
    np.save(path, np.load(path) * 0.7 + 100)
    # Behind the camera: the tracker has lost it, and cannot say.
    edit(folder / "eye_tracking.txt", 30, ";".join(["30", *["0"] * 12, "0", "0", "1.5", "0.06", "0", "1.5"]))
    out = run(tmp_path / "raw")
    assert read_person(out, "3")["name"] == [f"3_A_DS_S/rgb_vga/{frame:06d}" for frame in (0, 30)]
    assert left_out(out) == {"face found is not where the data set has it": 1}


def test_training_reads_the_file(tree: Path):
    out = run(tree)
    data = GazeDataset(out)
    assert sorted(data.person_ids) == ["1", "14"] and len(data) == 8
    found = read_attributes(out)
    assert not [check for check in verify(out)[0] if check.level == "FAIL"]
    assert found["dataset"] == "EYEDIAP" and found["color_order"] == "RGB"
    assert json.loads(found["split"]) == {"test": ["1", "14"]}
    assert json.loads(found["left_out"]) == {"eyes are closed": 1}
    assert json.loads(found["options"])["frames_every"] == 15


def test_aligned_faces_have_the_same_labels(tree: Path):
    aligned = run_converter("ffhq-aligned --size 160 eyediap", tree, out="aligned.h5")
    assert_same_aligned(aligned, run(tree), "1")
    assert read_person(aligned, "1")["pixels"].shape == (5, 160, 160, 3)


def test_two_workers_write_the_same_file_as_one(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion, "_now", lambda: "2026-01-02T03:04:05Z")
    assert run(tree).read_bytes() == run(tree, "--workers", "2", out="two.h5").read_bytes()


def test_parts_of_the_download_and_kinds_of_sessions(tmp_path: Path, capsys: pytest.CaptureFixture):
    shots = shots_of(8)
    write_session(tmp_path / "raw", "1_A_DS_S", shots, part="EYEDIAP1/EYEDIAP")
    write_session(tmp_path / "raw", "2_A_CS_M", shots, part="EYEDIAP2/EYEDIAP")
    write_session(tmp_path / "raw", "10_A_FT_S", shots, part="EYEDIAP2/EYEDIAP")
    write_states(tmp_path / "raw" / "EYEDIAP_annotations", "2_A_CS_M", {0: "BK", 30: "BK"})
    sessions = find_sessions(tmp_path / "raw")
    assert [session.name for session in sessions] == ["1_A_DS_S", "2_A_CS_M", "10_A_FT_S"]
    assert [session.states is not None for session in sessions] == [False, True, False]
    out = run(tmp_path / "raw", "--heads", "M", "--frames-every", "5", "--given-head-pose", landmarks=False)
    assert read_person(out, "2")["name"] == [f"2_A_CS_M/rgb_vga/{frame:06d}" for frame in (5, 10, 15, 20, 25)]
    out = run(tmp_path / "raw", "--targets", "FT", "--persons", "10", out="ball.h5")
    assert notes(out) == {"no gaze states were found: blinks may be among them": 3}
    run(tmp_path / "raw", "--targets", "FT", "--heads", "M", out="none.h5", code=2)
    assert "has sessions, but none with {'targets': ['FT'], 'heads': ['M']}" in capsys.readouterr().err


def test_frames_of_reference_by_hand(tmp_path: Path):
    """1 m before the VGA camera is the origin; y is up and z towards the camera."""
    write_calibration(tmp_path / "c.txt", VGA, POSES["rgb_vga"])
    camera = read_calibration(tmp_path / "c.txt")
    assert camera.size == (240, 320) and camera.matrix[0, 0] == 290
    assert in_camera(camera, np.array([10.0, 20, 30])) == pytest.approx([10, -20, 970])
    write_calibration(tmp_path / "h.txt", HD, POSES["rgb_hd"])
    camera = read_calibration(tmp_path / "h.txt")
    assert in_camera(camera, camera.translation) == pytest.approx([0, 0, 0])
    assert in_world(camera, in_camera(camera, np.array([10.0, 20, 30]))) == pytest.approx([10, 20, 30])


def edit(path: Path, row: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[row + 1] = line  # after the header
    path.write_text("\n".join(lines) + "\n")


def test_rows_that_cannot_be_used_are_left_out_for_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = write_session(tmp_path / "raw", "1_A_DS_S", shots_of(9))
    edit(folder / "screen_coordinates.txt", 0, "0")
    edit(folder / "screen_coordinates.txt", 15, "15;0;0;0;0;0")
    edit(folder / "screen_coordinates.txt", 20, "20;840;525;0.05;0.12")
    edit(folder / "head_pose.txt", 30, ";".join(["30", *["0"] * 12]))
    edit(folder / "eye_tracking.txt", 29, ";".join(["29", *["0"] * 17, "x"]))
    out = run(tmp_path / "raw")
    assert read_person(out, "1")["name"] == ["1_A_DS_S/rgb_vga/000030"]  # the landmarks are there
    assert left_out(out) == {"no target for this frame": 2, "row cannot be read": 2}
    said = capsys.readouterr().out
    assert "1_A_DS_S/screen_coordinates.txt:22: row cannot be read (found 5 fields, expected 6)\n" in said
    run(tmp_path / "raw", "--given-head-pose", landmarks=False, out="none.h5", code=2)


@pytest.mark.parametrize("filled", [False, True])
def test_a_video_that_is_cut_short_gives_its_first_frames_and_one_line(tree: Path, filled: bool, capsys):
    """filled: as by a download that had reserved its place on the disk."""
    path = tree / "Data/1_A_DS_S/rgb_vga.mov"
    whole = sum(1 for _ in read_video(path, 1))
    assert whole == FRAMES
    data = path.read_bytes()
    kept = data[: int(0.7 * len(data))]
    path.write_bytes(kept + bytes(len(data) - len(kept)) * filled)
    assert STEP < sum(1 for _ in read_video(path, 1)) < FRAMES
    out = run(tree)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("1_A")]
    assert len(said) == 1 and "1_A_DS_S: video ends before its annotation (rgb_vga.mov has " in said[0]
    assert read_person(out, "1")["name"][-2:] == ["1_A_DS_S/rgb_vga/000000", "1_A_DS_S/rgb_vga/000015"]


# Damaged packets.


def write_in(codec: str, **options: str) -> Callable:
    """A function like `write_video`, whose pictures stay until the next one and always move a little."""

    def write(path: Path, images: dict[int, ndarray], size: tuple[int, int], frames: int = FRAMES) -> None:
        with av.open(str(path), "w", format="mov", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream(codec, rate=30, options=options)
            stream.height, stream.width = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for i in range(frames):
                image = np.roll(images[STEP * min(round(i / STEP), len(images) - 1)], i % 3, 0)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())

    return write


CODECS = {
    "key frames only": write_in("mpeg4", g="1", qmin="1", qmax="2"),
    "MPEG-4": write_in("mpeg4", g="10", qmin="1", qmax="2"),
    "MPEG-4 with B frames": write_in("mpeg4", g="10", bf="2", qmin="1", qmax="2"),
    "MJPEG": write_in("mjpeg", qmin="1", qmax="2"),
    "H.264": write_in("libx264", crf="12", g="10", bf="2"),
}


def spoil(path: Path, packet: int, start: float = 0.0, stop: float = 1.0, what: str = "zeros") -> None:
    """Overwrite a part of a packet, which keeps its length."""
    with av.open(str(path)) as container:
        position, size = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size][packet]
    data = bytearray(path.read_bytes())
    first, last = position + int(size * start), position + int(size * stop)
    data[first:last] = bytes(last - first) if what == "zeros" else np.random.default_rng(0).bytes(last - first)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, person = tmp_path_factory.mktemp("films"), make_person()
    images = {STEP * i: photograph(person, shot) for i, shot in enumerate(shots_of(0))}
    for codec, write in CODECS.items():
        write(folder / f"{codec}.mov", images, (VGA.height, VGA.width))
    return {codec: folder / f"{codec}.mov" for codec in CODECS}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("start", "stop", "what"),
    [(0, 1, "zeros"), (0, 1, "noise"), (0.4, 0.8, "zeros"), (0.3, 0.9, "noise")],
    ids=["zeros", "noise", "zeros inside", "noise inside"],
)
def test_after_a_damaged_packet_frames_keep_their_numbers_and_wrong_ones_are_told(
    films: dict[str, Path], tmp_path: Path, codec: str, start: float, stop: float, what: str
):
    good = [frame.image.astype(int) for frame in read_video(films[codec], 1)]
    path = shutil.copy(films[codec], tmp_path)
    spoil(Path(path), 7, start, stop, what)
    found = list(read_video(Path(path), 1))
    assert [frame.number for frame in found] == list(range(FRAMES))
    damaged = [frame.number for frame in found if frame.damaged]
    assert damaged and set(damaged) <= ({7} if codec in ("key frames only", "MJPEG") else set(range(4, 20)))
    for frame in found:
        assert (frame.image is None) == frame.damaged
        if not frame.damaged:
            np.testing.assert_array_equal(frame.image, good[frame.number])


@pytest.mark.parametrize("codec", CODECS)
def test_after_several_damaged_packets_numbers_are_kept(films: dict[str, Path], tmp_path: Path, codec: str):
    """H.264 gives out some frames too late then."""
    good = [frame.image.astype(int) for frame in read_video(films[codec], 1)]
    path = Path(shutil.copy(films[codec], tmp_path))
    for packet in (7, 8, 9):
        spoil(path, packet)
    found = list(read_video(path, 1))
    assert [frame.number for frame in found] == list(range(FRAMES))
    whole = [frame for frame in found if not frame.damaged]
    assert {0, 1, 2, 30} <= {frame.number for frame in whole}
    assert all((frame.image == good[frame.number]).all() for frame in whole)


@pytest.mark.parametrize("codec", CODECS)
def test_no_frame_of_a_good_video_is_called_damaged(films: dict[str, Path], codec: str):
    found = list(read_video(films[codec], 2))
    assert [frame.number for frame in found] == list(range(FRAMES)) and not any(frame.damaged for frame in found)
    assert [frame.number for frame in found if frame.image is not None] == list(range(0, FRAMES, 2))


@pytest.mark.parametrize(("packet", "lost"), [(7, None), (15, 15)])
def test_a_damaged_frame_is_counted_and_the_session_goes_on(tree: Path, packet: int, lost: int | None, capsys):
    spoil(tree / "Data/1_A_DS_S/rgb_vga.mov", packet)
    out = run(tree, "--persons", "1")
    names = [name for name in read_person(out, "1")["name"] if name.startswith("1_A_DS_S")]
    assert names == [f"1_A_DS_S/rgb_vga/{frame:06d}" for frame in (0, 15, 30) if frame != lost]
    assert left_out(out).get("frame is damaged", 0) == int(lost is not None)
    assert ("1_A_DS_S/rgb_vga/000015: frame is damaged\n" in capsys.readouterr().out) == (lost is not None)


def no_video(folder: Path) -> None:
    (folder / "rgb_vga.mov").unlink()


def no_index(folder: Path) -> None:
    path = folder / "rgb_vga.mov"
    path.write_bytes(path.read_bytes()[:300])


def no_video_at_all(folder: Path) -> None:
    (folder / "rgb_vga.mov").write_bytes(b"<html>404</html>" * 100)


def no_calibration(folder: Path) -> None:
    (folder / "rgb_vga_calibration.txt").unlink()


def cut_calibration(folder: Path) -> None:
    path = folder / "rgb_vga_calibration.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:4]))


def no_focal_length(folder: Path) -> None:
    path = folder / "rgb_vga_calibration.txt"
    path.write_text(path.read_text().replace("290.000000000", "0", 1))


def another_size(folder: Path) -> None:
    path = folder / "rgb_vga_calibration.txt"
    path.write_text(path.read_text().replace("320;240", "640;480"))


def no_rotation(folder: Path) -> None:
    write_calibration(folder / "rgb_vga_calibration.txt", VGA, (2 * np.eye(3), np.zeros(3)))


def no_screen(folder: Path) -> None:
    (folder / "screen_coordinates.txt").unlink()


def screen_in_the_world(folder: Path) -> None:
    path = folder / "screen_coordinates.txt"
    header, *rows = path.read_text().splitlines()
    moved = [[*map(float, row.split(";"))] for row in rows]
    moved = [[*row[:3], *world(1000 * np.array(row[3:]))] for row in moved]
    write_table(path, moved)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (no_video, "(no rgb_vga.mov)"),
        (no_index, "(rgb_vga.mov cannot be read as a video: there is none in it)"),
        (no_video_at_all, "(rgb_vga.mov cannot be read as a video)"),
        (no_calibration, "(no rgb_vga_calibration.txt)"),
        (cut_calibration, "(rgb_vga_calibration.txt: [intrinsics] has 3 numbers, expected 9)"),
        (no_focal_length, "(rgb_vga_calibration.txt: [intrinsics] [[0.0, 0.0, 159.5], [0.0, 290.0, "),
        (another_size, "(rgb_vga.mov is 320x240, its calibration is for 640x480)"),
        (no_rotation, "(rgb_vga_calibration.txt: [R] is no rotation)"),
        (no_screen, "(no screen_coordinates.txt)"),
        (screen_in_the_world, "(screen_coordinates.txt: the screen is 1000 mm before the VGA camera, expected at"),
    ],
)
def test_a_damaged_session_gives_one_line_and_the_others_are_converted(tree: Path, damage, line: str, capsys):
    damage(tree / "Data/1_A_DS_S")
    out = run(tree, "--persons", "1")
    said = [text for text in capsys.readouterr().out.splitlines() if text.startswith("1_A")]
    assert len(said) == 1 and said[0].startswith(f"1_A_DS_S: session cannot be converted {line}")
    assert read_person(out, "1")["name"] == ["1_A_CS_M/rgb_vga/000000", "1_A_CS_M/rgb_vga/000030"]


def test_a_damaged_gaze_state_is_named(tree: Path, capsys: pytest.CaptureFixture):
    next(tree.rglob("gaze_state.txt")).write_text("0 OK\nclosed\n")
    run(tree, "--persons", "1")
    expected = "1_A_CS_M: session cannot be converted (gaze_state.txt:2 is 'closed', expected a frame and a state)"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--raw", "nowhere"], "--raw: nowhere is not a folder"),
        (["--given-head-pose"], "--landmarks and --given-head-pose exclude each other"),
        ([], "holds no sessions, expected Data/1_A_DS_S and so on"),
    ],
)
def test_a_mistake_ends_with_one_line(tmp_path: Path, arguments: list[str], message: str, capsys):
    (tmp_path / "raw").mkdir()
    write_landmarks(tmp_path / "landmarks", "1_A_DS_S/rgb_vga/000000", np.ones((68, 2)))
    run(tmp_path / "raw", *arguments, code=2)
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_detected_landmarks_come_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Drawn heads are not of the generic shape, and the detector makes large turns smaller: these are below 12."""
    camera = Camera.plain(600, 480, 480)
    monkeypatch.setitem(globals(), "VGA", camera)
    turns = (((4, 2), (-3, -8)), ((-8, 12), (-6, 4)), ((6, -9), (2, 11)))  # gaze, head
    shots = [lay_out(camera, distance=600, gaze=gaze, head=head, at=(0.01, -0.01)) for gaze, head in turns]
    write_session(tmp_path / "raw", "3_A_DS_S", shots)
    out = run(tmp_path / "raw", landmarks=False)
    found, expected = read_person(out, "3"), np.stack([shot.labels for shot in shots])
    assert notes(out) == {} and len(found["labels"]) == 3
    assert degrees_apart(found["labels"][:, :2], expected[:, :2]).max() < 3
    assert np.median(degrees_apart(found["labels"][:, 2:4], expected[:, 2:4])) < 3
