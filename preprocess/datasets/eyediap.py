"""EYEDIAP from its official tree: `python -m preprocess eyediap --raw DIR --out EYEDIAP_128.h5`.

Sessions `Data/1_A_DS_S`: participant, condition, target (DS and CS on a screen, FT a floating ball), head static or
moving. A participant is a person, whatever the condition. By default all sessions with targets on the screen, each
15th frame of the VGA video; as published there are none for participants 12 and 13.

Frames: the world has y up and z towards the camera; a calibration file's R and T are the camera's pose in it, so that
p_camera = R^T (p_world - T). screen_coordinates.txt has points of the VGA camera's frame, ball_tracking.txt and
head_pose.txt of the world. Metres. No distortion is published: none is taken.
The head's pose comes from landmarks. Where these find no face the published pose serves, which is counted;
--given-head-pose takes it alone. Its place is then by the middle of the tracked eyeballs, whose centres are taken as
6 mm behind the corners of the eyes. A face found elsewhere than the tracked one is left out.
A damaged frame keeps its number and is left out, with those that are predicted from it.
Frames without a target are left out, and so are those that the annotated gaze states say are blinks or distracted;
sessions of the kinds DS have no such states.
Source: Funes Mora, Monay and Odobez, ETRA 2014, and the notes that come with the data.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from core.command import UserError
from preprocess.commands import COMMANDS
from preprocess.conversion import Conversion, add_converter, check_arguments
from preprocess.datasets.eyediap_files import (
    VIDEOS,
    Calibration,
    DamagedSession,
    Session,
    find_sessions,
    read_calibration,
    read_states,
    read_table,
    read_video,
)
from preprocess.face_model import HeadPose, make_pose
from preprocess.face_patches import FaceCutter, LeftOut, Sample, cutter_from

NAME = "eyediap"
TARGETS, HEADS = ("DS", "CS", "FT"), ("S", "M")
EVERY = 15
EYEBALL = np.array([0.0, 0.0, 6.0])  # mm, the eyeballs' centres in the frame of the face
MAX_BESIDE = 60.0  # mm between the face found and the one tracked, beside one another
MAX_BEFORE_CAMERA = 300.0  # mm that the screen may be before or behind the camera
STATES = {"BK": "eyes are closed", "NL": "not looking at the target"}
UNKNOWN_STATE = "no gaze states were found: blinks may be among them"


@dataclass(frozen=True)
class Recording:
    """What is known of a session, by frame. problems: rows that cannot be read, and why."""

    session: Session
    camera: Calibration
    targets: dict[int, ndarray]  # (3,) mm, in the camera's frame
    heads: dict[int, ndarray]  # (9,): rotation to the world, row by row
    eyes: dict[int, ndarray]  # (3,) mm, in the camera's frame: the eyeballs' middle
    states: dict[int, str] | None  # OK, BK or NL; None if there is no such file
    problems: list[tuple[str, str]]


def in_camera(calibration: Calibration, points: ndarray) -> ndarray:
    """Points (..., 3) of the world in the camera's frame, mm."""
    return (np.asarray(points) - calibration.translation) @ calibration.rotation


def in_world(calibration: Calibration, points: ndarray) -> ndarray:
    """Points (..., 3) of the camera's frame in the world, mm."""
    return np.asarray(points) @ calibration.rotation.T + calibration.translation


def read_recording(session: Session, video: str) -> Recording:
    """All but the images. Raises DamagedSession."""
    camera = read_calibration(session.folder / f"{video}_calibration.txt")
    targets, problems = _read_targets(session, camera)
    heads, more = read_table(session.folder / "head_pose.txt", 12, slice(0, 9))
    eyes, again = read_table(session.folder / "eye_tracking.txt", 18, slice(12, 18))
    middles = {i: in_camera(camera, 1000 * row.reshape(2, 3).mean(axis=0)) for i, row in eyes.items()}
    states = read_states(session.states) if session.states else None
    return Recording(session, camera, targets, heads, middles, states, problems + more + again)


