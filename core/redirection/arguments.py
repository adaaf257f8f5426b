"""The command line of redirect.py. Imports nothing that is slow."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parse(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """What is asked on the command line; None is this process's own."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("redirect.py", description=description, formatter_class=raw)
    parser.add_argument(
        "photo", type=Path, nargs="?", metavar="PHOTO",
        help="JPEG, PNG, WebP or the like; or a video, a folder of photographs, or a file of patches",
    )  # fmt: skip
    parser.add_argument("--webcam", nargs="?", const="0", metavar="N", help="in place of PHOTO; Ctrl-C ends the video")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE",
        help=".jpg, .png or .webp; of a video .mp4, .mov or .mkv; a folder or a file of patches, as PHOTO is; "
        "default: NAME-redirected",
    )  # fmt: skip
    _add_edit(parser.add_argument_group("what to change"))
    _add_output(parser.add_argument_group("what to write"))
    _add_redirector(parser.add_argument_group("with what, and how"))
    arguments = parser.parse_args(argv)
    if arguments.export:
        _check_export(parser, arguments)
    return arguments


def _add_edit(group: argparse._ArgumentGroup) -> None:
    angles: Any = {"nargs": 2, "type": float, "metavar": ("PITCH", "YAW")}
    group.add_argument("--gaze", **angles, help="where the eyes look, degrees; default: as it is")
    group.add_argument("--head", **angles, help="where the head points, degrees; default: as it is")
    group.add_argument("--relative", action="store_true", help="the degrees count from where gaze and head are now")
    group.add_argument("--eye-contact", action="store_true", help="the gaze goes into the camera")
    group.add_argument(
        "--look-at", nargs=2, type=float, metavar=("X", "Y"), help="the gaze goes to this pixel of the photograph"
    )
    group.add_argument("--face", type=int, metavar="N", help="one face, 1 is the largest; default: every face")


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--side-by-side", action="store_true", help="before and after, with arrows of gaze and head")
    group.add_argument(
        "--grid", type=int, metavar="N",
        help="a sheet of N gazes by N heads of one face, from --gaze and --head to their opposites",
    )  # fmt: skip
    group.add_argument("--json", type=Path, metavar="FILE", help="the angles of each face: before, asked for, measured")
    group.add_argument("--no-note", action="store_true", help="do not say in the metadata that it was redirected")


def add_checkpoint(group: argparse._ActionsContainer) -> None:
    """Which redirector, and where it runs."""
    group.add_argument(
        "--checkpoint", type=Path, metavar="RUN", help="a run folder, or a checkpoint's file; default: our own"
    )
    group.add_argument(
        "--config", type=Path, metavar="JSON", help="how the networks of a published checkpoint are built"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")


def _add_redirector(group: argparse._ArgumentGroup) -> None:
    add_checkpoint(group)
    group.add_argument(
        "--back",
        choices=("pixels", "patch"),
        help="into the photograph: its own pixels moved (default where the redirector can), or the decoded patch",
    )
    group.add_argument("--whole-face", action="store_true", help="let an edit of the gaze change more than the eyes")
    group.add_argument("--focal", type=float, metavar="PIXELS", help="focal length; default: EXIF's, else guessed")
    group.add_argument("--export", type=Path, metavar="FILE", help="in place of all that: the redirector as .onnx")


def _check_export(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Leaves the process, with a sentence, for what --export would not look at."""
    used = ("export", "checkpoint", "config")
    given = [name for name, value in vars(arguments).items() if name not in used and value != parser.get_default(name)]
    if given:
        names = ", ".join(name.replace("_", "-") for name in given)
        parser.error(f"--export goes with --checkpoint and --config alone, leave out {names}")
