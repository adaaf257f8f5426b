"""What is asked of a face: degrees, as they are seen in the photograph, to conditions of its patch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.command import UserError
from core.redirection.faces import PhotoFace

LIMIT = 60.0  # degrees; beyond it no training set has faces

Degrees = tuple[float, float]


@dataclass(frozen=True)
class Edit:
    """Gaze and head in degrees (pitch, yaw), as in `core.redirection.faces`; None: as it is.

    relative: degrees from where they are now.  eye_contact: the gaze goes into the camera.
    """

    gaze: Degrees | None = None
    head: Degrees | None = None
    relative: bool = False
    eye_contact: bool = False

    def __post_init__(self) -> None:
        """Raises UserError for what cannot be asked."""
        if self.gaze is None and self.head is None and not self.eye_contact:
            raise UserError("nothing is asked for; give --gaze, --head or --eye-contact.")
        if self.gaze is not None and self.eye_contact:
            raise UserError("--eye-contact is a gaze, too; leave out --gaze.")
        for flag, angles in (("--gaze", self.gaze), ("--head", self.head)):
            if angles is not None and not np.abs(angles).max() <= LIMIT:  # nor where one is nan
                found = " ".join(f"{angle:g}" for angle in angles)
                raise UserError(f"{flag}: found {found}, expected pitch and yaw of at most {LIMIT:g} degrees.")

    @property
    def moves_head(self) -> bool:
        return self.head is not None

    def targets(self, face: PhotoFace, conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Factor -> (1, 2) radians in the patch. conditions: what the redirector sees there."""
        asked = {"gaze": self.gaze, "head": self.head}
        targets = {
            name: self._target(face, np.radians(angles), conditions[name])
            for name, angles in asked.items()
            if angles is not None
        }
        return targets | ({"gaze": torch.zeros_like(conditions["gaze"])} if self.eye_contact else {})

    def _target(self, face: PhotoFace, angles: np.ndarray, condition: Tensor) -> Tensor:
        if self.relative:
            angles = angles + face.from_condition(condition[0].double().cpu().numpy())
        return torch.from_numpy(face.to_condition(angles))[None].to(condition)
