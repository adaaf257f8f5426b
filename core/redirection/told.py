"""What is told of redirected faces: lines for the user, and the same as data with what was measured."""

from collections.abc import Mapping
from typing import Any

from core.redirection.edit import Degrees
from core.redirection.measure import Measured, measure
from core.redirection.photo import RedirectedFace, RedirectedPhoto


def lines_of(done: RedirectedPhoto) -> list[str]:
    """What was done to each face, why it may be poor, and what was left as it is."""
    lines = []
    for one in done.faces:
        lines += [str(one), *(f"face {one.face.number} {doubt}" for doubt in one.doubts)]
    return lines + [f"{face.name} is left as it is: {face.reason} ({face.detail})" for face in done.left_out]


def record_of(done: RedirectedPhoto) -> dict[str, Any]:
    """Plain data: faces with the angles that they had, that were asked for, and that were measured."""
    faces = [
        face_record(one, measure(done.photo.pixels, one.face), measure(done.pixels, one.face)) for one in done.faces
    ]
    left_out = [{"face": face.name, "reason": face.reason, "detail": face.detail} for face in done.left_out]
    return {"faces": faces, "left_out": left_out}


def face_record(one: RedirectedFace, before: Measured | None, after: Measured | None) -> dict[str, Any]:
    """Of a face, degrees (pitch, yaw) by factor. before, after: as the reference sees it; None: it finds no face."""
    x, y = one.face.corners.mean(axis=0)
    return {
        "number": one.face.number,
        "at": [round(float(x), 1), round(float(y), 1)],
        "source": _plain(one.before),
        "asked": _plain(one.after),
        "measured_before": None if before is None else _plain(before.angles),
        "measured_after": None if after is None else _plain(after.angles),
        "doubts": one.doubts,
    }


def _plain(angles: Mapping[str, Degrees | None]) -> dict[str, list[float] | None]:
    return {
        name: None if degrees is None else [round(angle, 2) + 0.0 for angle in degrees]
        for name, degrees in angles.items()
    }
