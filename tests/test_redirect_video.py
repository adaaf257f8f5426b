"""Videos redirected: times and sound stay, faces are followed, nothing half done is left, mistakes get a sentence."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

import core.redirection.following as following
import core.redirection.video as video
import core.redirection.video_files as video_files
import redirect
from checkpoints_manager import save_checkpoint
from core.build import build_redirector
from core.command import UserError
from core.config_default import Config
from core.redirection.ahead import ahead
from core.redirection.edit import Edit
from core.redirection.faces import PhotoFace
from core.redirection.following import Follower
from core.redirection.smoothing import OneEuro
from core.redirection.video import redirect_video
from core.redirection.video_frames import Format, planes, with_change
from models.redirector import Encoding
from preprocess.face_model import follow_pose, head_pose
from preprocess.face_patches import LeftOut
from preprocess.faces.mesh import Face
from preprocess.normalization import rotation_to_label
from tests import photos
from tests.clips import frames_of, metadata_of, sound_of, times_of, write_clip
from tests.raw_trees import degrees_apart
from tests.test_redirect import gap
from tests.tiny import tiny_flow, tiny_redirector

TURNED = Edit(gaze=(0, 20), relative=True)
FOCAL = float(photos.CAMERA.matrix[0, 0])
GREY = np.full((photos.SIDE, photos.SIDE, 3), 128, np.uint8)
LANDMARKS = photos.opened(photos.SHOT.landmarks_with_lids())
LANDMARKS = np.where(np.isfinite(LANDMARKS), LANDMARKS, np.nanmean(LANDMARKS, axis=0))  # detected ones are all there


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return photos.photograph(photos.make_person())


def moved(picture: np.ndarray, columns: int, rows: int = 0) -> np.ndarray:
    """A picture that says in its first pixels how far it was moved, by an even number, for `in_sight`."""
    there = photos.shifted(picture, -columns, -rows)
    there[:16, :64] = 128 + columns // 2, 128 + rows // 2, 255
    return there


@pytest.fixture(autouse=True)
def in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the networks: a face where `moved` says, and none in a picture that is grey all over."""

    def look(image: np.ndarray) -> list[Face]:
        if image.std() < 10:
            return []
        columns, rows, said = np.median(image[4:12, 8:56].reshape(-1, 3), axis=0)
        shift = 2 * np.array([columns - 128, rows - 128]) if said > 200 else np.zeros(2)
        return [Face(0.9, LANDMARKS + shift)]

    monkeypatch.setattr(following, "find_faces", look)
    monkeypatch.setattr(following, "find_largest", lambda image: next(iter(look(image)), None))
    monkeypatch.setattr(following.mesh, "follow", lambda image, face: next(iter(look(image)), None))


