"""A sheet of one face: a column a gaze, a row a head, each redirected from the photograph."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy import ndarray

from core.redirection.edit import Degrees, Edit
from core.redirection.faces import PhotoFace
from core.redirection.load import Loaded
from core.redirection.photo import Back, RedirectedFace, look, way_back
from core.redirection.photo_files import Photo
from preprocess.normalization import apply_homography, warp_image

AROUND, SHOWN = 2.4, 1.5  # patches that are redirected for a cell, and that it shows: what moves comes from beyond it
CELL = (160, 360)  # pixels a side, at least and at most; between them as many as the photograph has there
MARGIN = 28, 150  # pixels above and left of the cells, for their labels
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Sheet:
    """What a sheet shows. gazes, heads: degrees (pitch, yaw), a column and a row each; none: as `edit` has it."""

    edit: Edit
    gazes: Sequence[Degrees]
    heads: Sequence[Degrees]

    @property
    def rows(self) -> list[list[Edit]]:
        return [
            [replace(self.edit, gaze=gaze, head=head) for gaze in self.gazes or (self.edit.gaze,)]
            for head in self.heads or (self.edit.head,)
        ]

    @property
    def titles(self) -> tuple[list[str], list[str]]:
        """Of columns and of rows."""
        other = "eye contact" if self.edit.eye_contact else "at the point" if self.edit.look_at else "gaze as it is"
        gazes, heads = ([f"{name} {self._shown(one)}" for one in all_of] for name, all_of in (
            ("gaze", self.gazes), ("head", self.heads)))  # fmt: skip
        return gazes or [other], heads or ["head as it is"]

    def _shown(self, angles: Degrees) -> str:
        sign = "+" if self.edit.relative else ""
        return " ".join(f"{round(angle, 1) + 0:{sign}g}" for angle in angles)


def plan_sheet(edit: Edit, steps: int) -> Sheet:
    """From what is asked of gaze and head down to its opposite, in equal steps: image left and up come first."""

    def spread(angles: Degrees | None) -> list[Degrees]:
        if angles is None:
            return []
        first = np.array(angles) * np.sign(angles[int(np.abs(angles).argmax())])
        return [(float(pitch), float(yaw)) for pitch, yaw in np.linspace(first, -first, steps)]

    return Sheet(edit, spread(edit.gaze), spread(edit.head))


def draw_sheet(
    loaded: Loaded, photo: Photo, face: PhotoFace, sheet: Sheet, *, back: Back | None = None, whole_face: bool = False
) -> tuple[ndarray, list[RedirectedFace]]:
    """The sheet (H, W, 3) uint8 RGB, and what was done in each cell."""
    cell, moved, to_cell = _cut_out(photo, face)
    if sheet.edit.look_at is not None:
        x, y = apply_homography(to_cell, np.array(sheet.edit.look_at))
        sheet = replace(sheet, edit=replace(sheet.edit, look_at=(float(x), float(y))))
    seen = look(loaded, cell, moved, way_back(loaded, back))
    done = [[seen.redirect(cell, edit, whole_face) for edit in row] for row in sheet.rows]
    edge = round((1 - SHOWN / AROUND) / 2 * len(cell))
    cells = np.vstack([np.hstack([pixels[edge:-edge, edge:-edge] for pixels, _ in row]) for row in done])
    return _labelled(cells, *sheet.titles), [face for row in done for _, face in row]


def _cut_out(photo: Photo, face: PhotoFace) -> tuple[ndarray, PhotoFace, ndarray]:
    """What a cell shows, the face in it, and the homography from the photograph to it."""
    width = AROUND * face.side
    side = round(float(np.clip(width * SHOWN / AROUND, *CELL)) * AROUND / SHOWN)
    scale = side / width
    shift = (side - 1) / 2 - scale * face.corners.mean(axis=0)
    to_cell = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
    moved = face.moved(to_cell)
    return warp_image(photo.pixels, to_cell, side, cv2.BORDER_REPLICATE), moved, to_cell


def _labelled(cells: ndarray, columns: Sequence[str], rows: Sequence[str]) -> ndarray:
    top, left = MARGIN
    picture = np.full((len(cells) + top, cells.shape[1] + left, 3), 255, np.uint8)
    picture[top:, left:] = cells
    across, down = cells.shape[1] / len(columns), len(cells) / len(rows)
    for i, title in enumerate(columns):
        _write(picture, title, left + (i + 0.5) * across, top / 2)
    for i, title in enumerate(rows):
        _write(picture, title, left / 2, top + (i + 0.5) * down)
    return picture


def _write(picture: ndarray, text: str, x: float, y: float) -> None:
    """Around a point."""
    (width, height), _ = cv2.getTextSize(text, FONT, 0.45, 1)
    cv2.putText(picture, text, (round(x - width / 2), round(y + height / 2)), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
