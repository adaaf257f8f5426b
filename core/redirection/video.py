"""Redirect the faces of a video: frame by frame, followed and smoothed over time, with its sound and its times."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from core.command import UserError
from core.files import remove_left
from core.redirection.ahead import ahead
from core.redirection.edit import LIMIT, Edit
from core.redirection.faces import PhotoFace
from core.redirection.following import Follower
from core.redirection.load import Loaded
from core.redirection.photo import Back, RedirectedFace, redirect_face, way_back
from core.redirection.smoothing import OneEuro
from core.redirection.video_files import SOURCE_TYPE, Clip, Writer, check_video_output, open_video
from core.redirection.video_frames import Frame
from core.redirection.webcam import Camera
from core.runtime import stop_on_signal
from core.tracking import progress_bar
from models.redirector import Encoding
from preprocess.face_patches import LeftOut

OF_THE_FILE = {"encoder", "major_brand", "minor_version", "compatible_brands"}  # metadata that a writer gives anew
CUTOFF, BETA = 0.1, 2.0  # of gaze and head as the redirector sees them, radians


@dataclass
class VideoFace:
    """What was done to a face of a video. frames: in how many.  before, after: degrees (pitch, yaw), in the mean.

    left_out: why it was left as it is, and in how many frames.  doubts: why the result may be poor, likewise.
    """

    number: int
    frames: int = 0
    before: dict[str, ndarray] = field(default_factory=dict)
    after: dict[str, ndarray] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)

    def add(self, done: RedirectedFace) -> None:
        self.frames += 1
        self.doubts.update(done.doubts)
        for mean, new in ((self.before, done.before), (self.after, done.after)):
            for name, angles in new.items():
                old = mean.get(name, np.zeros(2))
                mean[name] = old + (np.array(angles) - old) / self.frames

    def __str__(self) -> str:
        angles = ", ".join(
            f"{name} {_shown(self.before[name])} "
            + (f"to {_shown(new)}" if (new != self.before[name]).any() else "kept")
            for name, new in self.after.items()
        )
        told = [f"redirected in {_counted(self.frames)}, in the mean {angles} degrees"] * bool(self.frames)
        told += [f"left as it is in {_counted(times)}: {why}" for why, times in self.left_out.items()]
        return f"face {self.number}: {'; '.join(told)}"


@dataclass
class RedirectedVideo:
    """What was done to a video. path: where it is.  frames: that were written.  faces: by number.

    faceless: frames in which no face was found.  damaged: parts of the file that could not be decoded.  seconds: how
    long it plays.  stopped: the user wanted no more of it.
    """

    path: Path
    frames: int = 0
    faceless: int = 0
    damaged: int = 0
    seconds: float = 0.0
    stopped: bool = False
    faces: dict[int, VideoFace] = field(default_factory=dict)

    def face(self, number: int) -> VideoFace:
        return self.faces.setdefault(number, VideoFace(number))


def redirect_video(
    loaded: Loaded,
    video: str | Path | Camera,
    edit: Edit,
    out: str | Path,
    *,
    number: int | None = None,
    back: Back | None = None,
    whole_face: bool = False,
    focal: float | None = None,
    noted: bool = True,
    progress: bool = True,
) -> RedirectedVideo:
    """Redirect the faces of a video, and write it: a file, or what a camera sees until the user stops it.

    number: of the one face to redirect; faces are numbered as they appear, of one frame the largest first; None for
    all.  back, whole_face, focal: as of `redirect_photo`.  noted: its metadata say what was done.  progress: a bar.
    Memory does not depend on the length. Ctrl-C or kill -TERM end it after a frame: what is done by then is
    `NAME-partial`, which plays. Any other error leaves no file.
    Raises UserError where the video cannot be read, no face of it can be redirected, or it cannot be written.
    """
    out = Path(out)
    check_video_output(out, Path(video) if isinstance(video, str | Path) else None)
    job = _Job(loaded, edit, number, way_back(loaded, back), whole_face)
    if isinstance(video, Camera):
        return _write(job, video, out, focal, noted, progress)
    with open_video(Path(video)) as clip:
        return _write(job, clip, out, focal, noted, progress)


@dataclass(frozen=True)
class _Job:
    """What is to be done to every frame."""

    loaded: Loaded
    edit: Edit
    number: int | None
    back: Back
    whole_face: bool
    _sources: dict[int, "_Source"] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """In words, such as 'gaze 0 15 degrees'."""
        edit = ((one.name.replace("_", " "), getattr(self.edit, one.name)) for one in fields(self.edit))
        return ", ".join(
            f"{name} {' '.join(f'{number:g}' for number in value)}" if isinstance(value, tuple) else name
            for name, value in edit
            if value not in (None, False)
        )

    def redirect(self, frame: Frame, faces: Sequence[PhotoFace | LeftOut], told: RedirectedVideo) -> ndarray:
        """The pixels of a frame with what is to be redirected in it."""
        pixels = frame.pixels
        for face in faces:
            number = face.number if isinstance(face, PhotoFace) else int(face.name.removeprefix("face "))
            if self.number not in (None, number):
                continue
            why = face.reason if isinstance(face, LeftOut) else self._why_not(face)
            if why:
                told.face(number).left_out[why] += 1
            elif isinstance(face, PhotoFace):
                source = self._sources.setdefault(number, _Source())
                source.time = frame.time
                options = self.loaded, pixels, face, self.edit, self.back, self.whole_face
                pixels, done = redirect_face(*options, calm=source.calmed)
                told.face(number).add(done)
        return pixels

    def _why_not(self, face: PhotoFace) -> str:
        """Why a face stays as it is in this frame, or ''; one that is asked for by its number is not spared."""
        point = self.edit.look_at
        if point is not None and np.abs(np.degrees(face.looking_at(point))).max() > LIMIT:
            return "the point to look at is too far from it"
        return "" if face.number == self.number else self.edit.spoils(face)


class _Source:
    """Gaze and head of a face as the redirector sees them, smoothed over time.

    What it sees wrongly in one frame would else be taken for a movement, in how far the face is turned and in where
    its eyes are painted. time: seconds, of the frame that comes next.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self._calm: dict[str, OneEuro] = {}

    def calmed(self, source: Encoding) -> Encoding:
        """The same with smoothed conditions, for the decoder, too."""
        conditions = {name: self._calmed(name, angles) for name, angles in source.conditions.items()}
        return replace(source.with_own(conditions), conditions=conditions)

    def _calmed(self, name: str, angles: Tensor) -> Tensor:
        filtered = self._calm.setdefault(name, OneEuro(CUTOFF, BETA))
        return torch.from_numpy(filtered(angles.double().cpu().numpy(), self.time)).to(angles)