def redirected(clip: Path, out: Path, edit: Edit = TURNED, **options: object) -> video.RedirectedVideo:
    return redirect_video(photos.loaded(tiny_flow()), clip, edit, out, focal=FOCAL, progress=False, **options)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frame_times_and_sound_are_kept(tmp_path: Path, picture: np.ndarray, suffix: str):
    times = [0, 40, 80, 200, 233, 500, 510]
    clip = write_clip(tmp_path / "in.mp4", [picture] * len(times), times)
    done = redirected(clip, tmp_path / f"out{suffix}")
    first = times_of(done.path)[0]  # Matroska has no times below 0, where sound begins: all are later by as much
    assert first == 0 or suffix == ".mkv" and first < 25
    assert [time - first for time in times_of(done.path)] == times and done.frames == len(times) and not done.faceless
    before, after = sound_of(clip), sound_of(done.path)
    assert [data for _, data in before] == [data for _, data in after] and len(after) > 10
    assert np.abs(np.subtract([time for time, _ in before], [time - first for time, _ in after])).max() <= 1
    with av.open(str(done.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_a_clock_that_does_not_start_at_zero_is_set_to_zero(tmp_path: Path, picture: np.ndarray):
    """As in MPEG transport streams, and in what was cut out of them."""
    clip = write_clip(tmp_path / "in.ts", [picture] * 3, [0, 40, 90], options={"output_ts_offset": "5"})
    first = times_of(clip)[0]
    assert first >= 5000
    done = redirected(clip, tmp_path / "out.mp4")
    assert np.allclose(times_of(done.path), [0, 40, 90], atol=25)  # sound begins first, by what its coder is behind
    late = sound_of(clip)[0][0] - first
    assert sound_of(done.path)[0][0] - times_of(done.path)[0] == pytest.approx(late, abs=1)


def test_eyes_change_in_every_frame_and_nothing_else(tmp_path: Path, picture: np.ndarray):
    clip = write_clip(tmp_path / "in.mp4", [picture] * 4, sound=None)
    done = redirected(clip, tmp_path / "out.mp4")
    before, after = frames_of(clip)[2], frames_of(done.path)[2]
    for middle in photos.face_of().eyes.mean(axis=1).astype(int):
        eye = np.s_[middle[1] - 10 : middle[1] + 10, middle[0] - 15 : middle[0] + 15]
        assert gap(before, after)[eye].max() > 20
    assert gap(before, after)[300:].mean() < 3 and gap(before, after)[:100].mean() < 3


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_video_that_is_turned_is_redirected_upright(tmp_path: Path, picture: np.ndarray, turn: int):
    lying = np.rot90(picture, -turn // 90)[: photos.SIDE, :]
    clip = write_clip(tmp_path / "in.mp4", [lying] * 3, sound=None, turn=turn)
    done = redirected(clip, tmp_path / "out.mp4")
    assert done.faces[1].frames == 3
    assert gap(frames_of(done.path)[1], picture)[300:].mean() < 5


def test_a_turned_video_that_is_not_square_changes_its_sides(tmp_path: Path):
    half = np.zeros((64, 96, 3), np.uint8)
    half[:32, :48] = 200
    clip = write_clip(tmp_path / "in.mp4", [half] * 2, sound=None, turn=90)
    with video_files.open_video(clip) as opened:
        assert opened.format.shape == (96, 64)
        frame = next(iter(opened))
    assert frame.pixels.shape == (96, 64, 3) and gap(frame.pixels, np.rot90(half)).mean() < 5
    assert np.abs(planes(frame.yuv)[0].astype(int) - np.rot90(half[..., 0])).mean() < 20


@pytest.mark.parametrize("colours", [{}, {"colorspace": 1, "color_range": 1}, {"colorspace": 1, "color_range": 2}])
def test_what_changed_is_seen_in_luma_and_chroma_and_all_else_stays_to_the_bit(tmp_path: Path, colours):
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(40, 200, (12, 16, 3), np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC)
    clip = write_clip(tmp_path / "in.mp4", [picture] * 2, sound=None, colours=colours)
    with video_files.open_video(clip) as opened:
        frame, form = next(iter(opened)), opened.format
    changed = frame.pixels.copy()
    changed[32:64, 40:80] = changed[32:64, 40:80] // 2 + (10, 40, 60)
    yuv = with_change(frame, changed, form.to_yuv)
    plain = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
    for name, value in form.colours.items():
        setattr(plain, name, value)
    assert gap(plain.to_ndarray(format="rgb24"), changed)[34:62, 42:78].mean() < 3
    luma, *chromas = (np.abs(a.astype(int) - b) for a, b in zip(planes(yuv), planes(frame.yuv), strict=True))
    assert luma[32:64, 40:80].max() > 0
    luma[32:64, 40:80] = 0
    assert not luma.any()
    for chroma in chromas:
        assert chroma[16:32, 20:40].max() > 0
        chroma[16:32, 20:40] = 0
        assert not chroma.any()
    assert with_change(frame, frame.pixels.copy(), form.to_yuv) is frame.yuv


def test_colours_are_said_as_they_were(tmp_path: Path, picture: np.ndarray):
    said = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}
    clip = write_clip(tmp_path / "in.mp4", [picture] * 2, sound=None, colours=said)
    with av.open(str(redirected(clip, tmp_path / "out.mp4").path)) as container:
        context = container.streams.video[0].codec_context
        assert {name: int(getattr(context, name)) for name in said} == said


def test_a_face_that_leaves_and_comes_back_is_the_same_and_frames_without_are_counted(tmp_path: Path, picture):
    frames = [moved(picture, 0)] * 3 + [GREY] * 4 + [moved(picture, 40)] * 3
    clip = write_clip(tmp_path / "in.mp4", frames, sound=None)
    done = redirected(clip, tmp_path / "out.mp4")
    assert (done.frames, done.faceless, list(done.faces)) == (10, 4, [1]) and done.faces[1].frames == 6
    before, after = frames_of(clip), frames_of(done.path)
    assert len(after) == 10 and max(gap(a, b).mean() for a, b in zip(before[3:7], after[3:7], strict=True)) < 2


def test_faces_are_numbered_as_they_appear(monkeypatch: pytest.MonkeyPatch, picture: np.ndarray):
    far = Face(0.9, LANDMARKS / 3)
    seen = iter([[Face(0.9, LANDMARKS)], [Face(0.9, LANDMARKS), far]])
    monkeypatch.setattr(following, "find_faces", lambda image: next(seen))
    monkeypatch.setattr(following.mesh, "follow", lambda image, face: face)
    follower = Follower(FOCAL)
    counts = [len(follower(picture, time)) for time in (0.0, 0.5, 1.1)]
    assert counts == [1, 1, 2] and [face.number for face in follower.faces] == [1, 2]


def test_two_faces_that_were_led_to_one_are_one(monkeypatch: pytest.MonkeyPatch, picture: np.ndarray):
    monkeypatch.setattr(following, "find_faces", lambda image: [Face(0.9, LANDMARKS), Face(0.9, LANDMARKS / 3)])
    follower = Follower(FOCAL)
    assert [len(follower(picture, time)) for time in (0.0, 0.1)] == [2, 1]


def test_a_face_in_use_does_not_flicker_at_the_border(picture: np.ndarray):
    """Moved back and forth about where a fifth of the patch is cut: it comes into use late and stays long."""
    follower = Follower(FOCAL)
    out_of_use = [isinstance(follower(moved(picture, -shift), shift)[0], LeftOut) for shift in range(150, 256, 6)]
    not_in_use = [isinstance(Follower(FOCAL)(moved(picture, -shift), 0)[0], LeftOut) for shift in range(150, 256, 6)]
    assert not_in_use.index(True) < out_of_use.index(True)


def test_landmarks_that_tremble_are_held_still(monkeypatch: pytest.MonkeyPatch, picture: np.ndarray):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(following.mesh, "follow", lambda image, face: Face(0.9, LANDMARKS + rng.normal(0, 1, (68, 2))))
    follower = Follower(FOCAL)
    faces = [follower(picture, number / 25)[0] for number in range(60)]
    assert all(isinstance(face, PhotoFace) for face in faces)
    trembling = np.diff([face.landmarks for face in faces[20:]], axis=0).std()
    assert trembling < 0.25 * np.sqrt(2)
    assert np.diff([face.corners for face in faces[20:]], axis=0).std() < 1


def test_a_pose_follows_where_head_pose_jumps():
    """The tip of the nose is drawn down, until it is taken for an outlier."""
    camera, landmarks = photos.CAMERA.matrix, LANDMARKS.copy()
    start = head_pose(landmarks, camera)
    jumps = {"fresh": 0.0, "followed": 0.0}
    last: dict[str, np.ndarray] = {}
    for step in np.arange(14.0, 15.5, 0.05):
        wrong = landmarks + np.eye(68)[[30]].T * (0, step)
        poses = {"fresh": head_pose(wrong, camera), "followed": follow_pose(wrong, camera, start)}
        start = poses["followed"]
        for name, pose in poses.items():
            angles = np.degrees(rotation_to_label(pose.rotation))
            jumps[name] = max(jumps[name], float(np.abs(angles - last.get(name, angles)).max()))
            last[name] = angles
    assert jumps["fresh"] > 1 and jumps["followed"] < 0.05


def test_a_followed_pose_is_that_of_the_scene():
    near = head_pose(LANDMARKS + (3, -2), photos.CAMERA.matrix)
    pose = follow_pose(LANDMARKS, photos.CAMERA.matrix, near)
    expected = head_pose(LANDMARKS, photos.CAMERA.matrix)
    angles = (np.stack([rotation_to_label(one.rotation)]) for one in (pose, expected))
    assert degrees_apart(*angles)[0] < 0.5
    with pytest.raises(ValueError, match="no face|facing|behind|faces"):
        follow_pose(LANDMARKS[::-1], photos.CAMERA.matrix, near)


def test_one_euro_takes_half_of_a_step_at_its_cutoff():
    calm = OneEuro(1.0, 0.0)
    assert calm(np.array([2.0]), 0.0) == 2  # the first value is taken as it is
    assert calm(np.array([4.0]), 1 / (2 * np.pi)) == pytest.approx(3)


def test_one_euro_holds_still_what_trembles_and_follows_what_moves():
    rng, times = np.random.default_rng(0), np.arange(100) / 25
    still, calm, moving = rng.normal(0, 1, 100), OneEuro(1.0, 0.1), OneEuro(1.0, 1.0)
    held = np.array([calm(value[None], time)[0] for value, time in zip(still, times, strict=True)])
    assert np.diff(held).std() < 0.3 * np.diff(still).std()
    behind = [100 * time - moving(np.array([100 * time]), time)[0] for time in times]
    assert max(behind[30:]) < 1  # hundredth of a second, where a filter of 1 Hz alone is 16 behind


@torch.no_grad()
def test_what_the_redirector_sees_is_smoothed_and_the_gaze_ends_where_it_is_asked_to():
    """What the redirector sees trembles by 3 degrees: the turn is steady, and an absolute edit ends in one place."""
    redirector, face, rng, source = tiny_flow().eval(), photos.face_of(), np.random.default_rng(0), video._Source()
    still = redirector.encode(torch.rand(1, 3, redirector.image_size, redirector.image_size))
    seen, taken = [], []
    for number in range(60):
        source.time = number / 25
        gaze = torch.from_numpy(rng.normal(0, 0.05, (1, 2))).float()
        calm = source.calmed(replace(still, conditions={**still.conditions, "gaze": gaze}))
        assert torch.equal(calm.remainder["own_gaze"], calm.conditions["gaze"])  # the decoder looks there
        assert calm.remainder["image"] is still.remainder["image"]
        turned = redirector.rotate(calm, Edit(gaze=(0, 15)).targets(face, calm.conditions))
        assert turned.conditions["gaze"][0].numpy() == pytest.approx(face.to_condition(np.radians((0, 15))), abs=1e-6)
        seen.append(gaze[0].numpy())
        taken.append(calm.conditions["gaze"][0].numpy())
    assert np.diff(taken[20:], axis=0).std() < 0.3 * np.diff(seen[20:], axis=0).std()


def test_the_video_redirects_by_what_is_smoothed(tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """A redirector that sees the head 6 degrees to the left and to the right by turns."""
    redirector, calls, ends = tiny_flow(), [0], []
    encode, rotate = redirector.encode, redirector.rotate

    def trembling(image: torch.Tensor) -> Encoding:
        calls[0] += 1
        head = torch.tensor([[0.0, 0.1 * (-1) ** calls[0]]])
        found = encode(image)
        return replace(found, conditions={**found.conditions, "head": head})

    def turned(encoding: Encoding, targets: dict[str, torch.Tensor]) -> Encoding:
        ends.append(float(targets["head"][0, 1]))
        return rotate(encoding, targets)

    monkeypatch.setattr(redirector, "encode", trembling)
    monkeypatch.setattr(redirector, "rotate", turned)
    clip = write_clip(tmp_path / "in.mp4", [picture] * 20, [40 * number for number in range(20)], sound=None)
    edit = Edit(head=(0, 10), relative=True)
    redirect_video(photos.loaded(redirector), clip, edit, tmp_path / "out.mp4", focal=FOCAL, progress=False)
    assert len(ends) == 20 and np.abs(np.diff(ends[10:])).max() < 0.1  # 0.2 as seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_what_is_done_and_it_plays(tmp_path: Path, picture, monkeypatch, number):
    clip = write_clip(tmp_path / "in.mp4", [picture] * 40)
    after(5, video, "redirect_face", monkeypatch, lambda: os.kill(os.getpid(), number))
    done = redirected(clip, tmp_path / "out.mp4")
    assert done.stopped and done.path == tmp_path / "out-partial.mp4" and 5 <= done.frames < 10
    assert len(frames_of(done.path)) == done.frames and sound_of(done.path)
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "out-partial.mp4"}


def test_an_error_leaves_no_file(tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    clip = write_clip(tmp_path / "in.mp4", [picture] * 10)

    def fail() -> None:
        raise OSError("no space left")

    after(3, video, "redirect_face", monkeypatch, fail)
    with pytest.raises(OSError, match="no space left"):
        redirected(clip, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def after(calls: int, where: object, name: str, monkeypatch: pytest.MonkeyPatch, what: Callable[[], None]) -> None:
    """Something happens in a later call of a function."""
    function, counted = getattr(where, name), []

    def call(*given: object, **options: object) -> object:
        counted.append(1)
        if len(counted) == calls:
            what()
        return function(*given, **options)

    monkeypatch.setattr(where, name, call)


def test_memory_does_not_depend_on_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Frames that were read and not written yet are a few, however long the video is."""
    clip = write_clip(tmp_path / "in.mp4", [np.zeros((32, 32, 3), np.uint8)] * 300)
    read, write = video_files.Clip._frame, video_files.Writer.write
    alive, most = [0], [0]

    def counted(function: Callable[..., object], by: int) -> Callable[..., object]:
        def call(*given: object) -> object:
            alive[0] += by
            most[0] = max(most[0], alive[0])
            return function(*given)

        return call

    monkeypatch.setattr(video_files.Clip, "_frame", counted(read, 1))
    monkeypatch.setattr(video_files.Writer, "write", counted(write, -1))
    with pytest.raises(UserError, match="no face found in its 300 frames"):
        redirected(clip, tmp_path / "out.mp4")
    assert alive == [0] and most[0] < 12


def test_work_ahead_comes_in_order_ends_and_raises():
    assert list(ahead(iter(range(20)))) == list(range(20))
    asked = []
    some = ahead((asked.append(number) or number + 1 for number in range(100)), most=3)
    assert next(some) == 1
    some.close()
    assert len(asked) <= 5

    def failing() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    made = ahead(failing())
    assert next(made) == 1
    with pytest.raises(OSError, match="gone"):
        next(made)


def test_the_metadata_say_that_it_was_redirected(tmp_path: Path, picture: np.ndarray):
    clip = write_clip(tmp_path / "in.mp4", [picture] * 3, title="mine", comment="a walk")
    noted = metadata_of(redirected(clip, tmp_path / "a.mp4").path)
    plain = metadata_of(redirected(clip, tmp_path / "b.mp4", noted=False).path)
    assert noted["title"] == plain["title"] == "mine" and plain["comment"] == "a walk"
    assert noted["comment"].startswith("a walk; redirected: all faces, gaze 0 20, relative")
    assert "compositeWithTrainedAlgorithmicMedia" in noted["comment"]


def test_damaged_parts_are_left_out_and_counted(tmp_path: Path, picture: np.ndarray):
    rng = np.random.default_rng(0)
    noisy = [np.clip(picture + rng.normal(0, 9, picture.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    data = bytearray(write_clip(tmp_path / "in.mp4", noisy, sound=None).read_bytes())
    start = len(data) // 2
    data[start : start + 30_000] = bytes(30_000)
    (tmp_path / "broken.mp4").write_bytes(data)
    done = redirected(tmp_path / "broken.mp4", tmp_path / "out.mp4")
    assert done.damaged >= 1 and len(frames_of(done.path)) == done.frames >= 3


def test_the_patch_of_a_redirector_without_flow_is_put_in(tmp_path: Path, picture: np.ndarray):
    clip = write_clip(tmp_path / "in.mp4", [picture] * 3, sound=None)
    loaded = photos.loaded(tiny_redirector())
    done = redirect_video(loaded, clip, Edit(head=(0, 10)), tmp_path / "out.mp4", focal=FOCAL, progress=False)
    assert done.faces[1].frames == 3 and done.faces[1].after["head"] == pytest.approx((0, 10), abs=3)


@pytest.fixture
def run(tmp_path: Path, picture: np.ndarray) -> Path:
    """A run's folder, beside `in.mp4`."""
    write_clip(tmp_path / "in.mp4", [picture] * 6)
    config = Config(redirector="st-ed-flow", **photos.TINY)
    parts = dict(build_redirector(config).named_children())
    save_checkpoint(tmp_path / "run", 3, parts, {}, {"config": config.to_json()})
    return tmp_path / "run"


def command(run: Path, *more: str, clip: str = "in.mp4") -> list[str]:
    source = [] if "--webcam" in more else [str(run.parent / clip)]
    out = [] if "-o" in more else ["-o", str(run.parent / "out.mp4")]
    return [*source, "--checkpoint", str(run), "--focal", str(FOCAL), "--gaze", "0", "15", *out, *more]


def test_closed_eyes_are_left_and_so_is_a_face_too_far_from_the_point_to_look_at(tmp_path, picture, monkeypatch):
    clip = write_clip(tmp_path / "in.mp4", [picture] * 4, sound=None)
    monkeypatch.setattr(PhotoFace, "is_closed", property(lambda face: True))
    assert redirected(clip, tmp_path / "out.mp4", number=1).faces[1].frames == 4  # asked for by its number
    with pytest.raises(UserError, match="left as it is in 4 frames: eyes are closed"):
        redirected(clip, tmp_path / "out.mp4")
    monkeypatch.setattr(PhotoFace, "is_closed", property(lambda face: False))
    with pytest.raises(UserError, match="left as it is in 4 frames: the point to look at is too far"):
        redirected(clip, tmp_path / "out.mp4", Edit(look_at=(90_000, 0)))


def test_the_command_tells_face_by_face_what_it_did(run: Path, capsys: pytest.CaptureFixture[str]):
    assert redirect.main(command(run, "--face", "1", "--whole-face", "--back", "patch")) == 0
    said = capsys.readouterr()
    assert "face 1: redirected in 6 frames, in the mean gaze" in said.out and "kept degrees" in said.out
    assert "6 frames, 0.2 s." in said.out and "6/6" in said.err
    assert len(frames_of(run.parent / "out.mp4")) == 6


def test_as_a_library(run: Path):
    model = redirect.load(run)
    options = {"focal": FOCAL, "progress": False}
    done = redirect.redirect_video(model, run.parent / "in.mp4", run.parent / "o.mkv", eye_contact=True, **options)
    assert done.frames == 6 and len(frames_of(done.path)) == 6


def test_the_command_says_where_it_was_stopped(run: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    after(2, video, "redirect_face", monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert redirect.main(command(run)) == 130
    assert "Stopped; wrote" in (said := capsys.readouterr().out) and "out-partial.mp4" in said
    assert not (run.parent / "out.mp4").exists()


def test_a_file_stands_for_a_webcam(run: Path, capsys: pytest.CaptureFixture[str]):
    assert redirect.main(command(run, "--webcam", str(run.parent / "in.mp4"))) == 0
    assert "Ctrl-C ends it" in (said := capsys.readouterr().out) and "face 1: redirected in 6 frames" in said
    times = times_of(run.parent / "out.mp4")
    assert len(times) == 6 and (np.diff(times) > 0).all()


def test_a_webcam_is_ended_by_an_interrupt_and_the_video_is_whole(run: Path, monkeypatch):
    after(3, video, "redirect_face", monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert redirect.main(command(run, "--webcam", str(run.parent / "in.mp4"))) == 0
    assert 3 <= len(frames_of(run.parent / "out.mp4")) <= 6


def test_mistakes_get_one_clear_sentence(run: Path, picture: np.ndarray, capsys: pytest.CaptureFixture[str]):
    folder = run.parent
    write_clip(folder / "grey.mp4", [GREY] * 3)
    write_clip(folder / "pcm.mov", [picture] * 3, sound="pcm_s16be")
    (folder / "broken.mp4").write_bytes(b"no video" * 99)
    (folder / "short.mp4").write_bytes((folder / "in.mp4").read_bytes()[:900])
    odd = (folder / "in.mp4").read_bytes().replace(b"avc1", b"zzz1")
    (folder / "unknown.mp4").write_bytes(odd)
    for arguments, message in (
        (command(run, clip="none.mp4"), "none.mp4: no such video."),
        (command(run, clip="broken.mp4"), "broken.mp4: cannot be read as a video"),
        (command(run, clip="short.mp4"), "short.mp4: cannot be read as a video"),
        (command(run, clip="unknown.mp4"), "unknown.mp4: nothing here decodes its pictures"),
        (command(run, clip="grey.mp4"), "grey.mp4: no face found in its 3 frames"),
        (command(run, "--face", "3"), "--face: found 3, expected 1 to 1"),
        (command(run, "-o", "/proc/out.mp4"), "-o: /proc cannot be written"),
        (command(run, "-o", str(folder / "in.mp4")), "in.mp4 is the video itself"),
        (command(run, "-o", str(folder / "out.gif")), "none of the formats that are written of videos: .mp4"),
        (command(run, "--grid", "3"), "--grid is of photographs, not of a video; leave it out."),
        (command(run, "--webcam", "97"), "--webcam 97: no such camera, or another program has it."),
        ([*command(run), "--webcam", "0"], "name a photograph or a video, or give --webcam."),
    ):
        assert redirect.main(arguments) == 2, message
        errors = capsys.readouterr().err.splitlines()
        assert message in errors[-1] and not any("Traceback" in line for line in errors), errors
    assert not list(folder.glob("*out*"))


def test_a_missing_encoder_is_named_with_the_remedy(run: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(video_files, "ENCODER", "libnone264")
    assert redirect.main(command(run)) == 2
    assert "libnone264, which writes H.264, is missing" in capsys.readouterr().err


def test_sound_that_a_format_cannot_hold_is_named_with_the_remedy(run: Path, picture, capsys):
    folder = run.parent
    write_clip(folder / "speech.mkv", [picture] * 3, sound="tta")
    assert redirect.main(command(run, "-o", str(folder / "o.mp4"), clip="speech.mkv")) == 2
    assert "-o: .mp4 cannot hold this sound (tta) as it is; name a file .mkv." in capsys.readouterr().err
    assert redirect.main(command(run, "-o", str(folder / "o.mkv"), clip="speech.mkv")) == 0
    assert [data for _, data in sound_of(folder / "o.mkv")] == [data for _, data in sound_of(folder / "speech.mkv")]


def test_a_change_of_red_is_that_of_the_standard():
    """BT.709, full range: luma 0.2126, blue difference -0.1146, red difference 0.5 (ITU-R BT.709-6)."""
    form = Format((2, 2), 1, 25, colours={"colorspace": 1, "color_range": 2})  # type: ignore[arg-type]
    assert form.to_yuv[:, 0] == pytest.approx([0.2126, -0.1146, 0.5], abs=1e-4)
