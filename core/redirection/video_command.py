"""redirect.py for a video or a webcam: check, redirect, write, and say what was done."""

import argparse
from pathlib import Path

from core.command import DONE, STOPPED
from core.redirection.edit import Edit
from core.redirection.load import load
from core.redirection.video import RedirectedVideo, redirect_video
from core.redirection.video_files import WRITTEN, check_video_output, open_video
from core.redirection.webcam import open_camera
from core.tracking import say


def redirect_clip(arguments: argparse.Namespace, edit: Edit) -> int:
    """What `core.redirection.arguments` asks for, of a video; returns the exit code.

    Raises UserError or OSError with a message for the user.
    """
    options = {
        "number": arguments.face,
        "back": arguments.back,
        "whole_face": arguments.whole_face,
        "focal": arguments.focal,
        "noted": not arguments.no_note,
    }
    if arguments.webcam is not None:
        out = arguments.out or Path("webcam-redirected.mp4")
        check_video_output(out)
        loaded = load(arguments.checkpoint, arguments.config, arguments.device)
        with open_camera(arguments.webcam) as camera:
            say("Ctrl-C ends it.")
            _tell(redirect_video(loaded, camera, edit, out, **options))
            return DONE
    out = arguments.out or _beside(arguments.photo)
    check_video_output(out, arguments.photo)
    with open_video(arguments.photo):  # before the redirector, which takes longer
        pass
    loaded = load(arguments.checkpoint, arguments.config, arguments.device)
    done = redirect_video(loaded, arguments.photo, edit, out, **options)
    _tell(done)
    return STOPPED if done.stopped else DONE


def _tell(done: RedirectedVideo) -> None:
    for _, face in sorted(done.faces.items()):
        say(str(face))
        for doubt, frames in face.doubts.items():
            say(f"face {face.number}, in {frames} of them, {doubt}.")
    if done.faceless:
        say(f"{done.faceless} of {done.frames} frames have no face and are passed through.")
    if done.damaged:
        say(f"{done.damaged} damaged parts of the file could not be decoded and are left out.")
    say(f"{'Stopped; wrote' if done.stopped else 'Wrote'} {done.path}: {done.frames} frames, {done.seconds:.1f} s.")


def _beside(video: Path) -> Path:
    suffix = video.suffix if video.suffix.lower() in WRITTEN else ".mp4"
    return video.with_name(f"{video.stem}-redirected{suffix}")
