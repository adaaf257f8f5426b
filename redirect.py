"""Redirect gaze and head in a photograph or a video: python redirect.py PHOTO --gaze PITCH YAW -o OUT

Degrees, as they are seen in the photograph: 0 0 looks into the camera, pitch > 0 up, yaw > 0 towards image left. Also
as a library: `load` once, then `redirect_photo` or `redirect_video`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.command import answer

if TYPE_CHECKING:
    from numpy import ndarray

    from core.redirection.edit import Degrees
    from core.redirection.load import Loaded
    from core.redirection.photo import RedirectedPhoto
    from core.redirection.photo_files import Photo
    from core.redirection.video import RedirectedVideo


def load(checkpoint: str | Path | None = None, config: str | Path | None = None, device: str = "auto") -> "Loaded":
    """A redirector, ready to be used, see `core.redirection.load.load`."""
    from core.redirection.load import load as load_redirector

    return load_redirector(checkpoint, config, device)


def redirect_photo(
    model: "Loaded",
    photo: "str | Path | ndarray | Photo",
    *,
    gaze: "Degrees | None" = None,
    head: "Degrees | None" = None,
    relative: bool = False,
    eye_contact: bool = False,
    look_at: tuple[float, float] | None = None,
    **options: Any,
) -> "RedirectedPhoto":
    """A photograph with its faces redirected: `.pixels`, `.faces`, and `.save(path)`.

    photo: a file, or pixels (H, W, 3) uint8 RGB.  gaze, head: degrees (pitch, yaw); None: as it is.  relative: from
    where they are now.  eye_contact: the gaze into the camera.  look_at: the gaze to a pixel of the photograph.
    options: of `core.redirection.photo.redirect_photo`.  Raises UserError for what cannot be done.
    """
    from core.redirection.edit import Edit
    from core.redirection.photo import redirect_photo as redirect

    return redirect(model, photo, Edit(gaze, head, relative, eye_contact, look_at), **options)


def redirect_video(
    model: "Loaded",
    video: str | Path,
    out: str | Path,
    *,
    gaze: "Degrees | None" = None,
    head: "Degrees | None" = None,
    relative: bool = False,
    eye_contact: bool = False,
    look_at: tuple[float, float] | None = None,
    **options: Any,
) -> "RedirectedVideo":
    """As `redirect_photo`, a video into the file `out`; options: of `core.redirection.video.redirect_video`."""
    from core.redirection.edit import Edit
    from core.redirection.video import redirect_video as redirect

    return redirect(model, video, Edit(gaze, head, relative, eye_contact, look_at), out, **options)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where some photographs of a folder were not redirected, 2 for what cannot be used."""
    from core.redirection.arguments import parse

    arguments = parse(argv, __doc__ or "")

    def run() -> int:
        from core.redirection.command import redirect_file  # in here, so that Ctrl-C in a slow import is answered

        return redirect_file(arguments)

    return answer("redirect.py", run)


if __name__ == "__main__":
    sys.exit(main())