def _write(
    job: _Job, clip: Clip | Camera, out: Path, focal: float | None, noted: bool, progress: bool
) -> RedirectedVideo:
    """Frame by frame, under a temporary name; the name at the end says whether it is whole."""
    temporary, told = out.with_name(f".{out.name}.{os.getpid()}.tmp"), RedirectedVideo(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_left(out.parent, out.name)
    try:
        with stop_on_signal() as stop:
            writer = Writer(temporary, out.suffix, clip.format, clip.sound, _metadata(clip, job, noted))
            try:
                _go(job, clip, Follower(focal), writer, told, stop, progress)
                writer.finish()
            finally:
                writer.close()
        if told.stopped and isinstance(clip, Clip):
            told.path = out.with_stem(f"{out.stem}-partial")
        os.replace(temporary, told.path)
    finally:
        temporary.unlink(missing_ok=True)
    return told


def _go(
    job: _Job,
    clip: Clip | Camera,
    follower: Follower,
    writer: Writer,
    told: RedirectedVideo,
    stop: Sequence[int],
    progress: bool,
) -> None:
    bar = progress_bar(clip.format.frames or None, 0, "redirect", "frame", shown=progress)
    with bar, closing(ahead(_followed(clip, follower))) as followed:
        for item, faces in followed:
            if stop:
                told.stopped = True
                break
            if not isinstance(item, Frame):
                writer.copy(item)
                continue
            writer.write(item, job.redirect(item, faces, told) if faces else None)
            told.frames, told.seconds = told.frames + 1, item.time
            told.faceless, told.damaged = told.faceless + (not faces), clip.damaged
            bar.update()
    if isinstance(clip, Clip):
        _require_faces(job, clip, told, len(follower.faces))


def _followed(clip: Clip | Camera, follower: Follower) -> Iterator[tuple[Any, list[PhotoFace | LeftOut]]]:
    """Frames with their faces, and packets of sound without."""
    for item in clip:
        yield item, follower(item.pixels, item.time) if isinstance(item, Frame) else []


def _require_faces(job: _Job, clip: Clip, told: RedirectedVideo, seen: int) -> None:
    """Raises UserError if no frame was redirected, KeyboardInterrupt if that is because the user stopped it."""
    if any(face.frames for face in told.faces.values()):
        return
    if told.stopped:
        raise KeyboardInterrupt
    if not seen:
        raise UserError(
            f"{clip.path}: no face found in its {_counted(told.frames)}; faces are found from 40 pixels up.",
            remedy="Choose another video, or a larger copy of it.",
        )
    if job.number is not None and not 1 <= job.number <= seen:
        raise UserError(f"--face: found {job.number}, expected 1 to {seen}, in the order in which they appear.")
    raise UserError(
        f"{clip.path}: no face of it can be redirected ({'; '.join(map(str, told.faces.values()))}).",
        remedy="Choose another video.",
    )


def _metadata(clip: Clip | Camera, job: _Job, noted: bool) -> dict[str, str]:
    """Those of the file, and what is done to it now."""
    kept = {key: value for key, value in clip.metadata.items() if key not in OF_THE_FILE}
    if not noted:
        return kept
    whom = "all faces" if job.number is None else f"face {job.number}"
    note = f"redirected: {whom}, {job.asked} ({SOURCE_TYPE})"
    return kept | {"comment": "; ".join(filter(None, (kept.get("comment"), note)))}


def _counted(frames: int) -> str:
    return f"{frames} frame{'s' * (frames != 1)}"


def _shown(angles: ndarray) -> str:
    return " ".join(f"{round(float(angle)) + 0:d}" for angle in angles)
