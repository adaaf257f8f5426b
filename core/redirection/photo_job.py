"""One photograph, from file to file, as the command line asks for it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.command import UserError
from core.redirection.arrows import side_by_side
from core.redirection.edit import Edit, sparing
from core.redirection.faces import PhotoFace, choose, find
from core.redirection.load import Loaded
from core.redirection.photo import Back, RedirectedPhoto, redirect_faces
from core.redirection.photo_files import Photo, open_photo, write_photo
from core.redirection.sheet import draw_sheet, plan_sheet
from core.redirection.told import lines_of, record_of


@dataclass(frozen=True)
class PhotoJob:
    """How photographs are redirected.

    number: of the face, None for all.  back, whole_face, focal: as of `redirect_photo`.  noted: the metadata say it.
    both: before and after are written, side by side.  steps: of a sheet, which is written instead; 0: none.
    measures: the record has what was measured.
    """

    loaded: Loaded
    edit: Edit
    number: int | None = None
    back: Back | None = None
    whole_face: bool = False
    focal: float | None = None
    noted: bool = True
    both: bool = False
    steps: int = 0
    measures: bool = False

    def run(self, source: Path, out: Path, photo: Photo | None = None) -> tuple[list[str], dict[str, Any]]:
        """Returns lines for the user and a record for --json. Raises UserError for what cannot be done.

        photo: the source where it is opened already.
        """
        photo = photo or open_photo(source)
        if self.edit.look_at is not None:
            _require_inside(self.edit.look_at, photo)
        found = sparing(find(photo.pixels, photo.film, self.focal), self.edit, self.number)
        try:
            faces = choose(found, self.number)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        names = {"source": str(source), "written": str(out)}
        if self.steps:
            return self._write_sheet(photo, faces[0], out), names
        done = redirect_faces(
            self.loaded, photo, faces, self.edit, back=self.back, whole_face=self.whole_face, found=found
        )
        self._write(done, out)
        return lines_of(done), names | (record_of(done) if self.measures else {})

    def _write_sheet(self, photo: Photo, face: PhotoFace, out: Path) -> list[str]:
        sheet = plan_sheet(self.edit, self.steps)
        picture, done = draw_sheet(self.loaded, photo, face, sheet, back=self.back, whole_face=self.whole_face)
        line = f"face {face.number}: a sheet of {len(sheet.rows)} rows of {len(sheet.rows[0])}"
        write_photo(out, picture, _beside(photo), f"redirected: {line}" * self.noted)
        doubts = Counter(doubt for one in done for doubt in one.doubts)
        return [line, *(f"face {face.number} {doubt} ({count} of {len(done)})" for doubt, count in doubts.items())]

    def _write(self, done: RedirectedPhoto, out: Path) -> None:
        if self.both:
            write_photo(out, side_by_side(done), _beside(done.photo), done.note * self.noted)
        else:
            done.save(out, noted=self.noted)


def _beside(photo: Photo) -> Photo:
    """What stands beside the pixels of a picture that is made of a photograph: its colours, not its camera."""
    return Photo(photo.pixels, profile=photo.profile)


def _require_inside(point: tuple[float, float], photo: Photo) -> None:
    height, width = photo.pixels.shape[:2]
    if not (0 <= point[0] < width and 0 <= point[1] < height):
        raise UserError(
            f"--look-at: found {point[0]:g} {point[1]:g}, expected a pixel of the upright photograph, {width} x "
            f"{height}, column and row."
        )
