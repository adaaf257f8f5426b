"""Frames of a video: upright RGB to look at, and the luma and chroma (YUV 4:2:0) that stand in the file.

What was changed in RGB is added to luma and chroma as a change, so that all other pixels reach the encoder as they were
decoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np
from numpy import ndarray

LUMA = {1: (0.2126, 0.0722), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}  # H.273: of red, of blue
SOME_LUMA = (0.299, 0.114)  # where nothing is said, as decoders have it
VIDEOS = {
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm",
    ".wmv",
}  # fmt: skip  # names of files that are taken for videos
FULL = 2  # range of colours, 0 to 255; else it is 16 to 235


@dataclass(frozen=True)
class Frame:
    """An upright frame. pixels: (H, W, 3) uint8 RGB.  yuv: (3 H / 2, W) uint8: luma, then both chromas.

    pts: its time in units of the video's time base.  time: the same in seconds.
    """

    pixels: ndarray
    yuv: ndarray
    pts: int
    time: float


@dataclass(frozen=True)
class Format:
    """What the frames of a video have in common.

    shape: height and width, upright and even.  rate: frames a second, in the mean.  frames: how many, about; 0 if that
    is not known.  colours: numbers of H.273 by FFmpeg's names.  aspect: width of a pixel by its height.
    """

    shape: tuple[int, int]
    time_base: Fraction
    rate: Fraction
    frames: int = 0
    colours: Mapping[str, int] = field(default_factory=dict)
    aspect: Fraction = Fraction(1)

    @property
    def to_yuv(self) -> ndarray:
        """(3, 3) float32: a change of red, green and blue to that of luma and both chromas."""
        red, blue = LUMA.get(self.colours.get("colorspace", 0), SOME_LUMA)
        luma = np.array([red, 1 - red - blue, blue])
        rows = np.array([luma, ([0, 0, 1] - luma) / (2 - 2 * blue), ([1, 0, 0] - luma) / (2 - 2 * red)])
        full = self.colours.get("color_range") == FULL
        return (rows * (1 if full else np.array([[219], [224], [224]]) / 255)).astype(np.float32)


def planes(yuv: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Views of luma (H, W) and both chromas (H / 2, W / 2)."""
    height, width = yuv.shape[0] * 2 // 3, yuv.shape[1]
    flat, pixels = yuv.reshape(-1), height * width
    half = height // 2, width // 2
    blue, red = (flat[start : start + pixels // 4].reshape(half) for start in (pixels, pixels * 5 // 4))
    return flat[:pixels].reshape(height, width), blue, red


def upright(image: ndarray, turn: ndarray) -> ndarray:
    """An image (H, W, ...) as a display matrix (2, 2) of a file wants it seen: by quarters of a turn, and mirrored."""
    (a, b), (c, d) = turn
    if a == d == 0:
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def upright_yuv(yuv: ndarray, turn: ndarray) -> ndarray:
    """The same of luma and chroma, as of `Frame`."""
    turned = [upright(plane, turn) for plane in planes(yuv)]
    return np.concatenate([plane.reshape(-1) for plane in turned]).reshape(-1, turned[0].shape[1])


def with_change(frame: Frame, pixels: ndarray, to_yuv: ndarray) -> ndarray:
    """Luma and chroma of a frame whose pixels are (H, W, 3) uint8 RGB now; where they are the same, to the bit.

    to_yuv: of its `Format`.
    """
    window = _changed(frame.pixels, pixels)
    if window is None:
        return frame.yuv
    change = cv2.transform(pixels[window].astype(np.float32) - frame.pixels[window], to_yuv)
    halved = tuple(slice(edge.start // 2, edge.stop // 2) for edge in window)
    small = cv2.resize(change[..., 1:], (change.shape[1] // 2, change.shape[0] // 2), interpolation=cv2.INTER_AREA)
    yuv = frame.yuv.copy()
    changes = change[..., 0], small[..., 0], small[..., 1]
    for plane, where, by in zip(planes(yuv), (window, halved, halved), changes, strict=True):
        plane[where] = np.clip(np.rint(plane[where] + by), 0, 255)
    return yuv


def _changed(before: ndarray, after: ndarray) -> tuple[slice, slice] | None:
    """Rows and columns, from even to even ones, outside which nothing differs; None if nothing does."""
    rows = _even(np.flatnonzero((before != after).reshape(len(before), -1).any(axis=1)))
    columns = _even(np.flatnonzero((before[rows] != after[rows]).any(axis=(0, 2))))
    return (rows, columns) if rows.stop else None


def _even(numbers: ndarray) -> slice:
    """From an even number to an even one, so that ascending numbers are within."""
    return slice(numbers[0] // 2 * 2, numbers[-1] // 2 * 2 + 2) if len(numbers) else slice(0, 0)
