"""redirect.py: check what is asked, do it to a photograph, a folder or a file of patches, and say what was done."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.command import DONE, UserError
from core.files import require_writable, write_json
from core.redirection.edit import Edit
from core.redirection.folder import plan_folder, redirect_folder
from core.redirection.load import load
from core.redirection.measure import REFERENCE
from core.redirection.persons import SUFFIXES, check_persons_output, redirect_persons
from core.redirection.photo_files import FORMATS, check_output, open_photo
from core.redirection.photo_job import PhotoJob
from core.redirection.video_frames import VIDEOS
from core.tracking import say

GRID = (0.0, 20.0)  # degrees of gaze and head, where a grid is asked for and nothing else
NOT_OF_VIDEOS = ("grid", "side_by_side", "json")
NOT_OF_PATCHES = ("face", "whole_face", "focal", "look_at", "grid", "side_by_side")


def redirect_file(arguments: argparse.Namespace) -> int:
    """What `core.redirection.arguments` asks for; the exit code. Raises UserError or OSError with a message."""
    if arguments.export:
        from core.redirection.export import export_file  # only this needs it

        return export_file(arguments)
    edit = _edit(arguments)
    _check(arguments)
    if arguments.webcam is not None or arguments.photo.suffix.lower() in VIDEOS:
        _refuse(arguments, NOT_OF_VIDEOS, "a video")
        from core.redirection.video_command import redirect_clip  # slow to import, and only videos need it

        return redirect_clip(arguments, edit)
    if arguments.photo.is_dir():
        code, records = _folder(arguments, edit)
    elif arguments.photo.suffix.lower() in SUFFIXES:
        code, records = _persons(arguments, edit)
    else:
        code, records = _photo(arguments, edit)
    if arguments.json:
        write_json(arguments.json, {"reference": REFERENCE, "photographs": records})
        say(f"Wrote {arguments.json}.")
    return code


def _photo(arguments: argparse.Namespace, edit: Edit) -> tuple[int, list[dict[str, Any]]]:
    out = arguments.out or _beside(arguments.photo)
    photo = open_photo(arguments.photo)  # a mistake in its name is told before the redirector is loaded
    check_output(out, arguments.photo)
    lines, record = _job(arguments, edit).run(arguments.photo, out, photo)
    for line in lines:
        say(line)
    say(f"Wrote {out}.")
    return DONE, [record]


def _folder(arguments: argparse.Namespace, edit: Edit) -> tuple[int, list[dict[str, Any]]]:
    out = arguments.out or arguments.photo.resolve().with_name(f"{arguments.photo.resolve().name}-redirected")
    files = plan_folder(arguments.photo, out)
    return redirect_folder(_job(arguments, edit), files)


def _persons(arguments: argparse.Namespace, edit: Edit) -> tuple[int, list[dict[str, Any]]]:
    _refuse(arguments, NOT_OF_PATCHES, "a file of patches")
    out = arguments.out or _beside(arguments.photo)
    check_persons_output(out, arguments.photo)
    loaded = load(arguments.checkpoint, arguments.config, arguments.device)
    records = redirect_persons(
        loaded, arguments.photo, out, edit, back=arguments.back, noted=not arguments.no_note,
        measures=bool(arguments.json),
    )  # fmt: skip
    say(f"Wrote {out}.")
    return DONE, records


def _job(arguments: argparse.Namespace, edit: Edit) -> PhotoJob:
    return PhotoJob(
        load(arguments.checkpoint, arguments.config, arguments.device), edit, arguments.face, arguments.back,
        arguments.whole_face, arguments.focal, not arguments.no_note, arguments.side_by_side, arguments.grid or 0,
        bool(arguments.json),
    )  # fmt: skip


def _edit(arguments: argparse.Namespace) -> Edit:
    asked = (arguments.gaze, arguments.head, arguments.look_at)
    gaze, head, look_at = (tuple(pair) if pair else None for pair in asked)
    if arguments.grid and not (gaze or head or look_at or arguments.eye_contact):
        gaze = head = GRID
    return Edit(gaze, head, arguments.relative, arguments.eye_contact, look_at)


def _refuse(arguments: argparse.Namespace, flags: Sequence[str], what: str) -> None:
    asked = [flag for flag in flags if getattr(arguments, flag) not in (None, False)]
    if asked:
        raise UserError(f"--{asked[0].replace('_', '-')} is of photographs, not of {what}; leave it out.")


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.photo is None) == (arguments.webcam is None):
        raise UserError("name a photograph or a video, or give --webcam.")
    if arguments.focal is not None and not 50 <= arguments.focal <= 50_000:
        raise UserError(f"--focal: found {arguments.focal:g}, expected pixels, 50 to 50000.")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", arguments.device):
        raise UserError(f"--device: found {arguments.device}, expected auto, cpu, cuda or cuda:N.")
    if arguments.grid is not None and not 2 <= arguments.grid <= 15:
        raise UserError(f"--grid: found {arguments.grid}, expected 2 to 15 steps.")
    if arguments.grid:
        _refuse(arguments, ("side_by_side", "json"), "a grid")
    if arguments.json:
        if arguments.json.is_dir():
            raise UserError(f"--json: {arguments.json} is a folder; name a file.")
        require_writable(arguments.json.parent, "--json")


def _beside(source: Path) -> Path:
    suffix = source.suffix if source.suffix.lower() in (*FORMATS, *SUFFIXES) else ".png"
    return source.with_name(f"{source.stem}-redirected{suffix}")