def _read_targets(session: Session, camera: Calibration) -> tuple[dict[int, ndarray], list[tuple[str, str]]]:
    """Targets in the camera's frame, mm, and rows that cannot be read."""
    if session.target == "FT":
        rows, problems = read_table(session.folder / "ball_tracking.txt", 9, slice(6, 9))
        return {i: in_camera(camera, 1000 * row) for i, row in rows.items()}, problems
    rows, problems = read_table(session.folder / "screen_coordinates.txt", 5, slice(2, 5))
    depth = 1000 * float(np.median([row[2] for row in rows.values()] or [0]))
    if abs(depth) > MAX_BEFORE_CAMERA:
        raise DamagedSession(
            f"screen_coordinates.txt: the screen is {depth:.0f} mm before the VGA camera, expected at most "
            f"{MAX_BEFORE_CAMERA:.0f} before or behind it; the points are not in that camera's frame"
        )
    vga = read_calibration(session.folder / "rgb_vga_calibration.txt")
    return {i: in_camera(camera, in_world(vga, 1000 * row)) for i, row in rows.items()}, problems


def given_pose(recording: Recording, frame: int, cutter: FaceCutter) -> HeadPose | None:
    """The published pose in the axes of the face (x to image right, y down, z into the head); None if there is none.

    Rows that hold no rotation, or a head behind the camera, are none.
    """
    head, middle = recording.heads.get(frame), recording.eyes.get(frame)
    if head is None or middle is None:
        return None
    rotation = recording.camera.rotation.T @ head.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    left, _, right = np.linalg.svd(rotation)  # printed numbers are rounded
    if np.linalg.norm(left @ right - rotation) > 0.1 or np.linalg.det(left @ right) < 0:
        return None
    pose = make_pose(left @ right, middle - left @ right @ EYEBALL, cutter.model)
    return pose if pose.centre[2] > 0 else None


@dataclass(frozen=True)
class EYEDIAP:
    """Converts a participant. sessions: of all participants.  given: use the published head pose alone."""

    sessions: tuple[Session, ...]
    cutter: FaceCutter
    every: int
    video: str
    given: bool

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        """The samples of a participant, by session and frame."""
        for session in self.sessions:
            if session.person == person:
                try:
                    yield from self._session(session)
                except DamagedSession as error:
                    yield LeftOut(session.name, "session cannot be converted", str(error), damaged=True)

    def _session(self, session: Session) -> Iterator[Sample | LeftOut]:
        path = session.folder / f"{self.video}.mov"
        if self.video == "rgb_hd" and not path.exists():
            yield LeftOut(session.name, "session without an HD video")
            return
        recording, length = read_recording(session, self.video), 0
        for where, why in recording.problems:
            yield LeftOut(f"{session.name}/{where}", "row cannot be read", why, damaged=True)
        for frame in read_video(path, self.every):
            length = frame.number + 1
            if frame.image is not None:
                yield self._frame(recording, frame.number, frame.image)
            elif frame.damaged and frame.number % self.every == 0:
                yield LeftOut(f"{session.name}/{self.video}/{frame.number:06d}", "frame is damaged", damaged=True)
        missing = [i for i in recording.targets if i >= length and i % self.every == 0]
        if missing:
            detail = f"{path.name} has {length} frames that can be read, targets go on to {max(missing)}"
            yield LeftOut(session.name, "video ends before its annotation", detail, damaged=True)

    def _frame(self, recording: Recording, frame: int, image: ndarray) -> Sample | LeftOut:
        session, camera = recording.session, recording.camera
        name, note = f"{session.name}/{self.video}/{frame:06d}", ""
        target = recording.targets.get(frame)
        if target is None:
            return LeftOut(name, "no target for this frame")
        if recording.states is not None:
            state = recording.states.get(frame, "none")
            if state != "OK":
                return LeftOut(name, STATES.get(state, "no gaze state for this frame"), state)
        elif session.target != "DS":
            note = UNKNOWN_STATE
        if image.shape[:2] != camera.size:
            found, expected = (f"{width}x{height}" for height, width in (image.shape[:2], camera.size))
            raise DamagedSession(f"{self.video}.mov is {found}, its calibration is for {expected}")
        pose, from_file = self._pose(recording, frame, name, image)
        if isinstance(pose, LeftOut):
            return pose
        return self.cutter.cut(image, name, camera.matrix, pose, target, from_file or note)

    def _pose(self, recording: Recording, frame: int, name: str, image: ndarray) -> tuple[HeadPose | LeftOut, str]:
        """The head's pose, and a note if it is the published one though it was not asked for."""
        given = given_pose(recording, frame, self.cutter)
        if self.given:
            return given or LeftOut(name, "no head pose for this frame"), ""
        found = self.cutter.find_pose(image, name, recording.camera.matrix)
        if given is None or (isinstance(found, LeftOut) and found.damaged):
            return found, ""
        if isinstance(found, LeftOut):
            return given, f"head pose from the data set: {found.reason}"
        beside = _beside(found.centre, given.centre)
        if beside > MAX_BESIDE:  # one of them is wrong
            return LeftOut(name, "face found is not where the data set has it", f"{beside:.0f} mm beside it"), ""
        return found, ""


