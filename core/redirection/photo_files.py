"""Photographs as files: upright, with all that stands beside the pixels, and written with a note of what was done."""

import struct
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy import ndarray
from PIL import Image, ImageCms, PngImagePlugin

from core.command import UserError
from core.files import atomic_write, require_writable
from preprocess.datasets.images import open_photograph, upright
from preprocess.face_patches import LeftOut
from preprocess.image_files import ORIENTATION

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".webp": "WEBP"}
QUALITY = 95
LONGEST = 32767  # pixels a side, from which on OpenCV does not warp
HISTORY, WIDTH, HEIGHT = 0x9213, 0xA002, 0xA003  # EXIF tags: what was done to the image; pixels
_EXIF = 0x8769
_WEBP = 16383  # pixels a side at most
_SEGMENT = 65_000  # bytes that a JPEG file holds of one kind of metadata
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    "{}</rdf:RDF></x:xmpmeta>"
)
_NOTE = (  # IPTC's word for a photograph into which a trained network's pixels were composed
    '<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
    "Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia" '
    'photoshop:History="{}"/>'
)


@dataclass(frozen=True)
class Photo:
    """An upright photograph (H, W, 3) uint8 RGB and what its file says besides.

    film: focal length in mm as on 35 mm film, 0 if not known.  alpha: (H, W) uint8, if it has any.
    profile: of its colours (ICC), exif, xmp: as they stand in the file, b"" where there is none.
    """

    pixels: ndarray
    film: float = 0.0
    alpha: ndarray | None = None
    profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    beside: dict[str, Any] = field(default_factory=dict)


def open_photo(path: str | Path) -> Photo:
    """Raises UserError where it cannot be read."""
    path = Path(path)
    opened = open_photograph(path.parent, path.name)
    if isinstance(opened, LeftOut):
        raise UserError(f"{path}: {opened.reason}{f' ({opened.detail})' * bool(opened.detail)}.")
    pixels, film = opened
    if max(pixels.shape) >= LONGEST:
        raise UserError(str(path), f"{max(pixels.shape)} pixels a side", f"less than {LONGEST}", "Make it smaller.")
    try:
        with Image.open(path) as file:
            exif = file.getexif()
            alpha = None
            if file.has_transparency_data:  # what is behind it is kept, too
                rgba = upright(np.asarray(file.convert("RGBA")), exif.get(ORIENTATION, 1))
                pixels, alpha = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3]
            profile = file.info.get("icc_profile") or b""
            beside = {"dpi": file.info["dpi"]} if "dpi" in file.info else {}
            return Photo(
                pixels, film, alpha, profile * _is_rgb(profile), _turned(exif, pixels.shape), _xmp_of(file), beside
            )
    except (
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        struct.error,
    ):  # OpenCV reads it, Pillow does not: pixels alone
        return Photo(pixels, film)


def check_output(path: Path, source: Path | None = None) -> None:
    """Raises UserError if a photograph cannot be written there."""
    if path.is_dir():
        raise UserError(f"-o: {path} is a folder; name a file.")
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"-o: {path} is none of the formats that are written: .jpg, .png, .webp.", remedy="Choose one of these."
        )
    if source is not None and path.exists() and path.samefile(source):
        raise UserError(f"-o: {path} is the photograph itself; name another file.")
    require_writable(path.parent, "-o")


def write_photo(path: Path, pixels: ndarray, photo: Photo, note: str = "") -> None:
    """Write pixels (H, W, 3) uint8 with what stood beside those of a photograph, in the format of the name.

    note: what was done, for the metadata; "" leaves it out.
    Raises UserError for another format, OSError where it cannot be written.
    """
    check_output(path)
    kind = FORMATS[path.suffix.lower()]
    alpha = None if kind == "JPEG" else photo.alpha
    image = Image.fromarray(pixels if alpha is None else np.dstack([pixels, alpha]))
    if kind == "WEBP" and max(image.size) > _WEBP:
        raise UserError(
            f"-o: {path}: WebP holds {_WEBP} pixels a side, the photograph has {max(image.size)}; use .png."
        )
    options = {"exif": _noted(photo.exif, note), "icc_profile": photo.profile or None, **photo.beside}
    xmp = _with_note(photo.xmp, note) if note else photo.xmp
    if kind == "JPEG":
        options["exif"] = options["exif"] if len(options["exif"]) < _SEGMENT else _noted(b"", note)
        xmp = xmp if len(xmp) < _SEGMENT else _with_note(b"", note) * bool(note)
    if kind == "PNG":
        options["pnginfo"] = _png_text(xmp)
    elif xmp:
        options["xmp"] = xmp
    if kind != "PNG":
        options |= {"quality": QUALITY} | ({"subsampling": 0} if kind == "JPEG" else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        image.save(temporary, kind, **options)


def _is_rgb(profile: bytes) -> bool:
    """Whether a profile is of RGB: those of grey and of printing colours would turn it into something else."""
    try:
        return bool(profile) and ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space.strip() == "RGB"
    except (OSError, ImageCms.PyCMSError):
        return False


def _turned(exif: Image.Exif, shape: tuple[int, ...]) -> bytes:
    """EXIF of the upright image, without the small picture inside it, which shows the face as it was."""
    if not exif:
        return b""
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    inside = exif.get_ifd(_EXIF)
    for tag, pixels in ((WIDTH, shape[1]), (HEIGHT, shape[0])):
        if tag in inside:
            inside[tag] = pixels
    return exif.tobytes()


def _noted(exif: bytes, note: str) -> bytes:
    if not note:
        return exif
    known = Image.Exif()
    known.load(exif)
    known[HISTORY] = "; ".join(filter(None, (str(known.get(HISTORY, "")), note)))
    return known.tobytes()


def _xmp_of(file: Image.Image) -> bytes:
    xmp = file.info.get("xmp") or file.info.get("XML:com.adobe.xmp") or b""
    return xmp.encode() if isinstance(xmp, str) else xmp


def _with_note(xmp: bytes, note: str) -> bytes:
    """XMP that says what was done, beside what it says already."""
    told = _NOTE.format(escape(note, {'"': "&quot;"})).encode()
    before, end, after = xmp.rpartition(b"</rdf:RDF>")
    return before + told + end + after if end else _XMP.format(told.decode()).encode()


def _png_text(xmp: bytes) -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    if xmp:
        text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    return text
