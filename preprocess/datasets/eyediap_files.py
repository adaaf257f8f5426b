"""The files of EYEDIAP: where the sessions are, calibrations, tables of numbers by frame, gaze states and videos.

Nothing here knows faces; lengths are as the files have them (metres), but for calibrations, which are in mm.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import read_text, require_file

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

VIDEOS = ("rgb_vga", "rgb_hd")
_SESSION = re.compile(r"(\d{1,2})_([AB])_(DS|CS|FT)_([SM])")
_STATES = Path("Annotations/GazeState/GazeStateExport/Data")


class DamagedSession(ValueError):
    """No sample of the session can be trusted; the others of the participant are converted all the same."""


@dataclass(frozen=True)
class Session:
    """A folder such as 1_A_DS_S. person: the participant's number.  states: its gaze_state.txt, if there is one."""

    name: str
    folder: Path
    person: str
    target: str
    head: str
    states: Path | None


@dataclass(frozen=True)
class Calibration:
    """A camera: (height, width), matrix (3, 3), and its pose in the world, (3, 3) and (3,) mm."""

    size: tuple[int, int]
    matrix: ndarray
    rotation: ndarray
    translation: ndarray


def find_sessions(raw: Path) -> list[Session]:
    """The sessions in `raw`, in its EYEDIAP or Data, or in the parts of the download below it, by number and name.

    Raises UserError if there are none.
    """
    below = sorted(path for path in raw.iterdir() if path.is_dir())
    roots = [raw, *([raw.parent] if raw.name == "Data" else ()), *below, *(path / "EYEDIAP" for path in below)]
    found: dict[str, Path] = {}
    for folder in (raw, *(root / "Data" for root in roots)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and _SESSION.fullmatch(path.name):
                found.setdefault(path.name, path)
    if not found:
        raise UserError(
            f"--raw: {raw} holds no sessions, expected Data/1_A_DS_S and so on, in it, in EYEDIAP or in the parts of "
            "the download."
        )
    sessions = []
    for name, folder in found.items():
        person, _, target, head = name.split("_")
        states = [path for root in roots if (path := root / _STATES / name / "gaze_state.txt").is_file()]
        sessions.append(Session(name, folder, str(int(person)), target, head, states[0] if states else None))
    return sorted(sessions, key=lambda session: (int(session.person), session.name))


def _read_lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except FileNotFoundError as error:
        raise DamagedSession(f"no {path.name}") from error
    except OSError as error:
        raise DamagedSession(f"{path.name} cannot be read: {error}") from error


def read_calibration(path: Path) -> Calibration:
    """From the sections [resolution], [intrinsics], [R] and [T]; others are left alone. Raises DamagedSession."""
    sections: dict[str, list[float]] = {}
    lines = _read_lines(path)
    try:
        for line in filter(None, map(str.strip, lines)):
            if line.startswith("["):
                numbers = sections.setdefault(line.strip("[] "), [])
            elif sections:
                numbers.extend(float(cell) for cell in line.split(";") if cell.strip())
        sizes = {"resolution": 2, "intrinsics": 9, "R": 9, "T": 3}
        values = {name: np.array(sections.get(name, ())) for name in sizes}
    except ValueError as error:
        raise DamagedSession(f"{path.name} has a field that is no number ({error})") from error
    for name, count in sizes.items():
        if len(values[name]) != count or not np.isfinite(values[name]).all():
            raise DamagedSession(f"{path.name}: [{name}] has {len(values[name])} numbers, expected {count}")
    matrix, rotation = (values[name].reshape(3, 3) for name in ("intrinsics", "R"))
    width, height = values["resolution"]
    if not min(matrix[0, 0], matrix[1, 1]) > 0 or tuple(matrix[2]) != (0, 0, 1):
        raise DamagedSession(f"{path.name}: [intrinsics] {matrix.tolist()} are those of no camera")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=0.01) or np.linalg.det(rotation) < 0:
        raise DamagedSession(f"{path.name}: [R] is no rotation")
    return Calibration((int(height), int(width)), matrix, rotation, 1000 * values["T"])


