"""Redirect the faces of a photograph: find, look, redirect, put back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy import ndarray

from core.command import UserError
from core.redirection import paste
from core.redirection.edit import Degrees, Edit, sparing
from core.redirection.equalizing import Equalized, picture
from core.redirection.faces import SIDE, PhotoFace, choose, find
from core.redirection.fade import eye_fade, face_fade
from core.redirection.load import Loaded
from core.redirection.photo_files import Photo, open_photo, write_photo
from models.redirector import Encoding
from preprocess.face_patches import LeftOut
from preprocess.normalization import ST_ED, View, label_to_vector, warp_image

Back = Literal["pixels", "patch"]
LARGEST_PATCH = 1024  # pixels a side
FAR_TURN, FAR_ASIDE = 30.0, 40.0  # degrees, of the head and of the eyes in it; few training sets have more


@dataclass(frozen=True)
class RedirectedFace:
    """What was done to a face: gaze and head in degrees (pitch, yaw), before as the redirector sees them, and after."""

    face: PhotoFace
    before: dict[str, Degrees]
    after: dict[str, Degrees]

    def __str__(self) -> str:
        x, y = self.face.corners.mean(axis=0)
        told = (
            f"{name} {_shown(self.before[name])} to {_shown(angles)}" if angles != self.before[name] else
            f"{name} {_shown(angles)} kept"
            for name, angles in self.after.items()
        )  # fmt: skip
        return f"face {self.face.number} at {x:.0f}, {y:.0f}: {', '.join(told)} degrees"

    @property
    def doubts(self) -> list[str]:
        """Why the result may be poor, of the face and of what was asked."""
        found = []
        if np.abs(np.subtract(self.after["head"], self.before["head"])).max() > FAR_TURN:
            found.append(f"turns its head by more than {FAR_TURN:g} degrees: much that comes into view was never seen")
        is_aside = degrees_between(self.after["gaze"], self.after["head"]) > FAR_ASIDE
        if is_aside and self.after != self.before:
            found.append(f"is asked to look more than {FAR_ASIDE:g} degrees past its head, further than eyes turn")
        return self.face.doubts + found


@dataclass(frozen=True)
class RedirectedPhoto:
    """A photograph after it was redirected. pixels: (H, W, 3) uint8 RGB, upright.  left_out: faces that were not."""

    photo: Photo
    pixels: ndarray
    faces: Sequence[RedirectedFace]
    left_out: Sequence[LeftOut] = field(default_factory=tuple)

    @property
    def note(self) -> str:
        return "redirected: " + "; ".join(map(str, self.faces))

    def save(self, path: str | Path, *, noted: bool = True) -> None:
        """Write it, as `write_photo` does. noted: its metadata say what was done."""
        write_photo(Path(path), self.pixels, self.photo, self.note if noted else "")


def redirect_photo(
    loaded: Loaded,
    photo: str | Path | ndarray | Photo,
    edit: Edit,
    *,
    number: int | None = None,
    back: Back | None = None,
    whole_face: bool = False,
    focal: float | None = None,
) -> RedirectedPhoto:
    """Redirect the faces of a photograph: a file, or pixels (H, W, 3) uint8 RGB.

    number: of the one face to redirect, the largest is 1; None for all.  back: the way back into the photograph, its
    own pixels moved or the decoded patch; None for the first where the redirector can.  whole_face: let an edit of the
    gaze change more than the eyes.  focal: focal length in pixels, if known.
    Raises UserError where the photograph cannot be read or no face of it can be redirected.
    """
    if isinstance(photo, np.ndarray):
        photo = Photo(photo)
    elif not isinstance(photo, Photo):
        photo = open_photo(photo)
    found = sparing(find(photo.pixels, photo.film, focal), edit, number)
    return redirect_faces(loaded, photo, choose(found, number), edit, back=back, whole_face=whole_face, found=found)


def redirect_faces(
    loaded: Loaded,
    photo: Photo,
    faces: Sequence[PhotoFace],
    edit: Edit,
    *,
    back: Back | None = None,
    whole_face: bool = False,
    found: Sequence[PhotoFace | LeftOut] = (),
) -> RedirectedPhoto:
    """`redirect_photo` of faces that are found already."""
    way, pixels, done = way_back(loaded, back), photo.pixels, []
    for face in faces:
        pixels, one = redirect_face(loaded, pixels, face, edit, way, whole_face)
        done.append(one)
    return RedirectedPhoto(photo, pixels, done, [face for face in found if isinstance(face, LeftOut)])


def way_back(loaded: Loaded, back: Back | None) -> Back:
    """The one that is asked for, or the better one. Raises UserError where the redirector cannot."""
    carries = loaded.redirector.carries_pixels
    if back == "pixels" and not carries:
        raise UserError("--back pixels: this redirector carries no pixels; st-ed-flow does. Leave it out.")
    return back or ("pixels" if carries else "patch")


def redirect_face(
    loaded: Loaded,
    pixels: ndarray,
    face: PhotoFace,
    edit: Edit,
    back: Back,
    whole_face: bool,
    *,
    fade: ndarray | None = None,
    calm: Callable[[Encoding], Encoding] | None = None,
) -> tuple[ndarray, RedirectedFace]:
    """One face of a photograph (H, W, 3) uint8 RGB.

    fade: in place of the one that the edit calls for.  calm: what to take the face for, by what is seen of it.
    """
    seen = look(loaded, pixels, face, back)
    if calm is not None:
        seen = replace(seen, source=calm(seen.source))
    return seen.redirect(pixels, edit, whole_face, fade=fade)


@dataclass(frozen=True)
class SeenFace:
    """A face as a redirector sees it: encoded once, for any number of edits.

    patch: what is encoded, and source what of it.  back: the way back into the photograph.
    """

    loaded: Loaded
    face: PhotoFace
    back: Back
    patch: Equalized
    source: Encoding

    @property
    def angles(self) -> dict[str, Degrees]:
        """Gaze and head in degrees, as they are seen in the photograph."""
        return _angles(self.face, self.source)

    def moved(self, to_new: ndarray) -> "SeenFace":
        """The same face in another picture. to_new: (3, 3), from pixels of the photograph to those of the picture."""
        return replace(self, face=self.face.moved(to_new))

    @torch.no_grad()
    def redirect(
        self,
        pixels: ndarray,
        edit: Edit,
        whole_face: bool = False,
        *,
        fade: ndarray | None = None,
    ) -> tuple[ndarray, RedirectedFace]:
        """As `redirect_face`, in the picture (H, W, 3) uint8 RGB that the face is in."""
        redirector = self.loaded.redirector
        turned = redirector.rotate(self.source, edit.targets(self.face, self.source.conditions))
        decoded = redirector.decode_parts(turned)
        if self.back == "pixels":
            filling = paste.carried(pixels, self.face, self.patch, decoded.parts)
        else:
            patch = self.patch.given_back(picture(decoded.image), self._reconstructed)
            filling = paste.put_in(pixels, patch, self.patch.plain)
        if fade is None:
            fade = face_fade() if edit.moves_head or whole_face else self._around_eyes
        done = RedirectedFace(self.face, self.angles, _angles(self.face, turned))
        return paste.paste(pixels, self.face, fade, filling), done

    @cached_property
    def _reconstructed(self) -> ndarray:
        """(S, S, 3) float32 grey levels: the patch as it is decoded without an edit."""
        return picture(self.loaded.redirector.decode(self.source))

    @cached_property
    def _around_eyes(self) -> ndarray:
        return eye_fade(self.face)


@torch.no_grad()
def look(loaded: Loaded, pixels: ndarray, face: PhotoFace, back: Back) -> SeenFace:
    """What the redirector sees of a face of a picture (H, W, 3) uint8 RGB."""
    seen = _seen(loaded, pixels, face, _patch_side(loaded, face) if back == "patch" else loaded.size)
    return SeenFace(loaded, face, back, seen, loaded.redirector.encode(seen.tensor(loaded.device)))


def _seen(loaded: Loaded, pixels: ndarray, face: PhotoFace, side: int) -> Equalized:
    """The patch as data sets have it, 128 pixels or larger, and of it what is encoded."""
    view = ST_ED.resized(max(side, SIDE))
    return Equalized(warp_image(pixels, _resizing(view) @ face.to_patch, view.size), side)


def _resizing(view: View) -> ndarray:
    """(3, 3): pixels of the patch of 128 to those of a view of another size."""
    return view.camera_matrix @ np.linalg.inv(ST_ED.camera_matrix)


def _patch_side(loaded: Loaded, face: PhotoFace) -> int:
    """Pixels a side of the patch to decode: as many as the photograph has there, where the redirector can."""
    if not loaded.redirector.carries_pixels:
        return loaded.size
    most = max(LARGEST_PATCH // loaded.size, 1)
    return loaded.size * int(np.clip(np.ceil(face.side / loaded.size), 1, most))


def _angles(face: PhotoFace, encoding: Encoding) -> dict[str, Degrees]:
    """Gaze and head as they are seen in the photograph."""
    found = {}
    for name in ("gaze", "head"):
        pitch, yaw = np.degrees(face.from_condition(encoding.conditions[name][0].double().cpu().numpy()))
        found[name] = (float(pitch), float(yaw))
    return found


def degrees_between(a: Degrees, b: Degrees) -> float:
    """The angle between two directions (pitch, yaw), degrees."""
    cosine = label_to_vector(np.radians(a)) @ label_to_vector(np.radians(b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _shown(angles: Degrees) -> str:
    return " ".join(f"{round(angle) + 0:d}" for angle in angles)
