"""A photograph on the page: its faces are found once, seen once by a redirector, and redirected many times.

What is shown is a smaller copy; the whole photograph is redirected when it is downloaded, by the same conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from PIL import Image

from core.command import UserError
from core.redirection.edit import Edit
from core.redirection.faces import PhotoFace, choose, find
from core.redirection.load import Loaded
from core.redirection.measure import Measured, measure
from core.redirection.photo import RedirectedFace, RedirectedPhoto, SeenFace, look, way_back
from core.redirection.photo_files import FORMATS, Photo, open_photo
from preprocess.face_patches import LeftOut

SHOWN = 1024  # pixels along the longer side of the picture on the page
LARGEST = 60  # megapixels


@dataclass(frozen=True)
class OpenPhoto:
    """A photograph and its faces. path: its file.  shown: the copy for the page.  to_shown: (3, 3), to its pixels."""

    path: Path
    photo: Photo
    found: Sequence[PhotoFace | LeftOut]
    shown: Photo
    to_shown: ndarray

    @property
    def download_name(self) -> str:
        suffix = self.path.suffix if self.path.suffix.lower() in FORMATS else ".png"
        return f"{self.path.stem}-redirected{suffix}"


def open_for_page(path: Path) -> OpenPhoto:
    """Raises UserError where it cannot be read, is too large for the page, or has no face that can be redirected."""
    try:
        _require_size(path)
        photo = open_photo(path)
        found = find(photo.pixels, photo.film)
        choose(found, None)
    except UserError as error:
        told = str(error).removeprefix(f"{path}: ")
        raise UserError(told[:1].upper() + told[1:]) from error
    shown, to_shown = smaller(photo.pixels, SHOWN)
    return OpenPhoto(path, photo, found, Photo(shown), to_shown)


def sit(photo: OpenPhoto, loaded: Loaded) -> "Sitting":
    """Let a redirector see the faces of a photograph."""
    back = way_back(loaded, None)
    faces = [look(loaded, photo.photo.pixels, face, back) for face in photo.found if isinstance(face, PhotoFace)]
    return Sitting(photo, faces)


@dataclass(frozen=True)
class Sitting:
    """A photograph as a redirector sees it. faces: those that can be redirected, the largest first.

    Below, edit None is a photograph as it is, and number None every face; else the one of that number.
    """

    photo: OpenPhoto
    faces: Sequence[SeenFace]

    def chosen(self, number: int | None) -> SeenFace:
        """The face, of every face the largest."""
        return next((face for face in self.faces if face.face.number == number), self.faces[0])

    @property
    def left_out(self) -> list[LeftOut]:
        """Faces that cannot be redirected, with why."""
        return [face for face in self.photo.found if isinstance(face, LeftOut)]

    def shown(self, edit: Edit | None, number: int | None = None) -> RedirectedPhoto:
        """The picture for the page."""
        return _redirected(self.photo.shown, self._shown_faces, edit, number)

    def whole(self, edit: Edit | None, number: int | None = None) -> RedirectedPhoto:
        """The photograph at its full size, as `redirect_photo` has it."""
        return _redirected(self.photo.photo, self.faces, edit, number)

    def numbered(self) -> ndarray:
        """The shown picture as it is, and where there are several faces their numbers beside them."""
        picture = self.photo.shown.pixels.copy()
        for face in self._shown_faces if len(self._shown_faces) > 1 else ():
            corners = np.rint(face.face.corners).astype(np.int32)
            width = max(round(face.face.side / 60), 1)
            cv2.polylines(picture, [corners], True, (255, 255, 255), width, cv2.LINE_AA)
            at, scale = (corners[0] + (4, 22)).tolist(), 0.8
            for colour, thick in (((0, 0, 0), 5), ((255, 255, 255), 2)):
                cv2.putText(
                    picture, str(face.face.number), at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA
                )
        return picture

    def measured(self, number: int) -> Measured | None:
        """Gaze and head of a face before it was redirected, as the reference sees them in the shown picture."""
        return self._measured[number]

    @cached_property
    def _shown_faces(self) -> list[SeenFace]:
        return [face.moved(self.photo.to_shown) for face in self.faces]

    @cached_property
    def _measured(self) -> dict[int, Measured | None]:
        pixels = self.photo.shown.pixels
        return {face.face.number: measure(pixels, face.face) for face in self._shown_faces}


def _redirected(photo: Photo, faces: Sequence[SeenFace], edit: Edit | None, number: int | None) -> RedirectedPhoto:
    pixels = photo.pixels
    done: list[RedirectedFace] = []
    left_out: list[LeftOut] = []
    if edit is None:
        return RedirectedPhoto(photo, pixels, done)
    for face in faces:
        if number is None and (why := edit.spoils(face.face)):
            left_out.append(LeftOut(f"face {face.face.number}", why, "choose it alone to do it all the same"))
        elif number in (None, face.face.number):
            pixels, one = face.redirect(pixels, edit)
            done.append(one)
    return RedirectedPhoto(photo, pixels, done, left_out)


def smaller(pixels: ndarray, longest: int, multiple: int = 1) -> tuple[ndarray, ndarray]:
    """A copy (h, w, 3) of a picture of at most so many pixels a side, and the homography (3, 3) to it.

    multiple: of which both sides are.
    """
    before = np.array(pixels.shape[1::-1])
    after = np.rint(before * min(longest / before.max(), 1.0) / multiple).astype(int).clip(1) * multiple
    (x, y), same = after / before, np.array_equal(after, before)
    copy = pixels if same else cv2.resize(pixels, after.tolist(), interpolation=cv2.INTER_AREA)
    return copy, np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _require_size(path: Path) -> None:
    """Before anything of that size is in memory. What Pillow cannot open is told by those who read it."""
    try:
        with Image.open(path) as file:
            megapixels = file.width * file.height / 1e6
    except Image.DecompressionBombError:
        raise UserError(
            f"This photograph is too large for the page, which takes {LARGEST} megapixels.", remedy="Make it smaller."
        ) from None
    except (OSError, ValueError, SyntaxError):
        return
    if megapixels > LARGEST:
        raise UserError(
            f"This photograph has {megapixels:.0f} megapixels, the page takes {LARGEST}. Make it smaller, or use "
            "python redirect.py."
        )
