"""Image files: their pixels, whether these are whole, and what EXIF says of them."""

import io
import os
import re
import struct
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO

import cv2
import numpy as np
from numpy import ndarray

from core.files import read_bytes, require_file
from preprocess.face_patches import LeftOut
from preprocess.native_output import heard, say

if TYPE_CHECKING:
    from PIL.Image import Image

BEHIND = 128  # grey level that is seen through what is transparent
FOCAL_MM, FOCAL_35MM, ORIENTATION = 0x920A, 0xA405, 0x0112  # EXIF tags
_EXIF = 0x8769
_ROWS = 64
_BROKEN = (OSError, ValueError, TypeError, SyntaxError, ZeroDivisionError)  # what Pillow raises for broken files
_PNG, _CHANNELS = b"\x89PNG\r\n\x1a\n", {2: 3, 4: 2, 6: 4}  # of its kinds of colour, where there are several
_DEFLATE = 1032  # bytes that one byte of its compression can stand for, at most
_JPEG, _END = b"\xff\xd8", b"\xff\xd9"
# What decoders print of damaged pixels that they give out all the same; what they say of colour profiles is harmless.
_DAMAGE = re.compile(
    rb"(?:Corrupt JPEG data: (?!bad ICC)|Premature end of JPEG file|"
    rb"libpng error: |\[ERROR:|Stream does not end with EOC)"
    rb"(?P<what>.*)"
)
_SPARE = re.compile(rb"(\d+) extraneous bytes before marker 0xd9")


def read_image(path: Path, name: str) -> ndarray | LeftOut:
    """An image (H, W, 3) uint8 RGB as it is stored: what EXIF says of its orientation is left alone.

    What is transparent shows mid grey. A file that is cut short or damaged inside is refused, as far as its decoder
    can tell: BMP, PPM and raw TIFF have nothing to tell it by, and a wrong byte or two may do in any format but PNG.
    What follows the end of a JPEG file is left alone, as phones put films there and cameras zeros.
    name: of the image in its data set, which may say it itself; one that leads out of it is refused.
    """
    if ".." in PurePath(name).parts:
        return LeftOut(name, "image cannot be read", "its name leads out of the data set", damaged=True)
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return LeftOut(name, "no such image", damaged=True)
    except (OSError, ValueError) as error:  # the latter: of a name that no file can have
        return LeftOut(name, "image cannot be read", str(error), damaged=True)
    if not data:
        return LeftOut(name, "image cannot be read", "the file is empty", damaged=True)
    if problem := _png_problem(data):
        return LeftOut(name, "image cannot be read", problem, damaged=True)
    try:
        image, said = _decode(data)
    except cv2.error as error:  # it has limits to what a header may say
        most = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "2^30")
        reason = f"it has more than {most} pixels" if "MAX_IMAGE" in error.err else f"OpenCV refuses it: {error.err}"
        return LeftOut(name, "image cannot be read", reason, damaged=True)
    problem = _problem(data, image, said)
    if image is None or problem:
        return LeftOut(name, "image cannot be read", problem, damaged=True)
    if said:
        say(said)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if data.startswith(_JPEG) else _over_grey(data, image)


def _png_problem(data: bytes) -> str:
    """What a PNG file says that it has and cannot have: its decoder takes the memory for it first. '' of others."""
    if not data.startswith(_PNG) or len(data) < 26:
        return ""
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    promised = height * (1 + width * depth * _CHANNELS.get(kind, 1) // 8)
    if promised > _DEFLATE * len(data):
        return f"a file of {len(data)} bytes cannot hold the {promised} that its header says"
    at = len(_PNG)
    while at + 12 <= len(data):
        length, chunk = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if chunk == b"IEND":
            break
    return "it is cut short or damaged" if at > len(data) else ""


def _decode(data: bytes) -> tuple[ndarray | None, bytes]:
    """Pixels (H, W, 3) uint8 BGR, if any, and what the decoder printed.

    With an end put after it a JPEG file that is cut short is decoded with a warning, like those damaged inside.
    """
    whole = data + _END if data.startswith(_JPEG) else data
    with heard() as said:
        image = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return image, said[0]


def _problem(data: bytes, image: ndarray | None, said: bytes) -> str:
    """What is wrong with a file, or ''."""
    damage = _DAMAGE.search(said)
    if data.startswith(_JPEG):
        return _jpeg_problem(data, damage["what"] if damage else b"") if damage or image is None else ""
    if image is None:
        return "it is cut short, damaged or no image that OpenCV knows"
    return "its decoder says that it is damaged" if damage else ""


def _jpeg_problem(data: bytes, said: bytes) -> str:
    """In words what its decoder said of a JPEG file; '' where it can be overlooked."""
    if _END not in data:
        return "the JPEG file is cut short"
    spare = _SPARE.match(said)
    if spare and bytes(int(spare[1])) + _END in data:
        return ""  # zeros, with which some cameras fill up the last block
    return "the JPEG file is damaged" + (f": {said.decode(errors='backslashreplace')}" if said else "")


def _over_grey(data: bytes, image: ndarray) -> ndarray:
    """RGB of an image decoded as BGR; where it has transparent pixels, anew and over grey."""
    try:
        with _open(io.BytesIO(data)) as picture:
            rgba = np.asarray(picture.convert("RGBA")) if picture.has_transparency_data else None
    except _BROKEN:  # a format of OpenCV's alone, without transparency
        rgba = None
    if rgba is None or rgba[..., 3].min() == 255:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    shown = np.empty(rgba.shape[:2] + (3,), np.uint8)
    for rows in range(0, len(rgba), _ROWS):  # of all at once, floats take ten times the image
        alpha = rgba[rows : rows + _ROWS, :, 3:].astype(np.float32) / 255
        shown[rows : rows + _ROWS] = np.rint(alpha * rgba[rows : rows + _ROWS, :, :3] + (1 - alpha) * BEHIND)
    return shown


def read_exif(path: Path, *tags: int) -> list[float]:
    """The numbers of EXIF tags; 0 where one is not said."""
    try:
        require_file(path)
        with _open(path) as image:
            exif = image.getexif()
            inside = exif.get_ifd(_EXIF)
            return [float(inside.get(tag) or exif.get(tag) or 0) for tag in tags]
    except _BROKEN:
        return [0.0] * len(tags)


def _open(file: Path | BinaryIO) -> "Image":
    """Pillow's image, nothing decoded yet; some phones take more pixels than it deems sound."""
    from PIL import Image as pillow  # slow to import, and seldom needed

    pillow.MAX_IMAGE_PIXELS = None
    return pillow.open(file)