def read_table(path: Path, columns: int, use: slice) -> tuple[dict[int, ndarray], list[tuple[str, str]]]:
    """Frame -> the numbers asked for, of rows `frame;number;...` with `columns` numbers, after a header.

    The numbers asked for are threes, such as points. A row of the frame alone, and a three of zeros, say that
    something was not found: such a frame is not in the result. Beside it `file:line` and what is wrong of rows that
    cannot be read. Raises DamagedSession.
    """
    rows, problems = {}, []
    for number, line in enumerate(_read_lines(path)[1:], 2):
        cells = [cell for cell in line.strip().split(";") if cell.strip()]
        if len(cells) <= 1:
            continue
        try:
            if len(cells) != columns + 1:
                raise ValueError(f"found {len(cells)} fields, expected {columns + 1}")
            frame, values = int(cells[0]), np.array([float(cell) for cell in cells[1:]])[use]
        except ValueError as error:
            problems.append((f"{path.name}:{number}", str(error)))
            continue
        if np.isfinite(values).all() and values.reshape(-1, 3).any(axis=1).all():
            rows[frame] = values
    return rows, problems


def read_states(path: Path) -> dict[int, str]:
    """Frame -> state, of lines `frame<TAB>state`. Raises DamagedSession."""
    states = {}
    for number, line in enumerate(_read_lines(path), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2 or not cells[0].isdigit():
            raise DamagedSession(f"{path.name}:{number} is {line.strip()!r}, expected a frame and a state")
        states[int(cells[0])] = cells[1]
    return states


@dataclass(frozen=True)
class Frame:
    """number: in the video, from 0.  image: (H, W, 3) RGB uint8 if it was asked for and is whole."""

    number: int
    image: ndarray | None
    damaged: bool = False


def read_video(path: Path, every: int) -> Iterator[Frame]:
    """All frames in order; the images of each Nth.

    Frames are counted as they are shown: seeking by number is not reliable in these files. One that cannot be
    decoded keeps its number. It and those that are predicted from it, which is all until the next key frame and the
    B frames before it, are damaged. Ends where nothing more can be decoded.
    Raises DamagedSession if the file cannot be opened.
    """
    import av  # slow to import

    try:
        require_file(path)
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise DamagedSession(f"no {path.name}" if missing else f"{path.name} cannot be read as a video") from error
    with container:
        if not container.streams.video:
            raise DamagedSession(f"{path.name} cannot be read as a video: there is none in it")
        if container.streams.video[0].codec_context is None:
            raise DamagedSession(f"{path.name} cannot be read as a video: nothing here decodes it")
        yield from _judge(_shown(container), every)


def _decoded(container: "InputContainer") -> Iterator[tuple[int | None, list["VideoFrame"]]]:
    """The time of each packet of a video, and the frames that came with it, of this time or of others."""
    from av.error import FFmpegError

    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # the persons run in parallel
    if stream.codec_context.name == "mjpeg":  # the others say which frames they had to mend
        stream.codec_context.options = {"err_detect": "explode"}
    with suppress(FFmpegError):  # the container is cut short
        for packet in container.demux(stream):
            frames: list[VideoFrame] = []
            with suppress(FFmpegError):
                frames = packet.decode()
            yield None if packet.is_discard else packet.pts, frames


def _shown(container: "InputContainer") -> Iterator["VideoFrame | None"]:
    """Frames in the order of their times; None for one whose packet gave none, though a later one did."""
    waiting, last = list[int](), None
    for time, frames in _decoded(container):
        if time is not None:
            heappush(waiting, time)
        for frame in frames:
            if frame.pts is not None:
                if last is not None and frame.pts < last:
                    continue  # it comes after others, as after damage in H.264: its place is taken
                while waiting and waiting[0] < frame.pts:
                    heappop(waiting)
                    yield None
                if waiting and waiting[0] == frame.pts:
                    heappop(waiting)
                last = frame.pts
            yield frame


def _judge(frames: Iterable["VideoFrame | None"], every: int) -> Iterator[Frame]:
    """The frames of a video, damaged ones and what depends on them told apart."""
    from av.video.frame import PictureType

    broken, held = False, list[Frame]()  # held: B frames, until the one after them that they are predicted from, too
    for number, frame in enumerate(frames):
        if frame is None or frame.is_corrupt:
            broken = True
        elif frame.key_frame:
            broken = False
        if frame is None or broken:
            yield from (replace(before, image=None, damaged=True) for before in held)
            yield Frame(number, None, damaged=True)
            held = []
            continue
        held.append(Frame(number, frame.to_ndarray(format="rgb24") if number % every == 0 else None))
        if frame.pict_type != PictureType.B:
            yield from held
            held = []
    yield from held
