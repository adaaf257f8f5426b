"""What is asked of a face: degrees, as they are seen in the photograph, to conditions of its patch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.command import UserError
from core.redirection.faces import PhotoFace
from preprocess.face_patches import LeftOut

LIMIT = 60.0  # degrees; beyond it no training set has faces

Degrees = tuple[float, float]


@dataclass(frozen=True)
class Edit:
    """Gaze and head in degrees (pitch, yaw), as in `core.redirection.faces`; None: as it is.

    relative: degrees from where they are now.  eye_contact: the gaze goes into the camera.  look_at: it goes to what
    is seen at this point, pixels (column, row) of the photograph.
    """

    gaze: Degrees | None = None
    head: Degrees | None = None
    relative: bool = False
    eye_contact: bool = False
    look_at: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Raises UserError for what cannot be asked."""
        gazes = {
            "--gaze": self.gaze is not None,
            "--eye-contact": self.eye_contact,
            "--look-at": self.look_at is not None,
        }
        asked = [flag for flag, is_asked in gazes.items() if is_asked]
        if not asked and self.head is None:
            raise UserError("nothing is asked for; give --gaze, --head, --eye-contact or --look-at.")
        if len(asked) > 1:
            raise UserError(f"{' and '.join(asked)}: each says where the eyes look; give one of them.")
        for flag, angles in (("--gaze", self.gaze), ("--head", self.head)):
            if angles is not None and not np.abs(angles).max() <= LIMIT:  # nor where one is nan
                found = " ".join(f"{angle:g}" for angle in angles)
                raise UserError(f"{flag}: found {found}, expected pitch and yaw of at most {LIMIT:g} degrees.")

    @property
    def moves_head(self) -> bool:
        return self.head is not None

    @property
    def moves_gaze(self) -> bool:
        return self.gaze is not None or self.eye_contact or self.look_at is not None

    def targets(self, face: PhotoFace, conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Factor -> (1, 2) radians in the patch. conditions: what the redirector sees there.

        Raises UserError for a point to look at that is too far from the face.
        """
        targets = {
            name: self._target(face, np.radians(angles), conditions[name])
            for name, angles in (("gaze", self.gaze), ("head", self.head))
            if angles is not None
        }
        if self.eye_contact:
            targets["gaze"] = torch.zeros_like(conditions["gaze"])
        if self.look_at is not None:
            condition = face.to_condition(self._gaze_at_point(face, self.look_at))
            targets["gaze"] = torch.from_numpy(condition)[None].to(conditions["gaze"])
        return targets

    def spoils(self, face: PhotoFace) -> str:
        """Why this would spoil a face, or ''."""
        if self.moves_head and face.is_sideways:
            return "head is seen from the side"
        return "eyes are closed" if self.moves_gaze and not self.moves_head and face.is_closed else ""

    def _target(self, face: PhotoFace, angles: np.ndarray, condition: Tensor) -> Tensor:
        if self.relative:
            angles = angles + face.from_condition(condition[0].double().cpu().numpy())
        return torch.from_numpy(face.to_condition(angles))[None].to(condition)

    def _gaze_at_point(self, face: PhotoFace, point: tuple[float, float]) -> np.ndarray:
        gaze = face.looking_at(point)
        if not np.abs(np.degrees(gaze)).max() <= LIMIT:
            raise UserError(
                f"--look-at: {point[0]:g} {point[1]:g} lies {np.abs(np.degrees(gaze)).max():.0f} degrees from face "
                f"{face.number}, expected at most {LIMIT:g}. Choose a point nearer to it, or one face with --face."
            )
        return gaze


def sparing(found: Sequence[PhotoFace | LeftOut], edit: Edit, number: int | None = None) -> list[PhotoFace | LeftOut]:
    """Faces without those that the edit would spoil. number: one that is asked for is not spared."""
    return [
        LeftOut(f"face {face.number}", why, f"--face {face.number} does it all the same")
        if isinstance(face, PhotoFace) and number != face.number and (why := edit.spoils(face))
        else face
        for face in found
    ]
