"""What happens when something on the page is moved: values of its components in, new ones out."""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from core.page import told
from core.page.choices import Choice
from core.page.pad import asked_by, moved_to, put_at
from core.page.sitting import Sitting, open_for_page, sit
from core.page.walk import FRAMES, RATE, YAW, Walks, walk_frames
from core.redirection.arrows import side_by_side
from core.redirection.edit import Edit
from core.redirection.load import Loaded, load
from core.redirection.photo import RedirectedPhoto
from core.redirection.photo_files import Photo, write_photo
from core.redirection.sheet import draw_sheet, plan_sheet
from utils import write_video

BEGIN = "Choose a photograph with a face in it, or the example."
EVERY = "every face"
GRID, GRID_STEPS = 20.0, 5  # degrees of yaw to both sides, and how many pictures that is
FOLDER = "GRADIO_TEMP_DIR"  # in the environment: where the page's files are

Pad = dict[str, Any]
Given = ParamSpec("Given")
Out = TypeVar("Out")


def answered(event: Callable[Given, Out]) -> Callable[Given, Out]:
    """The event; what the user or the machine is the cause of is shown in a sentence, where gradio says 'Error'."""

    @wraps(event)
    def call(*given: Given.args, **named: Given.kwargs) -> Out:
        try:
            return event(*given, **named)
        except Exception as error:
            if why := told.fault(error):
                raise gr.Error(why) from error
            raise

    return call


class Events:
    """Of one page. choices: its redirectors, by name."""

    def __init__(self, choices: Sequence[Choice], device: str) -> None:
        self._choices = {choice.name: choice for choice in choices}
        self._device = device
        self.load = lru_cache(maxsize=2)(self._load)

    def _load(self, name: str) -> Loaded:
        choice = self._choices[name]
        return load(choice.checkpoint, choice.config, self._device)

    def open(self, path: str | None, name: str, sitting: Sitting | None) -> list[Any]:
        """Another photograph, or another redirector of the same one."""
        if path is None:
            return _closed(BEGIN)
        try:
            is_same = sitting is not None and sitting.photo.path == Path(path)
            photo = sitting.photo if sitting is not None and is_same else open_for_page(Path(path))
            sitting = sit(photo, self.load(name))
        except Exception as error:
            if why := told.fault(error):
                return _closed(f"**{why}**")
            raise
        numbers = [str(face.face.number) for face in sitting.faces]
        face = gr.update(choices=[EVERY, *numbers], value=EVERY, visible=len(numbers) > 1)
        *begun, line = begin(sitting, EVERY)
        return [sitting, face, gr.update(interactive=True), None, None, *begun, f"{told.opened(sitting)} {line}"]


@answered
def begin(sitting: Sitting | None, face: str) -> list[Any]:
    """Both pads where the face is, and the picture as it is."""
    if sitting is None:
        return _nothing(BEGIN)
    angles = sitting.chosen(_number(face)).angles
    gaze, head = put_at(angles["gaze"]), put_at(angles["head"])
    return [gaze, head, *show(sitting, face, gaze, head)]


@answered
def show(sitting: Sitting | None, face: str, gaze: Pad, head: Pad, beside: bool = False) -> list[Any]:
    """What was done, the picture of it, and a line about it."""
    if sitting is None:
        return [None, None, BEGIN]
    edit = edit_of(gaze, head)
    done = sitting.shown(edit, _number(face))
    picture = sitting.numbered() if edit is None else side_by_side(done) if beside else done.pixels
    return [done, picture, told.line(done, edit)]


def look_into_the_camera(gaze: Pad) -> Pad:
    return moved_to(gaze, (0, 0))


@answered
def tell(sitting: Sitting | None, done: RedirectedPhoto | None) -> str:
    """The table of angles."""
    return told.EMPTY if sitting is None or done is None else told.table(sitting, done)


@answered
def write(sitting: Sitting | None, face: str, gaze: Pad, head: Pad) -> str:
    """The path of the photograph at its full size."""
    if sitting is None:
        raise gr.Error(BEGIN)
    path = _new_folder() / sitting.photo.download_name
    sitting.whole(edit_of(gaze, head), _number(face)).save(path)
    return str(path)


@answered
def draw_grid(sitting: Sitting | None, face: str) -> str:
    """The path of a sheet of one face, gazes by heads."""
    if sitting is None:
        raise gr.Error(BEGIN)
    seen = sitting.chosen(_number(face))
    sheet = plan_sheet(Edit(gaze=(0.0, GRID), head=(0.0, GRID)), GRID_STEPS)
    picture, _ = draw_sheet(seen.loaded, sitting.photo.photo, seen.face, sheet)
    path = _new_folder() / f"{sitting.photo.path.stem}-grid.jpg"
    write_photo(path, picture, Photo(picture), f"redirected: a sheet of face {seen.face.number}")
    return str(path)


@answered
def film(sitting: Sitting | None, face: str, what: Walks, progress: gr.Progress = gr.Progress()) -> str:
    """The path of a video in which one face walks."""
    if sitting is None:
        raise gr.Error(BEGIN)
    frames = progress.tqdm(walk_frames(sitting, what, _number(face)), total=FRAMES, desc="redirecting")
    path = _new_folder() / f"{sitting.photo.path.stem}-walk.mp4"
    write_video(path, list(frames), RATE, comment=f"redirected: {what}, by up to {YAW:g} degrees")
    return str(path)


def edit_of(gaze: Pad, head: Pad) -> Edit | None:
    """What the pads ask for; None where neither was moved."""
    angles = asked_by(gaze), asked_by(head)
    return None if angles == (None, None) else Edit(*angles)


def _number(face: str) -> int | None:
    return None if face == EVERY else int(face)


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=os.environ.get(FOLDER)))


def _nothing(line: str) -> list[Any]:
    """Both pads, what was done, the picture and the line, without a photograph."""
    return [put_at((0, 0)), put_at((0, 0)), None, None, line]


def _closed(line: str) -> list[Any]:
    return [None, gr.update(visible=False), gr.update(interactive=False), None, None, *_nothing(line)]
