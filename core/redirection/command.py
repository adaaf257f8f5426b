"""redirect.py for one photograph: check, redirect, write, and say what was done."""

import argparse
import re
from pathlib import Path

from core.command import DONE, UserError
from core.redirection.edit import Edit
from core.redirection.faces import choose, find
from core.redirection.load import load
from core.redirection.photo import redirect_faces
from core.redirection.photo_files import FORMATS, check_output, open_photo
from core.redirection.video_frames import VIDEOS
from core.tracking import say


def redirect_file(arguments: argparse.Namespace) -> int:
    """What `core.redirection.arguments` asks for; returns the exit code.

    Raises UserError or OSError with a message for the user.
    """
    gaze, head = (tuple(angles) if angles else None for angles in (arguments.gaze, arguments.head))
    edit = Edit(gaze, head, arguments.relative, arguments.eye_contact)
    _check(arguments)
    if arguments.webcam is not None or arguments.photo.suffix.lower() in VIDEOS:
        from core.redirection.video_command import redirect_clip  # slow to import, and only videos need it

        return redirect_clip(arguments, edit)
    photo = open_photo(arguments.photo)
    out = arguments.out or _beside(arguments.photo)
    check_output(out, arguments.photo)
    loaded = load(arguments.checkpoint, arguments.config, arguments.device)
    found = find(photo.pixels, photo.film, arguments.focal)
    try:
        faces = choose(found, arguments.face)
    except UserError as error:
        raise UserError(f"{arguments.photo}: {error}") from error
    options = {"back": arguments.back, "whole_face": arguments.whole_face}
    done = redirect_faces(loaded, photo, faces, edit, **options, found=found)
    done.save(out, noted=not arguments.no_note)
    for face in done.faces:
        say(str(face))
        for doubt in face.face.doubts:
            say(f"face {face.face.number} {doubt}.")
    for left_out in done.left_out:
        say(f"{left_out.name} is left as it is: {left_out.reason} ({left_out.detail}).")
    say(f"Wrote {out}.")
    return DONE


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.photo is None) == (arguments.webcam is None):
        raise UserError("name a photograph or a video, or give --webcam.")
    if arguments.focal is not None and not 50 <= arguments.focal <= 50_000:
        raise UserError(f"--focal: found {arguments.focal:g}, expected pixels, 50 to 50000.")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", arguments.device):
        raise UserError(f"--device: found {arguments.device}, expected auto, cpu, cuda or cuda:N.")


def _beside(photo: Path) -> Path:
    suffix = photo.suffix if photo.suffix.lower() in FORMATS else ".png"
    return photo.with_name(f"{photo.stem}-redirected{suffix}")