def _beside(a: ndarray, b: ndarray) -> float:
    """mm between two points (3,) as the camera sees them, at the depth of the second."""
    return float(np.linalg.norm(a / a[2] - b / b[2]) * b[2])


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `eyediap` to `python -m preprocess`."""
    parser = add_converter(subparsers, NAME, COMMANDS[NAME].help, __doc__, conversion_from)
    for flag, kinds, default, about in (
        ("--targets", TARGETS, ["DS", "CS"], "kinds of target (DS CS)"),
        ("--heads", HEADS, ["S", "M"], "static, moving (S M)"),
    ):
        parser.add_argument(flag, choices=kinds, default=default, help=about, nargs="+", metavar="KIND")
    parser.add_argument("--video", choices=VIDEOS, default="rgb_vga", help="(%(default)s)")
    parser.add_argument("--given-head-pose", action="store_true", help="use the published head pose; no landmarks")
    parser.set_defaults(frames_every=EVERY)


def conversion_from(arguments: argparse.Namespace) -> Conversion:
    """What the options of `add_parser` ask for. Raises UserError for what cannot be."""
    check_arguments(arguments)
    if arguments.given_head_pose and arguments.landmarks:
        raise UserError("--landmarks and --given-head-pose exclude each other.", remedy="Give one of them.")
    cutter = cutter_from(arguments)
    kinds = {"targets": sorted(set(arguments.targets)), "heads": sorted(set(arguments.heads))}
    sessions = [s for s in find_sessions(arguments.raw) if s.target in kinds["targets"] and s.head in kinds["heads"]]
    if not sessions:
        raise UserError(
            f"--raw: {arguments.raw} has sessions, but none with {kinds}.",
            remedy="Choose others, or name the folder that has them.",
        )
    if not arguments.given_head_pose:
        cutter.check()
    persons = sorted({session.person for session in sessions}, key=int)
    own = {**kinds, "frames_every": arguments.frames_every, "video": arguments.video}
    landmarks = {"landmarks": "none: given head pose"} if arguments.given_head_pose else {}
    return Conversion(
        dataset="EYEDIAP",
        persons=persons,
        convert=EYEDIAP(tuple(sessions), cutter, arguments.frames_every, arguments.video, arguments.given_head_pose),
        options={**cutter.options(), **landmarks, **own},
        facts={
            "intrinsics": "calibrated",
            "distortion": "not published, taken as none",
            "head_pose": "given" if arguments.given_head_pose else "from landmarks, else given",
        },
        split={"test": persons},
    )
